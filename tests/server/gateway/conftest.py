"""A gateway on a real TLS socket, before a SuperLink that is a stand-in or away."""

import asyncio
import base64
import datetime as dt
import socket
import ssl
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import pytest
import uvicorn
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from common.trust.enrolment import Enrolment, signed_enrolment
from server.deployment.loopback_tls import (
    ensure_loopback_certificates,
    loopback_authority,
    loopback_certificate,
    loopback_key,
)
from server.encoders.offers import OfferedEncoders
from server.federation.admission import admit, sign_next_roster
from server.federation.config import coordinator_config_text, read_coordinator_config
from server.federation.folder import FederationFolder
from server.federation.setup import create_federation
from server.gateway.connections import ConnectionLimits
from server.gateway.door import Door, Limits
from server.gateway.process import hosts_of, server_config, visitors_of

SITES = ("east", "north", "west")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def open_ssh_line(key):
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def admit_site(folder, place, name, node_key):
    site_key = Ed25519PrivateKey.generate()
    enrolment = Enrolment(name, site_key.public_key(), open_ssh_line(node_key))
    file = place / f"{name}.enrolment"
    file.write_bytes(signed_enrolment(enrolment, site_key))
    admit(folder, file, enrolment.fingerprint())


def headers_of(key, timestamp=None):
    """What Flower's SuperNode sends (``flwr.supernode.node_auth_http_interceptor``)."""
    timestamp = timestamp or dt.datetime.now(dt.UTC).isoformat()
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return {
        "flwr-public-key": base64.b64encode(pem).decode(),
        "flwr-timestamp": timestamp,
        "flwr-signature": base64.b64encode(key.sign(timestamp.encode(), ec.ECDSA(hashes.SHA256()))).decode(),
        "content-type": "application/protobuf",
    }


@dataclass
class Federation:
    folder: FederationFolder
    node_keys: dict[str, ec.EllipticCurvePrivateKey]

    @property
    def config(self):
        return read_coordinator_config(self.folder.config)

    @property
    def address(self):
        return ("127.0.0.1", self.config.gateway.gateway_port)

    def trusting(self):
        return ssl.create_default_context(cafile=str(self.folder.ca_certificate))

    def client(self, verify=None):
        return httpx.Client(
            base_url=f"https://localhost:{self.address[1]}",
            verify=verify or self.trusting(),
            trust_env=False,
            timeout=20,
        )


def make_federation(place):
    folder = FederationFolder(place / "federation")
    port = free_port()
    text = coordinator_config_text(
        "lungs", f"localhost:{port}", gateway_port=None, superlink_port=free_port(), status_port=0
    )
    create_federation(folder, text)
    keys = {name: ec.generate_private_key(ec.SECP384R1()) for name in SITES}
    for name, key in keys.items():
        admit_site(folder, place, name, key)
    sign_next_roster(folder, "lungs")
    ensure_loopback_certificates(folder)
    return Federation(folder, keys)


@pytest.fixture
def federation(tmp_path):
    return make_federation(tmp_path)


@contextmanager
def serving(server):
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    for _ in range(400):
        if server.started:
            break
        threading.Event().wait(0.025)
    assert server.started
    try:
        yield server
    finally:
        server.should_exit = True
        thread.join(10)


@contextmanager
def gateway_of(federation, limits=None, connections=None):
    limits, connections = limits or Limits(), connections or ConnectionLimits()
    trusted = ssl.create_default_context(cafile=str(loopback_authority(federation.folder)))
    upstream = httpx.AsyncClient(
        base_url=f"https://{federation.config.superlink_address}",
        verify=trusted,
        trust_env=False,
        timeout=limits.forward_timeout_s,
    )
    offered = OfferedEncoders(federation.folder.encoders)
    door = Door(upstream, visitors_of(federation.folder), limits, hosts_of(federation.config), encoders=offered)
    settings = server_config(door, federation.folder, federation.config, connections)
    settings.timeout_graceful_shutdown = 0
    with serving(uvicorn.Server(settings)):
        yield


@dataclass
class StandIn:
    """A SuperLink that notes what reaches it and answers as told; ``delay_s`` before each answer."""

    answer: bytes = b"answer"
    status: int = 200
    delay_s: float = 0.0
    seen: list = field(default_factory=list)

    async def __call__(self, scope, receive, send):
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.seen.append((scope["path"], dict(scope["headers"]), body))
        await asyncio.sleep(self.delay_s)
        headers = [(b"content-type", b"application/protobuf"), (b"flwr-note", b"kept"), (b"server", b"secret/1.0")]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.answer})


@contextmanager
def superlink_of(federation):
    stand_in = StandIn()
    settings = uvicorn.Config(
        stand_in,
        host="127.0.0.1",
        port=federation.config.loopback.superlink_port,
        ssl_certfile=loopback_certificate(federation.folder),
        ssl_keyfile=loopback_key(federation.folder),
        lifespan="off",
        log_level="error",
        timeout_graceful_shutdown=0,
    )
    with serving(uvicorn.Server(settings)):
        yield stand_in


@pytest.fixture
def superlink(federation):
    with superlink_of(federation) as stand_in:
        yield stand_in


@pytest.fixture(scope="module")
def open_house(tmp_path_factory):
    """Federation, gateway and stand-in that tests share which change none of them."""
    federation = make_federation(tmp_path_factory.mktemp("house"))
    with superlink_of(federation) as stand_in, gateway_of(federation):
        yield federation, stand_in


@pytest.fixture
def house(open_house):
    federation, stand_in = open_house
    stand_in.seen.clear()
    stand_in.answer = b"answer"
    return federation, stand_in
