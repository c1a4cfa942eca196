"""Who knocks: requests carry a node's public key and its signature over a time, as Flower's SuperNodes send them.

    flwr-public-key: base64(PEM)     flwr-timestamp: ISO 8601     flwr-signature: base64(ECDSA-SHA-256(timestamp))

The SuperLink checks the same again, and the time. Checking here first means that nobody but admitted sites can make the
gateway read a body or the SuperLink do any work. Source: Flower 1.41, ``flwr.superlink.routers.fleet.node_auth``.
"""

import base64
import binascii
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

from common.errors import FedwardError
from server.federation.admission import NodeKey

PUBLIC_KEY: Final = "flwr-public-key"
SIGNATURE: Final = "flwr-signature"
TIMESTAMP: Final = "flwr-timestamp"
LONGEST_TIMESTAMP: Final = 64

_log = logging.getLogger("fedward.gateway")


@dataclass
class Visitors:
    """The sites that may come in.

    ``version`` returns a value that changes when the list may have changed (cheap: asked for each request); ``read``
    returns the list. A list that cannot be read lets the former one stand.
    """

    version: Callable[[], object]
    read: Callable[[], Sequence[NodeKey]]
    _seen: object = field(default=None, init=False)
    _keys: dict[bytes, tuple[str, EllipticCurvePublicKey]] = field(default_factory=dict, init=False)

    def site_of(self, headers: Mapping[str, str]) -> str | None:
        """Return the site whose node signed these headers, None for anybody else."""
        try:
            presented = base64.b64decode(headers[PUBLIC_KEY], validate=True)
            signature = base64.b64decode(headers[SIGNATURE], validate=True)
            timestamp = headers[TIMESTAMP].encode("ascii")
        except (KeyError, ValueError, binascii.Error):
            return None
        self._refresh()
        site, key = self._keys.get(presented, (None, None))
        if key is None or len(timestamp) > LONGEST_TIMESTAMP:
            return None
        try:
            key.verify(signature, timestamp, ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return None
        return site

    def _refresh(self) -> None:
        version = self.version()
        if version == self._seen:
            return
        try:
            nodes = self.read()
        except FedwardError as error:
            _log.error("the list of sites cannot be read, the former one stands: %s", error)
        else:
            self._keys = {pem: (node.site, key) for node in nodes for pem, key in [_loaded(node.line)]}
        self._seen = version


def _loaded(line: str) -> tuple[bytes, EllipticCurvePublicKey]:
    """Return the key as Flower presents it (PEM) and as an object."""
    key = load_ssh_public_key(line.encode())
    if not isinstance(key, EllipticCurvePublicKey):
        raise TypeError("a node key of another kind; enrolments hold ECDSA keys only")
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), key
