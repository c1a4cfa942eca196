"""The coordinator's settings, ``coordinator.toml``: where to listen, and where hospitals find it.

Nothing in it changes a model or a guarantee: that is in the signed plans.
"""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from common.plan.part import PlanPart
from common.settings_file import read_settings
from common.trust.kit import ADDRESS
from common.trust.roster import NAME
from server.federation.alarm_settings import AlarmsSection
from server.federation.errors import FederationInvalidError

MAX_CONFIG_BYTES: Final = 64 * 1024
SUPERLINK_PORT: Final = 18_000
LOOPBACK_HOSTS: Final = ("localhost", "127.0.0.1")
Port = Annotated[int, Field(ge=1, le=65_535)]


class GatewaySection(PlanPart):
    """What the hospitals reach.

    ``public_address``: host:port as the hospitals see it; the certificate names the host. ``bind_host``,
    ``gateway_port``: where the gateway listens. ``client_ca``: PEM file; then each site's SuperNode also needs a
    certificate of this authority (mTLS). Empty: none.
    """

    public_address: Annotated[str, Field(pattern=f"^{ADDRESS.pattern}$")]
    bind_host: Annotated[str, Field(pattern=r"^[0-9A-Za-z.:-]{1,253}$")] = "0.0.0.0"  # noqa: S104 (it is the public door)
    gateway_port: Port
    client_ca: Annotated[str, Field(max_length=4096)] = ""

    @property
    def public_host(self) -> str:
        """The host in ``public_address``."""
        return self.public_address.rpartition(":")[0]


class LoopbackSection(PlanPart):
    """What only this machine reaches: ``superlink_port``, and ``status_port`` of the status page (0: no page)."""

    superlink_port: Port = SUPERLINK_PORT
    status_port: Annotated[int, Field(ge=0, le=65_535)] = 0


class RunningSection(PlanPart):
    """``poll_interval_s``: how often the server looks for answers and for studies to start."""

    poll_interval_s: Annotated[float, Field(ge=0.05, le=60.0)] = 0.2


class CoordinatorConfig(PlanPart):
    """The whole file."""

    format: Literal["fedward-coordinator/1"]
    federation: Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
    gateway: GatewaySection
    loopback: LoopbackSection = LoopbackSection()
    running: RunningSection = RunningSection()
    alarms: AlarmsSection = AlarmsSection()

    @property
    def superlink_address(self) -> str:
        """Where the SuperLink listens."""
        return f"127.0.0.1:{self.loopback.superlink_port}"


def read_coordinator_config(path: Path) -> CoordinatorConfig:
    """Read ``coordinator.toml``; unknown keys and bad values are refused, never ignored.

    Raises: FederationInvalidError, NotTomlError, FileUnreadableError, FileTooLargeError, NotUtf8Error.
    """
    return read_settings(
        path,
        CoordinatorConfig,
        max_bytes=MAX_CONFIG_BYTES,
        refusal=FederationInvalidError,
        advice="see the comments in it",
    )  # fmt: skip


def coordinator_config_text(
    federation: str, address: str, *, gateway_port: int | None, superlink_port: int, status_port: int
) -> str:
    """Return a commented ``coordinator.toml``.

    ``gateway_port``: None for the port in ``address``. A loopback ``address`` listens on loopback only.
    Raises: FederationInvalidError for an address that is none.
    """
    if not ADDRESS.fullmatch(address) or not NAME.fullmatch(federation):
        raise FederationInvalidError("give --federation as a name (letters, digits, hyphens), --address as HOST:PORT")
    host, _, port = address.rpartition(":")
    values = {
        "FEDERATION": federation,
        "ADDRESS": address,
        "BIND_HOST": "127.0.0.1" if host in LOOPBACK_HOSTS else "0.0.0.0",  # noqa: S104 (hospitals come from outside)
        "GATEWAY_PORT": str(gateway_port or port),
        "SUPERLINK_PORT": str(superlink_port),
        "STATUS_PORT": str(status_port),
    }
    text = TEMPLATE
    for name, value in values.items():
        text = text.replace(f"<{name}>", value)
    return text


TEMPLATE: Final = """\
# Settings of this federation's coordinator. Nothing here changes a model or what patients are promised: that is in the
# signed plans. After a change: restart `fedward-server up`.

format = "fedward-coordinator/1"
federation = "<FEDERATION>"  # fixed: rosters, kits and plans carry it

[gateway]
public_address = "<ADDRESS>"  # as hospitals reach it; the certificate names its host, the kit carries it
bind_host = "<BIND_HOST>"  # where the gateway listens: it is the only door that may face the internet
gateway_port = <GATEWAY_PORT>
client_ca = ""  # PEM file; then every SuperNode also needs a client certificate of that authority

[loopback]
superlink_port = <SUPERLINK_PORT>  # 127.0.0.1 only: Flower's control interface has no authentication
status_port = <STATUS_PORT>  # of the status page on 127.0.0.1; 0: no page

[running]
poll_interval_s = 0.2  # how often to look for answers

[alarms]  # who is told when a study waits, goes on or ends; the event comes as JSON
on_event = ""  # a program by its absolute path, with arguments; the event is on its standard input
webhook = ""  # an address of this machine, or https to a host that webhook_hosts names
webhook_hosts = ""  # separated by commas
after_s = 60.0  # how long a study waits before anybody is told
"""
