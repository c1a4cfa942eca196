"""The SuperLink's list of nodes follows the roster: who is missing is registered, who is not in it is shut out.

Flower never takes a key again that was unregistered once, so shutting out is final for a node key;
``server.federation.admission`` says so when a site comes back with it.
"""

import logging

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key

from server.deployment.superlink_client import AwayError, Node, SuperLinkClient
from server.federation.admission import NodeKey

_log = logging.getLogger("fedward.executor")


def follow_roster(client: SuperLinkClient, wanted: list[NodeKey]) -> dict[str, bool]:
    """Make the SuperLink's nodes those of ``wanted``, and return which sites are online.

    Doing it again changes nothing. Raises: AwayError while the SuperLink is away.
    """
    keys = {node_key_pem(key.line): key.site for key in wanted}
    nodes = client.nodes()
    for node in nodes:
        if node.key_pem not in keys:
            client.unregister(node)
            _log.info("the node of %s is shut out", node.name or "an unknown site")
    present = {node.key_pem for node in nodes}
    for pem, site in keys.items():
        if pem not in present:
            _register(client, pem, site)
    return {site: any(_is(node, pem) and node.is_online for node in nodes) for pem, site in keys.items()}


def node_key_pem(line: str) -> bytes:
    """Return an OpenSSH line as the PEM that Flower keeps."""
    return load_ssh_public_key(line.encode()).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _is(node: Node, pem: bytes) -> bool:
    return node.key_pem == pem


def _register(client: SuperLinkClient, pem: bytes, site: str) -> None:
    try:
        client.register(pem, site)
    except AwayError as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status is None:
            raise
        _log.error("%s: the SuperLink does not take its node key (%s); it needs a new one", site, status)
    else:
        _log.info("the node of %s is registered", site)
