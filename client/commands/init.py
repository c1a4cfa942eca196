"""fedward-site init: the folder of a new site."""

from pathlib import Path
from typing import Annotated

import typer

from client.installation.folder import SiteFolder
from client.installation.setup import set_up
from common.terminal import JsonOption, output, print_json

NEXT_STEPS = """\
What to do next:
  1. read {policy} with your data protection officer
  2. in {config}, name the folder of scans and the label table
  3. `fedward-site enrol --site-folder {folder}`: makes the file that goes to the coordinator
  4. keep a copy of site.key, site.secret and node.key in a safe place: without them the site must start again"""


def init(
    name: Annotated[str, typer.Argument(help="Name of this hospital: lower-case letters, digits and hyphens.")],
    *,
    site_folder: Annotated[
        Path | None, typer.Option("--site-folder", help="Folder to make; default: NAME in this folder.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Set up a new site: its folder (only you may enter it), keys, an empty ledger, settings and a strict policy.

    Nothing is sent anywhere. An existing site is left alone.

    Example: `fedward-site init north --site-folder /srv/fedward`
    """
    folder = SiteFolder(site_folder or Path(name))
    fingerprint = set_up(folder, name).fingerprint()
    if as_json:
        print_json({"site": name, "site_folder": str(folder.path), "fingerprint": fingerprint})
        return
    output.print(f"set up {name} in {folder.path}; its fingerprint is {fingerprint}", markup=False)
    output.print(NEXT_STEPS.format(folder=folder.path, policy=folder.policy, config=folder.config), markup=False)
