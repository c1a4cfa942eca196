"""Good inputs for the fuzz run, made by those who write them in earnest: mutations of them get past the first look."""

import base64
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from client.dicom.instance import read_images
from client.dicom.pseudonyms import Pseudonyms
from client.dicom.settings import IngestSettings, settings_for
from common.flower.pointer import FLOWER_VERSION, pointer_digest
from common.plan.reading import read_plan
from common.plan.signing import sign_plan
from common.plan.task import Image, Intensity, Modality, Task, TaskKind
from common.secagg.messages import SignedOrder, decode
from common.secagg.stages import SITE_RECEIVES, Kind
from common.trust.canonical import canonical_bytes
from common.trust.enrolment import Enrolment, signed_enrolment
from common.trust.kit import Kit, signed_kit
from common.trust.release import sign_card
from common.trust.roster import Roster, signed_roster
from server.federation.admission import NodeKey
from server.federation.certificates import new_authority
from server.gateway.visitors import PUBLIC_KEY, SIGNATURE, TIMESTAMP
from server.study.plan_template import new_plan_text
from simulation.hospitals.dicom_syntaxes import SYNTAXES
from simulation.hostile.raw_file import frame, names_of, template
from simulation.runtime.secagg_federation import new_federation

Parser = Callable[[bytes, Path], object]
Parsers = dict[str, tuple[Parser, list[bytes]]]  # by name, with good inputs
IMAGE: Final[IngestSettings] = settings_for(
    Task(
        kind=TaskKind.CLASSIFICATION, classes=("normal", "lesion"), modalities=(Modality.DX, Modality.CT), dimensions=2
    ),
    Image(size_px=(32, 32), intensity=Intensity.PERCENTILES),
)
NAMES: Final = Pseudonyms(bytes(32))


def of_file(read: Callable[[Path], object], name: str = "input") -> Parser:
    """Return the parser of a file called ``name``."""

    def parse(content: bytes, place: Path) -> object:
        file = place / name
        file.write_bytes(content)
        file.chmod(0o600)
        return read(file)

    return parse


SITES: Final = ("east", "north", "south", "west")
_STAGES: Final = (Kind.ORDER, Kind.KEYLIST, Kind.FORWARD, Kind.SURVIVORS, Kind.CERTIFICATE)


class TrustSeeds:
    """The signed documents of one federation, and a plan for it."""

    def __init__(self) -> None:
        self.key = Ed25519PrivateKey.generate()
        keys = {name: Ed25519PrivateKey.generate() for name in SITES}
        roster = Roster("lungs", 1, self.key.public_key(), {name: key.public_key() for name, key in keys.items()})
        self.roster = signed_roster(roster, self.key)
        kit = Kit(
            federation="lungs",
            coordinator=self.key.public_key(),
            address="fedward.example:443",
            ca_certificate=new_authority("lungs").certificate.public_bytes(Encoding.PEM).decode(),
            pointer_digest=pointer_digest(),
            flwr=FLOWER_VERSION,
            signed_roster=None,
            roster=None,
        )
        self.kit = signed_kit(kit, self.key)
        self._node = ec.generate_private_key(ec.SECP384R1())
        line = self._node.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        self.node = NodeKey("north", line)
        self.enrolment = signed_enrolment(Enrolment("north", keys["north"].public_key(), line), keys["north"])
        self.card = canonical_bytes({"format": "fedward-model-card/1", "files": {"model.safetensors": "0" * 64}})
        self.card_signature = sign_card(self.card, self.key)
        counts = [f"{name}=100,100" for name in SITES]
        self.plan = new_plan_text(
            "xray-study", roster, counts, order_key=self.key.public_key(), epsilon=8.0, rounds=20
        ).encode()
        with tempfile.TemporaryDirectory() as place:
            file = Path(place) / "study.toml"
            file.write_bytes(self.plan)
            self.checked_plan = read_plan(file)
            self.plan_signature = sign_plan(self.checked_plan, file, self.key).read_bytes()

    @property
    def node_secret(self) -> bytes:
        """The secret key of a node as its file has it."""
        return self._node.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())

    def visitor_headers(self) -> dict[str, str]:
        """Return the headers with which the SuperNode of ``north`` shows itself to the gateway."""
        public = self._node.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        now = datetime.now(UTC).isoformat()
        signature = self._node.sign(now.encode(), ec.ECDSA(hashes.SHA256()))
        encoded = [base64.b64encode(part).decode() for part in (public, signature)]
        return {PUBLIC_KEY: encoded[0], SIGNATURE: encoded[1], TIMESTAMP: now}


def images() -> list[bytes]:
    """Return a DICOM file in each transfer syntax."""
    return [template(name, "DX").file(names_of("P1"), frame()) for name in SYNTAXES]


def facts_of_a_scan() -> dict[str, Any]:
    """Return what a worker says of a scan that it read."""
    content = template(next(iter(SYNTAXES)), "DX").file(names_of("P1"), frame())
    facts, _ = next(iter(read_images(content, IMAGE, NAMES)))
    return asdict(facts)


class RoundSeeds:
    """Every message of one attempt of four hospitals: ``of_server`` and ``of_sites`` by kind; ``order``: its octets."""

    def __init__(self) -> None:
        self.of_server: dict[str, bytes] = {}
        self.of_sites: dict[str, bytes] = {}
        with tempfile.TemporaryDirectory() as place:
            federation = new_federation(4, Path(place))
            server = federation.new_server(federation.new_order())
            packets = server.start()
            for kind in _STAGES:
                for name, packet in packets.items():
                    answer = federation.sites[name].receive(packet.message, packet.payload)
                    server.receive(answer.message, answer.payload)
                    self.of_server[kind], self.of_sites[kind] = bytes(packet.message), bytes(answer.message)
                if kind is not Kind.CERTIFICATE:
                    packets = server.advance()
        signed = decode(self.of_server[Kind.ORDER], SITE_RECEIVES)[1]
        assert isinstance(signed, SignedOrder)  # noqa: S101 (for the type checker)
        self.order = bytes(signed.order)
