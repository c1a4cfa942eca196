"""fedward-server init: a federation folder with keys, certificates and settings."""

from pathlib import Path
from typing import Annotated

import typer

from common.errors import FedwardError
from common.processes.ports import first_free
from common.terminal import JsonOption, output, print_json
from common.trust.identity import fingerprint, read_public_key
from server.federation.config import SUPERLINK_PORT, coordinator_config_text, read_coordinator_config
from server.federation.errors import FederationInvalidError
from server.federation.folder import FederationFolder
from server.federation.setup import OwnCertificate, create_federation


def init(
    folder: Annotated[Path, typer.Argument(help="The federation folder to make; new or empty.")],
    *,
    federation: Annotated[str, typer.Option(help="Name of the federation.")],
    address: Annotated[str, typer.Option(help="HOST:PORT under which hospitals reach this coordinator.")],
    gateway_port: Annotated[
        int | None, typer.Option(help="Port to listen on, where it is another than in --address.")
    ] = None,
    superlink_port: Annotated[
        int | None,
        typer.Option(help="Port of the SuperLink on 127.0.0.1; by default the first from 18000 that is free."),
    ] = None,
    status_port: Annotated[int, typer.Option(help="Port of the status page on 127.0.0.1; 0: none.")] = 0,
    certificate: Annotated[
        Path | None, typer.Option(help="The gateway's certificate (PEM), if there is one already.")
    ] = None,
    certificate_key: Annotated[Path | None, typer.Option(help="Its secret key (PEM).")] = None,
    authority: Annotated[Path | None, typer.Option(help="Certificate of the authority that signed it (PEM).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a federation folder. Keep copies of coordinator.key and tls/ca.key in a safe place.

    Example: `fedward-server init lungs --federation lungs --address fl.example.org:8443`
    """
    own = None
    if certificate or certificate_key or authority:
        if not (certificate and certificate_key and authority):
            raise FederationInvalidError("give --certificate, --certificate-key and --authority together, or none")
        own = OwnCertificate(certificate, certificate_key, authority)
    text = coordinator_config_text(
        federation,
        address,
        gateway_port=gateway_port,
        superlink_port=superlink_port or first_free("127.0.0.1", SUPERLINK_PORT, promised=_ports_beside(folder)),
        status_port=status_port,
    )
    made = FederationFolder(folder)
    create_federation(made, text, own)
    shown = fingerprint(read_public_key(made.public_key))
    if as_json:
        print_json({"folder": str(folder), "federation": federation, "address": address, "fingerprint": shown})
        return
    output.print(f"made {folder}; read {made.config} and change what must be", markup=False)
    output.print(f"the coordinator's fingerprint, for every hospital to compare:\n{shown}", markup=False)


def _ports_beside(folder: Path) -> set[int]:
    """Return the ports of federations whose folders lie beside this one: they may not run at the moment."""
    found: set[int] = set()
    for settings in folder.resolve().parent.glob("*/coordinator.toml"):
        try:
            config = read_coordinator_config(settings)
        except FedwardError:
            continue  # not ours to judge here
        found |= {config.loopback.superlink_port, config.loopback.status_port, config.gateway.gateway_port}
    return found
