"""The executor's side of the SuperLink: nodes, runs and tasks, over its interfaces on loopback (Flower 1.41 internals).

The control interface has no authentication in open-source Flower; it is reached on loopback only, and the gateway lets
nothing through to it.
"""

from dataclasses import dataclass
from typing import Final

import httpx
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient

from common.flower.pointer import STUDY_KEY, pointer_bundle, pointer_digest

ACQUIRE_TASK: Final = "/flwr.proto.Runtime/AcquireTask"
FINISHED: Final = "finished"
RUNS_LOOKED_AT: Final = 100

AwayError = httpx.HTTPError  # what every method raises while the SuperLink does not answer, or refuses


@dataclass(frozen=True, slots=True)
class Node:
    """A registered node: Flower's number, its key (PEM), and whether it is online."""

    number: int
    key_pem: bytes
    name: str
    is_online: bool


@dataclass(frozen=True, slots=True)
class ClaimedTask:
    """A ServerApp to be run, and the token that speaks for it."""

    run_id: int
    token: str


class SuperLinkClient:
    """Speaks to the SuperLink at ``address``. Raises: AwayError from every method.

    Args: authority, PEM of the certificate authority; secret, what the executor proves itself with.
    """

    def __init__(self, address: str, *, authority: bytes, secret: bytes) -> None:
        version = RuntimeVersionHttpInterceptor(component_name="SuperExec")
        proof = SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=frozenset({ACQUIRE_TASK}))
        self._control = ControlHttpClient.from_server_address(
            server_address=address, insecure=False, root_certificates=authority, interceptors=[version]
        )
        self._runtime = RuntimeHttpClient.from_server_address(
            server_address=address, insecure=False, root_certificates=authority, interceptors=[version, proof]
        )

    def nodes(self) -> list[Node]:
        """Return the registered nodes."""
        found = self._control.ListNodes(ListNodesRequest()).nodes_info
        return [
            Node(node.node_id, node.public_key, node.name, node.status == "online")
            for node in found
            if not node.unregistered_at
        ]

    def register(self, key_pem: bytes, name: str) -> None:
        """Let a node in."""
        self._control.RegisterNode(RegisterNodeRequest(public_key=key_pem, name=name))

    def unregister(self, node: Node) -> None:
        """Shut a node out."""
        self._control.UnregisterNode(UnregisterNodeRequest(node_id=node.number))

    def start_run(self, study: str) -> int:
        """Start a run of the pointer for a study, and return its number."""
        bundle = fab_to_proto(Fab(pointer_digest(), pointer_bundle(), {}))
        config = user_config_to_proto({STUDY_KEY: study})
        answer = self._control.StartRun(StartRunRequest(fab=bundle, override_config=config))
        if not answer.HasField("run_id"):
            raise AwayError("the SuperLink started no run")
        return int(answer.run_id)

    def stop_run(self, run_id: int) -> None:
        """End a run; one that has ended already is left alone."""
        self._control.StopRun(StopRunRequest(run_id=run_id))

    def unfinished_runs(self) -> list[int]:
        """Return the runs that have not ended, of the newest ``RUNS_LOOKED_AT``; Flower drops what ended ones left."""
        runs = self._control.ListRuns(ListRunsRequest(limit=RUNS_LOOKED_AT)).run_dict
        return [run_id for run_id, run in runs.items() if run.status.status != FINISHED]

    def claim(self) -> ClaimedTask | None:
        """Take a ServerApp that waits to be run. No other kind of task is ever taken."""
        answer = self._runtime.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
        if not answer.HasField("task") or not answer.token:
            return None
        return ClaimedTask(answer.task.run_id, answer.token)

    def close(self) -> None:
        """Close the connections."""
        self._control.close()
        self._runtime.close()
