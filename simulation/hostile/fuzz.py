"""Every parser that reads what others wrote, fed with mutated and random bytes.

    python -m simulation.hostile.fuzz --minutes 1 --json

A parser may return, or refuse with an error of ours; anything else is a finding: another exception, a call that takes
longer than ``SLOW_S`` of processor time, or memory of this process beyond ``MAX_GROWTH_BYTES``. Exit 1 with findings.
"""

import random
import resource
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer
from flwr.app import RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import Message, Metadata, ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict
from safetensors.torch import save
from torch.nn import Linear

from client.consent.policy import read_policy
from client.dicom.instance import read_images, verdict
from client.dicom.labels import read_labels
from client.dicom.pseudonyms import Pseudonyms
from client.dicom.settings import settings_for
from client.final_model.receiving import load_weights
from client.installation.config import default_site_config, read_site_config
from client.installation.policy_template import POLICY_TEMPLATE
from common.errors import FedwardError
from common.flower.messages import Hello, from_content, hello_answer, read_hello, to_content
from common.plan.reading import read_plan
from common.plan.task import Image, Intensity, Modality, Task, TaskKind
from common.processes.failing import failing
from common.secagg.messages import Packet, decode
from common.secagg.order import decode_order
from common.secagg.refusals import RefusedError
from common.secagg.stages import SITE_RECEIVES, SITE_SENDS
from common.secagg.wire import WireError
from common.terminal import JsonOption, output, print_json, run
from common.trust.enrolment import read_enrolment
from common.trust.kit import read_kit
from common.trust.release import verify_card
from common.trust.roster import read_roster
from common.web.fields import read_form
from server.federation.config import coordinator_config_text, read_coordinator_config
from server.gateway.door import RefusedError as DoorRefusedError
from server.gateway.door import check_sender
from simulation.hospitals.dicom_syntaxes import SYNTAXES
from simulation.hostile.fuzz_seeds import RoundSeeds, TrustSeeds
from simulation.hostile.raw_file import frame, names_of, template

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
_IMAGE = settings_for(
    Task(
        kind=TaskKind.CLASSIFICATION, classes=("normal", "lesion"), modalities=(Modality.DX, Modality.CT), dimensions=2
    ),
    Image(size_px=(32, 32), intensity=Intensity.PERCENTILES),
)
_NAMES = Pseudonyms(bytes(32))


def _flower(read: Callable[[RecordDict], object]) -> Parser:
    """Return a parser of a Flower content that travelled; what Flower's own code refuses is not ours to judge."""

    def parse(content: bytes, _: Path) -> object:
        try:
            record = recorddict_from_proto(ProtoRecordDict.FromString(content))
        except Exception:  # noqa: BLE001 (Flower's)
            return None
        return read(record)

    return parse


def _image(content: bytes, _: Path) -> object:
    return verdict(lambda: deque(read_images(content, _IMAGE, _NAMES), maxlen=0))  # type: ignore[arg-type]


def _record(packet: Packet) -> bytes:
    return bytes(recorddict_to_proto(to_content(packet, bytes(16))).SerializeToString())


def parsers() -> dict[str, tuple[Parser, list[bytes]]]:
    """Return each parser with good inputs, which it takes (``tests/simulation/hostile/test_fuzz.py``)."""
    trust, stages = TrustSeeds(), RoundSeeds()
    messages = [_record(Packet(b"m" * 40, memoryview(p))) for p in (b"", b"p" * 400)]
    from_content_ = _flower(lambda record: from_content(record, max_payload_bytes=1 << 20))
    hello = recorddict_to_proto(hello_answer(Hello("north", "0" * 64), bytes(16))).SerializeToString()
    key, card = trust.key.public_key(), trust.card
    labels = _file(lambda file: read_labels(file, _IMAGE, _NAMES))
    return {
        "gateway: pushed message": (lambda content, _: check_sender(content), [_PUSH]),
        "site: message of the server": (lambda c, _: decode(c, SITE_RECEIVES), list(stages.of_server.values())),
        "server: message of a site": (lambda c, _: decode(c, SITE_SENDS), list(stages.of_sites.values())),
        "site: order": (lambda content, _: decode_order(content), [stages.order]),
        "both: content of a Flower message": (from_content_, messages),
        "server: a site's hello": (_flower(read_hello), [hello]),
        "plan": (_file(read_plan), [trust.plan]),
        "policy": (_file(read_policy), [POLICY_TEMPLATE.encode()]),
        "site settings": (_file(read_site_config), [default_site_config("north").encode()]),
        "coordinator settings": (_file(read_coordinator_config), [_COORDINATOR]),
        "roster": (_file(read_roster), [trust.roster]),
        "kit": (_file(read_kit), [trust.kit]),
        "enrolment": (_file(read_enrolment), [trust.enrolment]),
        "release: signature of the card": (lambda c, _: verify_card(card, c, key), [trust.card_signature]),
        "release: weights": (lambda c, _: load_weights(Linear(3, 2), c), [save(Linear(3, 2).state_dict())]),
        "label table": (labels, [b"PatientID,label\nP1,normal\nP2,lesion\n"]),
        "image": (_image, [template(name, "DX").file(names_of("P1"), frame()) for name in SYNTAXES]),
        "page: form": (lambda content, _: read_form(content), [b"form=abc&person=Dr+Rao"]),
        "supervisor's note": (_failing, [b'{"agent":"ended"}']),
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
    fed = parsers()
    tried, findings = dict.fromkeys(fed, 0), dict[str, str]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as place:
        while time.monotonic() < end_s:
            for name, (parse, seeds) in fed.items():
                content, began_s = mutated(draw.choice(seeds), draw), time.process_time()
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
    warnings.simplefilter("ignore")  # pydicom's, for each image
    found = fuzz(minutes * 60, seed)
    print_json(found) if as_json else output.print(str(found), markup=False)
    if found["findings"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    run(app)
