"""Good inputs for the fuzz run, made by those who write them in earnest: mutations of them get past the first look."""

import tempfile
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from common.flower.pointer import FLOWER_VERSION, pointer_digest
from common.secagg.messages import SignedOrder, decode
from common.secagg.stages import SITE_RECEIVES, Kind
from common.trust.canonical import canonical_bytes
from common.trust.enrolment import Enrolment, signed_enrolment
from common.trust.kit import Kit, signed_kit
from common.trust.release import sign_card
from common.trust.roster import Roster, signed_roster
from server.federation.certificates import new_authority
from server.study.plan_template import new_plan_text
from simulation.runtime.secagg_federation import new_federation

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
        node = ec.generate_private_key(ec.SECP384R1()).public_key()
        line = node.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        self.enrolment = signed_enrolment(Enrolment("north", keys["north"].public_key(), line), keys["north"])
        self.card = canonical_bytes({"format": "fedward-model-card/1", "files": {"model.safetensors": "0" * 64}})
        self.card_signature = sign_card(self.card, self.key)
        counts = [f"{name}=100,100" for name in SITES]
        self.plan = new_plan_text(
            "xray-study", roster, counts, order_key=self.key.public_key(), epsilon=8.0, rounds=20
        ).encode()


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
