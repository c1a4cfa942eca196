"""The coordinator's processes: what each is called, how it is started, and which of them may be seen from outside.

```
superlink   Flower's SuperLink, 127.0.0.1 only; database on disk, tasks outside of it (so a study survives its restart)
executor    nodes follow the roster; starts studies' processes, which end with it (``server.deployment.executor``)
gateway     the public door (``server.gateway``)
page        status page on 127.0.0.1, where the settings have one (``server.status_page``)
```
"""

import sys
from dataclasses import dataclass

from common.flower.environment import child_environment
from common.processes.supervision import Child
from server.deployment.loopback_tls import loopback_authority, loopback_certificate, loopback_key
from server.federation.config import CoordinatorConfig
from server.federation.folder import FederationFolder


def children(folder: FederationFolder, config: CoordinatorConfig) -> list[Child]:
    """Return the programs that ``fedward-server up`` keeps alive, in the order in which they start."""
    place = str(folder.path)
    programs = {
        "superlink": _superlink(folder, config),
        "executor": (sys.executable, "-m", "server.deployment.executor_process", place),
        "gateway": (sys.executable, "-m", "server.gateway", place),
    }
    if port := config.loopback.status_port:
        programs["page"] = (sys.executable, "-m", "server.status_page", "--folder", place, "--port", str(port))
    environment = child_environment(flower_home=folder.superlink)
    places = {port.process: (port.place,) for port in wanted_ports(config)}
    return [
        Child(
            name=name,
            command=command,
            environment=environment,
            log=folder.logs / f"{name}.log",
            ports=places.get(name, ()),
        )
        for name, command in programs.items()
    ]


@dataclass(frozen=True)
class WantedPort:
    """Where one of the processes listens: its name, the setting of ``coordinator.toml``, host and port."""

    process: str
    setting: str
    place: tuple[str, int]


def wanted_ports(config: CoordinatorConfig) -> list[WantedPort]:
    """Return every port that a federation takes on this machine."""
    gateway, loopback = config.gateway, config.loopback
    wanted = [
        WantedPort("superlink", "superlink_port", ("127.0.0.1", loopback.superlink_port)),
        WantedPort("gateway", "gateway_port", (gateway.bind_host, gateway.gateway_port)),
    ]
    if loopback.status_port:
        wanted.append(WantedPort("page", "status_port", ("127.0.0.1", loopback.status_port)))
    return wanted


def _superlink(folder: FederationFolder, config: CoordinatorConfig) -> tuple[str, ...]:
    return (
        *(sys.executable, "-m", "server.deployment.superlink_process"),
        *("--host", "127.0.0.1", "--port", str(config.loopback.superlink_port)),
        *("--ssl-ca-certfile", str(loopback_authority(folder))),
        *("--ssl-certfile", str(loopback_certificate(folder)), "--ssl-keyfile", str(loopback_key(folder))),
        *("--database", str(folder.database), "--enable-supernode-auth"),
        *("--isolation", "process", "--superexec-auth-secret-file", str(folder.executor_secret)),
        "--disable-runtime-dependency-installation",
    )
