"""The gateway as a process: TLS, limits and the door put together."""

import asyncio
import asyncio.constants
import logging
import ssl
from typing import Final

import httpx
import uvicorn

from server.deployment.loopback_tls import loopback_authority
from server.encoders.offers import OfferedEncoders
from server.federation.admission import node_keys
from server.federation.config import LOOPBACK_HOSTS, CoordinatorConfig, read_coordinator_config
from server.federation.folder import FederationFolder
from server.gateway.connections import (
    MAX_HEAD_BYTES,
    ConnectionLimits,
    allow_open_files,
    bound_buffers,
    bound_handshakes,
    limited,
)
from server.gateway.door import Door, Limits
from server.gateway.visitors import Visitors

HANDSHAKE_TIMEOUT_S: Final = 10.0
CONNECT_TIMEOUT_S: Final = 5.0
ENDING_TIMEOUT_S: Final = 5
ACCEPT_BACKLOG: Final = 512
IDLE_UPSTREAM_S: Final = 2.0  # uvicorn, in the SuperLink, closes idle connections after 5 s


def main(folder: FederationFolder) -> None:
    """Serve until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs each request
    # a connection that never finishes its handshake is not yet counted by `server.gateway.connections`
    asyncio.constants.SSL_HANDSHAKE_TIMEOUT = HANDSHAKE_TIMEOUT_S
    allow_open_files()
    bound_buffers()
    asyncio.run(serve(folder, read_coordinator_config(folder.config)))


async def serve(
    folder: FederationFolder,
    config: CoordinatorConfig,
    limits: Limits | None = None,
    connections: ConnectionLimits | None = None,
) -> None:
    """Serve the federation in ``folder`` until the process is asked to end."""
    limits, connections = limits or Limits(), connections or ConnectionLimits()
    trusted = ssl.create_default_context(cafile=str(loopback_authority(folder)))
    timeout = httpx.Timeout(limits.forward_timeout_s, connect=CONNECT_TIMEOUT_S)
    pool = httpx.Limits(
        max_connections=connections.connections, max_keepalive_connections=32, keepalive_expiry=IDLE_UPSTREAM_S
    )
    async with httpx.AsyncClient(
        base_url=f"https://{config.superlink_address}", verify=trusted, timeout=timeout, limits=pool, trust_env=False
    ) as upstream:
        offered = OfferedEncoders(folder.encoders)
        door = Door(upstream, visitors_of(folder), limits, hosts_of(config), encoders=offered)
        bound_handshakes(asyncio.get_running_loop(), connections.handshakes)
        await uvicorn.Server(server_config(door, folder, config, connections)).serve()


def visitors_of(folder: FederationFolder) -> Visitors:
    """Return the admitted sites of a federation; a new roster is seen at the next request."""

    def version() -> object:
        found = folder.roster.stat() if folder.roster.exists() else None
        return found and (found.st_mtime_ns, found.st_ino)

    return Visitors(version=version, read=lambda: node_keys(folder))


def hosts_of(config: CoordinatorConfig) -> frozenset[str]:
    """Return the names under which hospitals reach this gateway: in the kit one, and what stands for this machine."""
    return frozenset({config.gateway.public_host.lower(), *LOOPBACK_HOSTS})


def server_config(
    door: Door, folder: FederationFolder, config: CoordinatorConfig, connections: ConnectionLimits
) -> uvicorn.Config:
    """Return how uvicorn listens: TLS 1.3 only, no server header, no access log, limited connections."""
    client_ca = config.gateway.client_ca
    settings = uvicorn.Config(
        door,
        host=config.gateway.bind_host,
        port=config.gateway.gateway_port,
        http=limited(connections),
        ws="none",
        lifespan="off",
        loop="asyncio",
        ssl_certfile=folder.server_certificate,
        ssl_keyfile=folder.server_key,
        ssl_ca_certs=client_ca or None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if client_ca else ssl.CERT_NONE,
        timeout_keep_alive=connections.idle_timeout_s,
        timeout_graceful_shutdown=ENDING_TIMEOUT_S,
        backlog=ACCEPT_BACKLOG,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=True,  # `fedward-site check` compares clocks by it
        proxy_headers=False,
    )
    settings.load()
    if settings.ssl is None:
        raise RuntimeError("the gateway never listens without TLS")
    settings.ssl.minimum_version = ssl.TLSVersion.TLSv1_3
    return settings
