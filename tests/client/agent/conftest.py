"""A real SuperNode's runtime API on loopback, a real site folder, a real agent in a process of its own."""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context, Message, RecordDict
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.main import create_app
from flwr.supernode.nodestate import NodeStateFactory

from client.installation.folder import SiteFolder
from client.installation.setup import set_up
from common.flower.environment import child_environment
from common.flower.pointer import pointer_bundle
from common.trust.identity import read_signing_key
from common.trust.roster import Roster, signed_roster

NODE_ID = 4711
SERVER_NODE = 1


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(holds: Callable[[], object], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)


@dataclass
class SuperNodeRuntime:
    """Flower's own runtime API and node state; the test takes the part of the network side."""

    secret: bytes
    port: int = field(default_factory=free_port)

    def start(self) -> "SuperNodeRuntime":
        """Begin with an empty state, as a SuperNode that was restarted."""
        factory = NodeStateFactory(ObjectStoreFactory())
        self.state = factory.state()
        self.state.set_node_id(NODE_ID)
        app = create_app(factory, superexec_auth_secret=self.secret)
        self._server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", self.port, log_level="warning"))
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        wait_until(lambda: self._server.started, "the runtime API listens")
        return self

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(10)

    def ask(
        self,
        message_type: str,
        content: RecordDict,
        *,
        bundle: bytes = pointer_bundle(),
        ttl_s: float = 60.0,
        task_type: str = TaskType.CLIENT_APP,
    ) -> str:
        """Do what the SuperNode's worker does with a message that it received; return the message's identifier."""
        run_id = int.from_bytes(os.urandom(4))
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, SERVER_NODE, 1
        message = Message(content, NODE_ID, message_type, ttl=ttl_s, group_id="1")
        message.metadata.__dict__["_message_id"] = message.object_id
        run = Run.create_empty(run_id)
        run.series_id, run.fab_hash = run_id, hashlib.sha256(bundle).hexdigest()
        poisoned = {"site-folder": "/somebody/elses", "epsilon": 1000.0}
        context = Context(run_id, NODE_ID, poisoned, RecordDict(), poisoned)
        self.state.set_run_series_context(run_id, context)
        self.state.store_run(run)
        self.state.store_fab(Fab(run.fab_hash, bundle, {}))
        self.state.store_message(message)
        self.state.object_store.preregister(run_id, get_object_tree(message))
        for identifier, part in get_all_nested_objects(message).items():
            self.state.object_store.put(identifier, part.deflate())
        self.task_id = self.state.create_task(task_type, run_id, run.fab_hash)
        return message.metadata.message_id

    def reply(self, seconds: float = 60) -> Message:
        """Return the next reply, as it would travel on."""
        found: list[Message] = []
        wait_until(lambda: found or found.extend(self.state.get_messages_legacy(is_reply=True)), "a reply", seconds)
        [head] = found
        store = self.state.object_store
        identifier = head.metadata.message_id
        parts = {}

        def all_there() -> bool:
            tree = [store.get_object_tree(identifier)]
            while tree:
                node = tree.pop()
                parts[node.object_id] = store.get(node.object_id)
                tree.extend(node.children)
            return b"" not in parts.values()

        wait_until(all_there, "the reply's parts")
        message = inflate_object_from_contents(identifier, parts)
        assert isinstance(message, Message)
        return message

    def task_status(self) -> str:
        [task] = self.state.get_tasks(task_ids=[self.task_id])
        return f"{task.status.status}:{task.status.sub_status}"


class AgentProcess:
    """``fedward-site agent`` as a process."""

    def __init__(self, folder: SiteFolder) -> None:
        self.folder = folder
        self.log = folder.logs / "agent.log"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "client", "agent", "--site-folder", str(self.folder.path)]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, env=child_environment(), stdout=log, stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def make_site(path: Path, coordinator_key: Ed25519PrivateKey, port: int, name: str = "north") -> SiteFolder:
    """A site folder as ``init`` and ``join`` leave it, that looks for work ten times a second."""
    folder = SiteFolder(path)
    set_up(folder, name)
    sites = {name: read_signing_key(folder.key).public_key()}
    sites |= {other: Ed25519PrivateKey.generate().public_key() for other in ("east", "south", "west")}
    roster = Roster(federation="lungs", epoch=1, coordinator=coordinator_key.public_key(), sites=sites)
    folder.roster.write_bytes(signed_roster(roster, coordinator_key))
    text = folder.config.read_text()
    text = text.replace("runtime_port = 9094", f"runtime_port = {port}")
    folder.config.write_text(text.replace("poll_interval_s = 1.0", "poll_interval_s = 0.1"))
    return folder


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder with a short path: a Unix socket's has a limit."""
    path = Path(tempfile.mkdtemp(prefix="fw"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def folder(short_folder, coordinator_key) -> SiteFolder:
    return make_site(short_folder / "north", coordinator_key, free_port())


@pytest.fixture(scope="session")
def supernode(folder) -> Iterator[SuperNodeRuntime]:
    port = int(folder.config.read_text().partition("runtime_port = ")[2].split()[0])
    runtime = SuperNodeRuntime(folder.runtime_secret.read_bytes(), port).start()
    yield runtime
    runtime.stop()


@pytest.fixture(scope="session")
def agent(folder, supernode) -> Iterator[AgentProcess]:
    running = AgentProcess(folder)
    wait_until(folder.control_socket.exists, "the agent listens")
    yield running
    running.kill()


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait for something to become true, or fail."""
    return wait_until


@pytest.fixture
def own_supernode() -> Iterator[SuperNodeRuntime]:
    """One that no agent process looks at."""
    runtime = SuperNodeRuntime(bytes(32)).start()
    yield runtime
    runtime.stop()
