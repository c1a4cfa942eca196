"""A hospital as processes whose training is made up: ``python made_up_site.py SITE_FOLDER`` (``agent`` for its agent).

SuperNode, agent, ledger, journal, outbox and protocol are the real ones.
"""

import logging
import sys
from dataclasses import replace
from pathlib import Path

from client.agent import agent as agent_module
from client.agent.watched_site import WatchedSite
from client.commands.up import site_children
from client.installation.config import read_site_config
from client.installation.folder import SiteFolder
from common.processes.supervision import Pauses, Supervisor
from simulation.runtime.made_up_work import MadeUpWork, numbered_update


class MadeUpSite(WatchedSite):
    def _work(self, folder, study):
        return MadeUpWork.drawing(folder, study, numbered_update)


def run_agent(folder):
    agent_module.WatchedSite = MadeUpSite
    agent_module.Agent(folder.path).run()


def run_site(folder):
    children = [
        replace(child, command=(sys.executable, __file__, str(folder.path), "agent"))
        if child.name == "agent"
        else child
        for child in site_children(folder, read_site_config(folder.config))
    ]
    with Supervisor(children, state=folder.state, pauses=Pauses(most_s=2.0)) as supervisor:
        supervisor.run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    place = SiteFolder(Path(sys.argv[1]))
    run_agent(place) if len(sys.argv) > 2 else run_site(place)
