"""fedward-site pause, fedward-site resume: the kill switch."""

import getpass
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from client.agent.control_client import ControlClient
from client.agent.errors import AgentUnavailableError
from client.commands.site_folder import SiteFolderHere
from client.consent.pausing import pause as pause_folder
from client.consent.pausing import resume as resume_folder
from client.installation.folder import SiteFolder
from common.terminal import JsonOption, output, print_json

PersonOption = Annotated[
    str, typer.Option("--by", help="Who decides this, for the audit log; default: your user name.")
]


def pause(*, site_folder: SiteFolderHere = Path(), by: PersonOption = "", as_json: JsonOption = False) -> None:
    """Take part in nothing from the next message on; a round under way goes on without this site.

    Works whether the site runs or not, and lasts until `fedward-site resume`.

    Example: `fedward-site pause --by "Dr North" --site-folder site/`
    """
    _decide(site_folder, by, ControlClient.pause, pause_folder)
    _say({"paused": True}, "paused: this site takes part in nothing until `fedward-site resume`", as_json=as_json)


def resume(*, site_folder: SiteFolderHere = Path(), by: PersonOption = "", as_json: JsonOption = False) -> None:
    """Take part again after a pause.

    Example: `fedward-site resume --by "Dr North" --site-folder site/`
    """
    _decide(site_folder, by, ControlClient.resume, resume_folder)
    _say({"paused": False}, "resumed: this site takes part again", as_json=as_json)


def _decide(site_folder: Path, by: str, tell: Callable[..., object], write: Callable[..., object]) -> None:
    """Tell a running agent, or write into the folder where none runs; who decided goes along as ``person``."""
    folder, person = SiteFolder(site_folder), by or getpass.getuser()
    folder.require()
    try:
        with ControlClient(folder.control_socket) as control:
            tell(control, person=person)
    except AgentUnavailableError:
        write(folder, person=person)


def _say(document: dict[str, object], sentence: str, *, as_json: bool) -> None:
    print_json(document) if as_json else output.print(sentence)
