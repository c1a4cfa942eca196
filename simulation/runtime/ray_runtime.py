"""The same ServerApp and ClientApp on Flower's own simulation runtime (Ray) instead of the loopback grid.

Ray gives a site no node config and may use a new process for each message; a site's session lives in the memory of one
process. So one actor holds all sites, and the site folder is found by Flower's ``partition-id``.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # read when Flower is imported
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.simulation import run_simulation

import server.app
from client.app import SITE_FOLDER
from client.app import app as site_app
from client.site import Site, keep_open
from common.flower.messages import HELLO_TYPE, MESSAGE_TYPES

Opener = Callable[[Path], Site]

_opened: set[str] = set()


def open_once(folder: str, open_site: Opener) -> None:
    """Open a site at its first message in this process.

    A function of the module, because Ray copies nested functions, with what they refer to, for each message.
    """
    if folder not in _opened:
        keep_open(open_site(Path(folder)))
        _opened.add(folder)


def app_for(folders: Sequence[Path], open_site: Opener | None = None) -> ClientApp:
    """Return a ClientApp that hands every message to the site's own app, with the folder of its partition."""
    names = [str(folder) for folder in folders]

    def answer(message: Message, context: Context) -> Message:
        folder = names[int(context.node_config["partition-id"])]
        if open_site:
            open_once(folder, open_site)
        context.node_config = {**context.node_config, SITE_FOLDER: folder}
        return site_app(message, context)

    app = ClientApp()
    for message_type in (HELLO_TYPE, *MESSAGE_TYPES.values()):
        category, _, action = message_type.partition(".")
        register: Any = app.train if category == "train" else app.query
        register(action)(answer)
    return app


def run_on_ray(study_folder: Path, site_folders: Sequence[Path], *, open_site: Opener | None = None) -> None:
    """Run a study through Flower's simulation runtime, with all sites in one actor.

    Who watches and when to stop: ``server.attempts.run_options.set_options``, because the ServerApp runs in this
    process.
    """
    os.environ[server.app.FOLDER_VARIABLE] = str(study_folder)
    cores = os.cpu_count() or 1
    run_simulation(
        server_app=server.app.app,
        client_app=app_for(site_folders, open_site),
        num_supernodes=len(site_folders),
        backend_config={
            "client_resources": {"num_cpus": cores},
            "init_args": {"num_cpus": cores, "log_to_driver": False},
        },
    )
