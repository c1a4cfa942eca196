"""Every parser that reads what others wrote, fed with mutated and random bytes.

    python -m simulation.hostile.fuzz --minutes 1 --json

A parser may return, or refuse with an error of ours; anything else is a finding: another exception, a call that takes
longer than ``SLOW_S`` of processor time, or memory of this process beyond ``MAX_GROWTH_BYTES``. Exit 1 with findings.
"""

import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import Message, Metadata, ObjectTree
from flwr.proto.node_pb2 import Node

from client.consent.policy import read_policy
from client.installation.config import default_site_config, read_site_config
from client.installation.policy_template import POLICY_TEMPLATE
from common.errors import FedwardError
from common.plan.reading import read_plan
from common.processes.failing import failing
from common.secagg.messages import decode
from common.secagg.order import decode_order
from common.secagg.refusals import RefusedError
from common.secagg.stages import SITE_RECEIVES, SITE_SENDS
from common.secagg.wire import WireError
from common.terminal import JsonOption, output, print_json, run
from common.trust.enrolment import read_enrolment
from common.trust.kit import read_kit
from common.trust.roster import read_roster
from server.federation.config import coordinator_config_text, read_coordinator_config
from server.gateway.door import RefusedError as DoorRefusedError
from server.gateway.door import check_sender

SLOW_S: Final = 5.0
MAX_GROWTH_BYTES: Final = 512 << 20
MAX_BYTES: Final = 64 * 1024
REFUSALS: Final = (FedwardError, WireError, RefusedError, DoorRefusedError)
Parser = Callable[[bytes, Path], object]


def _file(read: Callable[[Path], object]) -> Parser:
    def parse(content: bytes, place: Path) -> object:
        file = place / "input"
        file.write_bytes(content)
        return read(file)

    return parse


def _failing(content: bytes, place: Path) -> object:
    (place / "supervisor.pid").write_bytes(content[:64])
    (place / "failing.json").write_bytes(content)
    return failing(place)


_PUSH = PushMessagesRequest(
    node=Node(node_id=7),
    messages_list=[Message(metadata=Metadata(src_node_id=7, run_id=1))],
    message_object_trees=[ObjectTree(object_id="a" * 64, children=[ObjectTree(object_id="b" * 64)])],
).SerializeToString()
_COORDINATOR = coordinator_config_text(
    "lungs", "localhost:8443", gateway_port=None, superlink_port=18000, status_port=0
).encode()
_JSON = b'{"format":"x","roster":{"sites":{"a":"AAAA"},"epoch":1},"signature":"AAAA"}'
PARSERS: Final[dict[str, tuple[Parser, bytes]]] = {
    "gateway: pushed message": (lambda content, _: check_sender(content), _PUSH),
    "site: message of the server": (lambda content, _: decode(content, SITE_RECEIVES), b"\x93\x01\x02\x03"),
    "server: message of a site": (lambda content, _: decode(content, SITE_SENDS), b"\x93\x01\x02\x03"),
    "site: order": (lambda content, _: decode_order(content), b"\x81\xa1a\x01"),
    "plan": (_file(read_plan), b'format = "fedward-plan/1"\n[study]\nname = "x"\n'),
    "policy": (_file(read_policy), POLICY_TEMPLATE.encode()),
    "site settings": (_file(read_site_config), default_site_config("north").encode()),
    "coordinator settings": (_file(read_coordinator_config), _COORDINATOR),
    "roster": (_file(read_roster), _JSON),
    "kit": (_file(read_kit), _JSON),
    "enrolment": (_file(read_enrolment), _JSON),
    "supervisor's note": (_failing, b'{"agent":"ended"}'),
}


def mutated(seed: bytes, draw: random.Random) -> bytes:
    """Return a seed with some bytes changed, cut, repeated or replaced; or nothing but noise."""
    content = bytearray(seed if draw.random() < 0.9 else draw.randbytes(draw.randrange(2000)))
    for _ in range(draw.randrange(1, 8)):
        at = draw.randrange(len(content) + 1)
        pieces = (b"", draw.randbytes(3), b"[" * 5000, b"9" * 5000, b'{"a":' * 500, content[at : at + 40] * 50)
        content[at : at + draw.randrange(20)] = draw.choice(pieces)
    return bytes(content[:MAX_BYTES])


def fuzz(seconds: float, seed: int) -> dict[str, object]:
    """Feed all parsers in turn for so long; return how often, and what was found."""
    draw, end_s = random.Random(seed), time.monotonic() + seconds
    tried, findings = dict.fromkeys(PARSERS, 0), dict[str, str]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as place:
        while time.monotonic() < end_s:
            for name, (parse, good) in PARSERS.items():
                content, began_s = mutated(good, draw), time.process_time()
                try:
                    parse(content, Path(place))
                except REFUSALS:
                    pass
                except Exception as error:  # noqa: BLE001 (any other is what is looked for)
                    findings[f"{name}: {type(error).__name__}"] = content[:200].hex()
                if time.process_time() - began_s > SLOW_S:
                    findings[f"{name}: slow"] = content[:200].hex()
                tried[name] += 1
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    if grown > MAX_GROWTH_BYTES:
        findings["memory"] = f"{grown} bytes more"
    return {"seed": seed, "tried": tried, "findings": findings, "grown_bytes": grown}


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    *,
    minutes: Annotated[float, typer.Option(help="How long.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the random mutations.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Feed every parser with hostile bytes; exit 1 if one does anything but return or refuse."""
    found = fuzz(minutes * 60, seed)
    print_json(found) if as_json else output.print(str(found), markup=False)
    if found["findings"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    run(app)
