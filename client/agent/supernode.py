"""Start Flower's own SuperNode for a site folder: ``python -m client.agent.supernode FOLDER``.

The SuperNode is the hospital's only way out, and it is given nothing: the node key, the coordinator's address and
certificate, and a loopback port at which the agent fetches tasks that are opaque to it. It runs with ``--isolation
process``, so it never starts a program, and with a secret between it and the agent.

Changed in Flower's code while it runs here, all about time (one version of Flower is demanded):
* pauses: 3 s when idle become ``client.agent.pace``'s, 0.5 s while the agent works become 20 ms;
* a message is announced before its parts have arrived: asked again after 50 ms, not after a second;
* a message whose run ends while it is fetched is forgotten, as Flower forgets messages that fail otherwise;
* a lost coordinator is looked for every 3 s at least, not every 20, also when it is the proxy that says so;
* a thread that dies ends the process, so that the supervisor starts it again (a dead heartbeat would leave the site
  offline and nobody the wiser).
"""
# ruff: noqa: E402 (Flower reads its environment, and its version is checked, before it is imported)

from common.flower.environment import require_flower, silence_flower
from common.processes.hardening import shut_process

silence_flower()
require_flower()

import functools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import httpx
from flwr.supercore.retry import RetryInvoker, exponential, make_simple_http_retry_invoker
from flwr.supercore.run import RunNotRunningException
from flwr.supernode import fleet_http_connection, start_client_internal
from flwr.supernode.cli import flower_supernode

from client.agent.pace import Pace
from client.installation.config import read_site_config
from client.installation.folder import SiteFolder
from common.faults import fault_without_text
from common.files import replace_atomically
from common.flower.errors import RuntimeUnsuitableError
from common.flower.pointer import FLOWER_VERSION
from common.terminal import run
from common.trust.kit import Kit, read_kit

LONGEST_RETRY_S: Final = 3
OBJECT_WAIT_S: Final = 0.05
LOCAL_PAUSE_S: Final = 0.02
SHORTEST_PAUSE_S: Final = 0.2  # between two looks at the coordinator: each is signed, and costs both sides
_IDLE_PAUSE_S: Final = 3  # Flower's, by which the two pauses are told apart

_log = logging.getLogger("fedward.supernode")


def supernode_arguments(folder: SiteFolder, kit: Kit, *, runtime_port: int) -> list[str]:
    """Return the arguments of ``flower-supernode`` for this site."""
    return [
        "--superlink", kit.address,
        "--root-certificates", str(certificate_file(folder)),
        "--auth-supernode-private-key", str(folder.node_key),
        "--isolation", "process",
        "--superexec-auth-secret-file", str(folder.runtime_secret),
        "--host", "127.0.0.1",
        "--port", str(runtime_port),
    ]  # fmt: skip


def certificate_file(folder: SiteFolder) -> Path:
    """Return where the kit's certificates lie as a file of their own, because Flower takes a file."""
    return folder.flower / "ca.crt"


def pace_flower(pace: Pace) -> None:
    """Change Flower's pauses in this process, as the module's words say."""

    def sleep(seconds: float) -> None:
        if seconds < _IDLE_PAUSE_S:  # it waits for the agent, which costs nothing but a look into its own memory
            pace.work_came()
            time.sleep(min(seconds, LOCAL_PAUSE_S))
        else:
            time.sleep(min(seconds, pace.pause_s()))

    def impatient() -> RetryInvoker:
        invoker = make_simple_http_retry_invoker()
        invoker.wait_gen_factory = lambda: exponential(base_delay=0.2, max_delay=LONGEST_RETRY_S)
        invoker.recoverable_exceptions = (httpx.TransportError, httpx.HTTPStatusError)
        return invoker

    worker: Any = start_client_internal  # its names are not offered to others, and are changed all the same
    worker.time = SimpleNamespace(sleep=sleep)
    worker.pull_objects = functools.partial(worker.pull_objects, initial_backoff=OBJECT_WAIT_S)
    worker._pull_and_store_message = functools.partial(store_or_forget, worker._pull_and_store_message)  # noqa: SLF001
    connection: Any = fleet_http_connection
    connection.make_simple_http_retry_invoker = impatient


def store_or_forget(store: Callable[..., Any], **parts: Any) -> Any:
    """Fetch a message, and forget it with its task when its run ends meanwhile.

    ``store``: Flower's function, called with ``parts``. Its clean-up misses that one exception (it is no
    ``Exception``): task and half a message would stay, and the agent would wait two hours for the rest.
    """

    def ordinary(call: Callable[..., Any]) -> Callable[..., Any]:
        def attempt(*given: Any) -> Any:
            try:
                return call(*given)
            except RunNotRunningException:
                raise RuntimeError("the run has ended") from None

        return attempt

    return store(**{**parts, **{name: ordinary(parts[name]) for name in ("pull_object", "confirm_message_received")}})


def main() -> None:
    """Become the SuperNode of the folder given as the only argument; ends on SIGTERM.

    Raises: NotEnrolledError, KitInvalidError, SiteConfigInvalidError, RuntimeUnsuitableError.
    """
    folder = SiteFolder(Path(sys.argv[1]).resolve())
    folder.require()
    config, kit = read_site_config(folder.config), read_kit(folder.kit)
    if kit.flwr != FLOWER_VERSION:
        raise RuntimeUnsuitableError(f"the coordinator runs flwr {kit.flwr}, this site has {FLOWER_VERSION}")
    os.umask(0o077)
    folder.flower.mkdir(exist_ok=True)
    replace_atomically(certificate_file(folder), kit.ca_certificate.encode(), 0o600)
    pace_flower(Pace(config.network.poll_interval_s, SHORTEST_PAUSE_S))
    threading.excepthook = _end_with_thread
    sys.argv = ["flower-supernode", *supernode_arguments(folder, kit, runtime_port=config.network.runtime_port)]
    flower_supernode()


def _end_with_thread(fault: threading.ExceptHookArgs) -> None:
    what = fault_without_text(fault.exc_value) if fault.exc_value else "an unknown fault"
    _log.error("a thread of the SuperNode met %s; ending, to be started again", what)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    shut_process()
    run(main)
