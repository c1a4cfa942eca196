"""A site compares its clock with the coordinator's through the real gateway, before it has ever been let in."""

import json

from client.doctor.connection import clock
from client.doctor.probe import ask_coordinator
from common.flower.pointer import FLOWER_VERSION, pointer_digest
from common.trust.canonical import encode_base64
from common.trust.identity import public_bytes, read_signing_key
from common.trust.kit import FORMAT, new_kit


def test_the_gateway_tells_a_stranger_the_time_and_nothing_else(house):
    federation, superlink = house
    folder = federation.folder
    document = {
        "format": FORMAT,
        "federation": "lungs",
        "coordinator": encode_base64(public_bytes(read_signing_key(folder.key).public_key())),
        "address": f"localhost:{federation.address[1]}",
        "ca_certificate": folder.ca_certificate.read_text(),
        "pointer_digest": pointer_digest(),
        "flwr": FLOWER_VERSION,
        "roster": json.loads(folder.roster.read_bytes()),
    }
    answer = ask_coordinator(new_kit(document, folder.roster), proxy=None)
    assert clock(answer).level == "ok"
    assert superlink.seen == []
