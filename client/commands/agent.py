"""fedward-site agent: the process that works with scans and keys."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from client.agent.agent import Agent
from client.commands.site_folder import SiteFolderHere
from common.processes.hardening import refuse_root


def agent(
    *,
    site_folder: SiteFolderHere = Path(),
    allow_root: Annotated[
        bool, typer.Option("--allow-root", envvar="FEDWARD_ALLOW_ROOT", help="Run as root (in a container).")
    ] = False,
) -> None:
    """Take tasks from the SuperNode beside it, as long as it runs. `fedward-site up` starts both and keeps them alive.

    Only the code that is installed here ever runs; plans must have been approved with `fedward-site approve`.

    Example: `fedward-site agent --site-folder site/`
    """
    refuse_root(is_allowed=allow_root)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each look at the SuperNode otherwise
    Agent(site_folder).run()
