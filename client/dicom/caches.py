"""The caches of a site folder: one for each preparation of images, so that studies of several kinds go on side by side.

    cache/            the first
    caches/DIGITS/    every other: the first digits of the digest of its settings

Nobody names one: a plan's cache is found by what it was made for (``IngestSettings``), and plans with the same settings
share one. All are sealed with one site secret, so a patient has the same key in each: ledger and opt-outs rest on it.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from client.dicom.cache_folder import HEADER, CacheFolder, made_for, open_folder
from client.dicom.errors import CacheInvalidError
from client.dicom.settings import IngestSettings, differences, settings_for
from client.installation.folder import SiteFolder
from common.errors import FedwardError
from common.plan.plan import StudyPlan
from common.plan.reading import read_plan

NAME_DIGITS: Final = 16
HOW: Final = "`fedward-site ingest SCANS --plan PLAN --labels LABELS --site-folder SITE`"


def caches(folder: SiteFolder) -> list[Path]:
    """Return every cache of a site, the first of all before the others by name; one that is damaged is there too."""
    others: list[Path] = []
    with suppress(OSError):
        others = sorted(folder.caches.iterdir())
    return [path for path in (folder.cache, *others) if _is_there(path)]


def cache_of(folder: SiteFolder, plan: StudyPlan) -> Path:
    """Return the cache that a plan is worked on with: where its patients were fixed, else the newest of its settings.

    Only headers are read, so what is damaged of another cache stops nobody.
    Raises: CacheInvalidError where no cache was made for the plan, with what to do.
    """
    return cache_made_for(folder, settings_for(plan.task, plan.image), study=plan.digest())


def cache_made_for(folder: SiteFolder, wanted: IngestSettings, *, study: str = "") -> Path:
    """Return the cache that was made for these settings; of several the one in which the study's patients were fixed.

    ``study``: digest of its plan. Raises: CacheInvalidError where there is none, with what to do.
    """
    known = {path: made_for(path) for path in caches(folder)}
    fitting = {path: made for path, made in known.items() if made is not None and not differences(made, wanted)}
    if not fitting:
        raise _none_for(folder, wanted, known)
    fixed = {path: (path / "studies" / f"{study}.sealed").is_file() for path in fitting}
    return max(fitting, key=lambda path: (fixed[path], fitting[path].pipeline_version))


def cache_for(folder: SiteFolder, settings: IngestSettings) -> Path:
    """Return the cache that scans are read into for these settings: the one there is, or the place of a new one."""
    present = caches(folder)
    fitting = [path for path in present if made_for(path) == settings]
    if fitting:
        return fitting[0]
    return folder.caches / settings.digest().hex()[:NAME_DIGITS] if folder.cache in present else folder.cache


def lists_of_studies(folder: SiteFolder) -> list[Path]:
    """Return the folder ``studies`` of every cache, of one that is damaged or cut too."""
    return [folder.cache / "studies", *sorted(folder.caches.glob("*/studies"))]


def opened_caches(folder: SiteFolder, secret: bytes) -> Iterator[CacheFolder]:
    """Yield every cache that opens; what is wrong with the others says whoever works with them."""
    for path in caches(folder):
        with suppress(FedwardError, OSError):
            yield open_folder(path, secret)


@dataclass(frozen=True)
class Preparation:
    """One cache as a person tells it from another.

    ``name``: its place in the site folder. ``settings``: None where its header is damaged. ``studies``: names of the
    studies whose patients were fixed in it.
    """

    path: Path
    name: str
    settings: IngestSettings | None
    studies: tuple[str, ...]

    @property
    def words(self) -> str:
        """Say what it is for."""
        if self.settings is None:
            return "damaged, nobody can tell for which study"
        images = preparation_words(self.settings)
        return f"{', '.join(self.studies)}: {images}" if self.studies else images

    @property
    def room_bytes(self) -> int:
        """What it takes of the disk."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    def facts(self) -> dict[str, Any]:
        """Return all this as plain values."""
        return {"cache": self.name, "images": self.words, "studies": self.studies, "cache_bytes": self.room_bytes}


def preparation(folder: SiteFolder, path: Path) -> Preparation:
    """Describe one cache of a site."""
    name = str(path.relative_to(folder.path)) if path.is_relative_to(folder.path) else str(path)
    return Preparation(path, name, made_for(path), _studies(folder, path))


def preparation_words(settings: IngestSettings) -> str:
    """Say how images are prepared."""
    size, colours = " x ".join(map(str, settings.size_px)), ", in colour" if settings.channels == 3 else ""
    classes = ", ".join(settings.classes[:4]) + (", ..." if len(settings.classes) > 4 else "")
    images = f"{', '.join(settings.modalities)} as {size} pixels{colours}"
    return f"{images}, {settings.intensity}, {settings.kind} ({classes})"


def _studies(folder: SiteFolder, path: Path) -> tuple[str, ...]:
    names = []
    for sealed in sorted((path / "studies").glob("*.sealed")):
        with suppress(FedwardError):
            approved = folder.plan(sealed.stem)
            names.append(read_plan(approved if approved.exists() else folder.withdrawn_plan(sealed.stem)).study.name)
    return tuple(dict.fromkeys(names))


def _is_there(path: Path) -> bool:
    try:
        return (path / HEADER).exists() or any((path / "segments").iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # on a disk that does not answer, for one
        return True


def _none_for(
    folder: SiteFolder, wanted: IngestSettings, known: dict[Path, IngestSettings | None]
) -> CacheInvalidError:
    damaged = [preparation(folder, path).name for path, made in known.items() if made is None]
    doubt = f"; {', '.join(damaged)} cannot be read, and may be it: restore or remove it" if damaged else ""
    others = [differences(made, wanted) for made in known.values() if made is not None]
    if not others:
        return CacheInvalidError(f"no scans were read here for this plan{doubt}; {HOW} reads them")
    least, which = min(others, key=len), "the nearest of the caches here" if len(others) > 1 else "the cache"
    return CacheInvalidError(
        f"no scans were read here for this plan: {which} was made for another study, for another task or image size "
        f"({'; '.join(least)}){doubt}. {HOW} reads them into a cache of their own; what is here stays as it is"
    )
