"""fedward-server admit and dismiss: which hospitals the next roster names."""

from pathlib import Path
from typing import Annotated

import typer

from common.terminal import JsonOption, output, print_json
from common.trust.enrolment import read_enrolment
from server.commands.federation_options import HERE, FolderOption, federation_at
from server.federation.admission import admit as admit_site
from server.federation.admission import dismiss as dismiss_site
from server.federation.errors import NobodyToAskError


def admit(
    enrolment: Annotated[Path, typer.Argument(help="The hospital's enrolment file.")],
    *,
    fingerprint: Annotated[
        str | None, typer.Option(help="What the hospital read out over the phone; asked for when absent.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="The hospital has new keys.")] = False,
    folder: FolderOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Admit a hospital, after comparing its fingerprint with what it read out itself.

    Example: `fedward-server admit north.json --fingerprint 7K2M-…`
    """
    federation, _ = federation_at(folder)
    if fingerprint is None:
        site = read_enrolment(enrolment).site
        try:
            fingerprint = str(typer.prompt(f"Call {site} and type the fingerprint that you hear"))
        except typer.Abort:
            sentence = f"nobody to ask, nobody was admitted: give --fingerprint, as {site} read it out over the phone"
            raise NobodyToAskError(sentence) from None
    admitted = admit_site(federation, enrolment, fingerprint, replaces=replace)
    if as_json:
        print_json({"site": admitted.site, "fingerprint": admitted.fingerprint()})
    else:
        output.print(f"admitted {admitted.site}; next: `fedward-server roster sign`", markup=False)


def dismiss(
    site: Annotated[str, typer.Argument(help="Name of the hospital.")],
    *,
    folder: FolderOption = HERE,
) -> None:
    """Take a hospital out of the next roster. Studies under way need a new plan to go on without it.

    Example: `fedward-server dismiss north`
    """
    federation, _ = federation_at(folder)
    dismiss_site(federation, site)
    output.print(f"dismissed {site}; `fedward-server roster sign` shuts its node out", markup=False)
