"""The site's settings, ``site.toml``: where scans lie, how to reach the network, how fast to work.

Nothing in it changes a guarantee: what this hospital allows is in ``policy.toml``, what it agreed to in signed plans.
"""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator

from client.installation.errors import SiteConfigInvalidError
from common.plan.part import PlanPart
from common.settings_file import read_settings

MAX_CONFIG_BYTES: Final = 64 * 1024
Port = Annotated[int, Field(ge=1024, le=65_535)]


class SiteSection(PlanPart):
    """``name``: of this hospital, as the roster lists it."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,62}$")]


class DataSection(PlanPart):
    """``scans``: folder of scans, only read. ``labels``: CSV of labels. Empty: not set yet."""

    scans: Annotated[str, Field(max_length=4096)] = ""
    labels: Annotated[str, Field(max_length=4096)] = ""


class LabelsSection(PlanPart):
    """``map``: what the headers and words of the label table mean: "COLUMN=PatientID", "COLUMN:WORD=class"."""

    map: Annotated[tuple[Annotated[str, Field(max_length=400)], ...], Field(strict=False, max_length=2000)] = ()


class NetworkSection(PlanPart):
    """How the SuperNode works.

    ``runtime_port``: on 127.0.0.1, between SuperNode and agent. ``poll_interval_s``: how often both look for work.
    ``https_proxy``: http://host:port of the hospital's proxy; empty: the one of the environment, or none.
    """

    runtime_port: Port = 9094
    poll_interval_s: Annotated[float, Field(ge=0.05, le=60.0)] = 1.0
    https_proxy: Annotated[str, Field(pattern=r"^(https?://[^\s@/]{1,253}/?)?$")] = ""


class SpeedSection(PlanPart):
    """How fast to work; results are the same to rounding (``client.learning.speed.Speed``).

    ``device``: "cpu", "cuda" or "cuda:N". ``patients_at_once``: bounds memory. ``threads``: of masking.
    ``engine``, ``autocast``, ``compile``: of the private gradients.
    """

    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:[0-9]{1,2})?)$")] = "cpu"
    patients_at_once: Annotated[int, Field(ge=1, le=4096)] = 16
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    engine: Literal["auto", "loop", "vmap", "book_keeping"] = "auto"
    autocast: bool = False
    compile: bool = False


class StatusPageSection(PlanPart):
    """``port``: of the page on 127.0.0.1; 0: no page."""

    port: Annotated[int, Field(ge=0, le=65_535)] = 0

    @field_validator("port")
    @classmethod
    def port_is_not_privileged(cls, port: int) -> int:
        """Refuse ports that only root may open."""
        if 0 < port < 1024:
            raise ValueError("give 0 for no page, or a port from 1024")
        return port


class SiteConfig(PlanPart):
    """The whole file; sections that are left out have the values given here."""

    format: Literal["fedward-site/1"]
    site: SiteSection
    data: DataSection = DataSection()
    labels: LabelsSection = LabelsSection()
    network: NetworkSection = NetworkSection()
    speed: SpeedSection = SpeedSection()
    status_page: StatusPageSection = StatusPageSection()


def read_site_config(path: Path) -> SiteConfig:
    """Read ``site.toml``; unknown keys and bad values are refused, never ignored.

    Raises: SiteConfigInvalidError, NotTomlError, FileUnreadableError, FileTooLargeError, NotUtf8Error.
    """
    return read_settings(
        path, SiteConfig, max_bytes=MAX_CONFIG_BYTES, refusal=SiteConfigInvalidError, advice="see the comments in it"
    )


def default_site_config(name: str) -> str:
    """Return a commented ``site.toml`` for the hospital ``name``."""
    return TEMPLATE.replace("NAME", name)


TEMPLATE: Final = """\
# Settings of this hospital's Fedward site. Nothing here changes what patients are promised: that is in policy.toml and
# in the plans that your staff approve. After a change: `fedward-site check`, then restart `fedward-site up`.

format = "fedward-site/1"

[site]
name = "NAME"  # as the roster lists this hospital; fixed once the coordinator admitted it

[data]
scans = ""   # folder of DICOM files, mounted read-only: only read, never written; e.g. "/srv/dicom"
labels = ""  # CSV with the columns key_type, key, label; e.g. "/srv/labels.csv" (docs/scans.md)

[labels]
map = []     # of that table, where words are others: ["Pat-Nr=PatientID", "diagnosis:Pneumonie=consolidation"]

[network]
runtime_port = 9094    # on 127.0.0.1, between SuperNode and agent; another one if it is taken
poll_interval_s = 1.0  # how often to look for work; smaller makes rounds faster and causes more requests
https_proxy = ""       # "http://proxy.hospital.example:3128"; empty: HTTPS_PROXY of the environment, or a direct way

[speed]
device = "cpu"         # "cuda" or "cuda:1" for a GPU
patients_at_once = 16  # fewer need less memory; a model of millions of parameters takes fewer by itself
threads = 1            # for masking the update
engine = "auto"        # of the private gradients: auto, loop, vmap or book_keeping
autocast = false       # bfloat16 where it keeps patients apart; faster on a GPU
compile = false        # also try torch.compile: costs minutes at the start, is kept only where it is faster

[status_page]
port = 0  # of the local page on 127.0.0.1, e.g. 8765; 0: no page
"""
