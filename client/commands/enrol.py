"""fedward-site enrol: the public file that goes to the coordinator."""

from pathlib import Path
from typing import Annotated

import typer

from client.commands.site_folder import SiteFolderHere
from client.installation.folder import SiteFolder
from client.installation.setup import enrolment
from common.files import write_new
from common.terminal import JsonOption, output, print_json
from common.trust.enrolment import signed_enrolment
from common.trust.identity import read_signing_key


def enrol(
    *,
    site_folder: SiteFolderHere = Path(),
    target: Annotated[
        Path | None, typer.Option("--output", help="File to write; default: NAME-enrolment.json in this folder.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the enrolment file for the coordinator, and print the fingerprint to read out over the phone.

    The file holds this site's name and public keys, nothing secret; it may travel by mail.

    Example: `fedward-site enrol --site-folder /srv/fedward --output north.json`
    """
    folder = SiteFolder(site_folder)
    told = enrolment(folder)
    file = target or Path(f"{told.site}-enrolment.json")
    write_new(file, signed_enrolment(told, read_signing_key(folder.key)))
    if as_json:
        print_json({"site": told.site, "file": str(file), "fingerprint": told.fingerprint()})
        return
    output.print(f"wrote {file}; send it to the coordinator", markup=False)
    output.print(f"fingerprint of {told.site}: [bold]{told.fingerprint()}[/]")
    output.print("read all six groups to the coordinator over the phone; you must know the voice or the number")
