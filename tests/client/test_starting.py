"""Between `up` and its agent's being ready a site is starting: nothing of its own is taken for somebody else's."""

import os
import socket

from client.doctor.findings import Level
from client.doctor.machine import agent, ports
from client.installation.config import read_site_config
from client.installation.folder import SiteFolder


def test_a_site_that_is_starting_keeps_its_ports_and_is_asked_to_wait_for(tmp_path):
    folder = SiteFolder(tmp_path)
    folder.state.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        folder.config.write_text(
            'format = "fedward-site/1"\n[site]\nname = "north"\n'
            f"[network]\nruntime_port = {port}\n[status_page]\nport = 0\n"
        )
        config = read_site_config(folder.config)
        (before,) = ports(folder, config)
        assert (before.level, "another program" in before.text) == (Level.STOP, True)
        (folder.state / "supervisor.pid").write_text(f"{os.getpid()}\n")
        (during,) = ports(folder, config)
        assert during.level is Level.OK
        assert "starting" in agent(folder).text
