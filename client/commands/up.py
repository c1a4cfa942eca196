"""fedward-site up: everything a taking part needs, kept alive."""

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from client.agent.control_socket import require_socket_path
from client.commands.site_folder import SiteFolderHere
from client.doctor.machine import is_running
from client.installation.config import SiteConfig, read_site_config
from client.installation.errors import NotEnrolledError
from client.installation.folder import SiteFolder
from common.flower.environment import child_environment, require_flower
from common.processes.hardening import refuse_root
from common.processes.ports import require_free
from common.processes.supervision import Child, Supervisor
from common.terminal import output
from common.trust.kit import Kit, read_kit


def up(
    *,
    site_folder: SiteFolderHere = Path(),
    allow_root: Annotated[
        bool, typer.Option("--allow-root", envvar="FEDWARD_ALLOW_ROOT", help="Run as root (in a container).")
    ] = False,
) -> None:
    """Run this site until SIGTERM or Ctrl-C: the SuperNode (network), the agent (scans, keys), the status page if set.

    What ends is started again, with growing pauses; logs are in logs/ and rotate. Nothing is trained before a plan is
    approved with `fedward-site approve`.

    Example: `fedward-site up --site-folder /srv/fedward`
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    os.umask(0o077)
    folder = SiteFolder(site_folder.resolve())
    refuse_root(is_allowed=allow_root)
    config, kit = _checked(folder)
    if not is_running(folder):  # else the lock says better what is wrong
        require_free(_ports(config), settings=str(folder.config))
    with Supervisor(site_children(folder, config), state=folder.state) as supervisor:
        output.print(f"{config.site.name}: up, coordinator at {kit.address}; Ctrl-C ends it", markup=False)
        supervisor.run()


def site_children(folder: SiteFolder, config: SiteConfig) -> list[Child]:
    """Return the programs of a site in the order in which they start; the agent ends before its way out does."""
    network, where = config.network, ("--site-folder", str(folder.path))
    plain = child_environment()
    children = [
        Child(
            name="supernode",
            command=(sys.executable, "-m", "client.agent.supernode", str(folder.path)),
            environment=child_environment(flower_home=folder.flower, https_proxy=network.https_proxy),
            log=folder.logs / "supernode.log",
            ports=(("127.0.0.1", network.runtime_port),),
            death_signal=signal.SIGTERM,  # it takes its leave; killed, it would be refused for a minute
        ),
        Child(
            name="agent",
            command=(sys.executable, "-m", "client", "agent", *where),
            environment=plain,
            log=folder.logs / "agent.log",
        ),
    ]
    if port := config.status_page.port:
        command = (sys.executable, "-m", "client.status_page", *where, "--port", str(port))
        children.append(
            Child(
                name="page",
                command=command,
                environment=plain,
                log=folder.logs / "page.log",
                ports=(("127.0.0.1", port),),
            )
        )
    return children


def _ports(config: SiteConfig) -> dict[str, tuple[str, int]]:
    """Return every port that a site takes on this machine, by its setting."""
    found = {"runtime_port": ("127.0.0.1", config.network.runtime_port)}
    if config.status_page.port:
        found["port of [status_page]"] = ("127.0.0.1", config.status_page.port)
    return found


def _checked(folder: SiteFolder) -> tuple[SiteConfig, Kit]:
    """Find out what is missing before anything starts, because a sentence here is read and one in a log is not."""
    require_flower()
    folder.require()
    require_socket_path(folder.control_socket)
    missing = [file.name for file in (folder.kit, folder.node_key, folder.runtime_secret) if not file.exists()]
    if missing:
        raise NotEnrolledError(f"{folder.path}: no {', '.join(missing)} here; run `fedward-site init` and `join` first")
    return read_site_config(folder.config), read_kit(folder.kit)
