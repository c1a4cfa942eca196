"""fedward-server up: everything the coordinator runs, kept alive until it is told to end."""

import logging
from typing import Annotated, Final

import typer

from common.flower.environment import require_flower
from common.processes.hardening import refuse_root
from common.processes.ports import require_free
from common.processes.supervision import Supervisor
from common.terminal import errors, output
from server.commands.federation_options import HERE, FolderOption, federation_at
from server.deployment.federation_status import process_of
from server.deployment.loopback_tls import ensure_loopback_certificates
from server.deployment.processes import children, wanted_ports
from server.federation.admission import audit
from server.federation.certificates import days_left

FEW_DAYS: Final = 30


def up(
    *,
    folder: FolderOption = HERE,
    allow_root: Annotated[
        bool, typer.Option("--allow-root", envvar="FEDWARD_ALLOW_ROOT", help="Run as root (in a container).")
    ] = False,
) -> None:
    """Run SuperLink, executor, gateway and status page until SIGTERM or Ctrl-C. Put it under systemd (docs/deploy).

    Example: `fedward-server up`
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    refuse_root(is_allowed=allow_root)
    require_flower()
    federation, config = federation_at(folder)
    days = days_left(federation.server_certificate)
    if days < FEW_DAYS:
        errors.print(f"the gateway's certificate ends in {days:.0f} days: `fedward-server certificate --renew`")
    if process_of(federation, "supervisor") is None:  # else the lock says better what is wrong
        wanted = {port.setting: port.place for port in wanted_ports(config)}
        require_free(wanted, settings=str(federation.config))
    ensure_loopback_certificates(federation)
    with Supervisor(children(federation, config), federation.state) as supervisor:
        audit(federation, "up", gateway_port=config.gateway.gateway_port)
        output.print(f"hospitals reach this coordinator at {config.gateway.public_address}", markup=False)
        supervisor.run()
    audit(federation, "down")
