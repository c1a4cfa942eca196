"""fedward-server certificate: how long the gateway's certificate lasts, and a new one."""

from typing import Annotated

import typer

from common.terminal import JsonOption, output, print_json
from server.commands.federation_options import HERE, FolderOption, federation_at
from server.federation.certificates import days_left
from server.federation.setup import renew_certificate


def certificate(
    *,
    renew: Annotated[bool, typer.Option("--renew", help="Issue a new one, by the authority that init made.")] = False,
    folder: FolderOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Show for how long the gateway's certificate is valid; with --renew issue the next one.

    Example: `fedward-server certificate --renew`
    """
    federation, _ = federation_at(folder)
    if renew:
        renew_certificate(federation)
    facts = {
        "certificate_days": round(days_left(federation.server_certificate)),
        "authority_days": round(days_left(federation.ca_certificate)),
    }
    if as_json:
        print_json(facts)
        return
    output.print(
        f"certificate: {facts['certificate_days']} days; its authority: {facts['authority_days']} days", markup=False
    )
    if renew:
        output.print("restart `fedward-server up` to use it; hospitals need nothing new", markup=False)
