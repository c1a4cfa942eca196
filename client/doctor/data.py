"""Scans, cache and labels; every count below ten is suppressed, as in `fedward-site data`."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from client.dicom.cache import Cache
from client.dicom.cache_folder import made_for
from client.dicom.caches import Preparation, cache_of, caches, preparation
from client.dicom.census import SMALL_CELL, suppressed, take_census
from client.dicom.errors import CacheInvalidError
from client.dicom.label_words import of_study
from client.dicom.labels import read_labels
from client.dicom.pseudonyms import Pseudonyms
from client.doctor.findings import Finding, advice, examined, fine, stop
from client.features.counting import count_features
from client.installation.audit_log import standing_approvals
from client.installation.config import DataSection
from client.installation.folder import SiteFolder
from client.installation.training_faults import training_faults
from common.errors import FedwardError
from common.plan.plan import StudyPlan
from common.plan.reading import read_plan
from common.plan.task import TaskKind
from common.trust.identity import read_secret_file

FAULTS_DAYS = 30

# Doubts about persons (``client.dicom.persons``) that a decision or a table of the hospital ends.
STAFF_DECIDES = (
    "conflicting_issuers",
    "issuer_unknown",
    "placeholder",
    "several_birth_years",
    "several_sexes",
    "similar_identifiers",
    "undeclared_characters",
)


def scans(folder: SiteFolder, section: DataSection) -> Finding:
    """The folder of scans can be read and not written."""
    if not section.scans:
        return advice("scans", "site.toml names no folder of scans", "set `scans` in the section [data]")
    place = Path(section.scans)
    if not place.is_dir() or not os.access(place, os.R_OK | os.X_OK):
        return advice("scans", f"{place} is not a folder that can be read", "check the mount; the cache stays usable")
    if folder.path.resolve().is_relative_to(place.resolve()):
        return stop("scans", "the site folder lies inside the scans", "move it out: scans are only read")
    is_read_only = bool(os.statvfs(place).f_flag & os.ST_RDONLY)
    if not is_read_only and os.access(place, os.W_OK):
        return advice("scans", f"{place} could be written to", "mount it read-only; we never write there, others might")
    return fine("scans", f"{place}, read-only")


def cache(folder: SiteFolder) -> Iterator[Finding]:
    """Scans were read, every cache opens, and every approved plan has its patients in one of them."""
    approved = [digest for digest in sorted(standing_approvals(folder)) if folder.plan(digest).exists()]
    paths = caches(folder)
    if not paths:
        found = stop if approved else advice
        yield found("cache", "no scans have been read", "`fedward-site ingest SCANS --plan PLAN --labels LABELS`")
        return
    secret = read_secret_file(folder.secret)
    for path in paths:
        yield from examined("cache", partial(_cache, preparation(folder, path), secret, alone=len(paths) == 1))
    for digest in approved:
        yield from examined("cache", partial(_of_plan, folder, secret, digest))


def _cache(known: Preparation, secret: bytes, *, alone: bool) -> Iterator[Finding]:
    """One cache opens; of several it is said for what it is, and what room it takes."""
    opened = Cache.open(known.path, secret)
    patients = f"{_shown(take_census(known.path, secret)['patients'])} patients"
    room = f"{known.room_bytes / 1e6:.1f} MB"
    yield fine("cache", patients if alone else f"{known.name}: {patients}, {room} ({known.words})")
    yield from _persons(opened)


def _of_plan(folder: SiteFolder, secret: bytes, digest: str) -> Iterator[Finding]:
    """An approved plan has a cache, its patients in it, and features of them."""
    plan = read_plan(folder.plan(digest))
    try:
        path = cache_of(folder, plan)
    except CacheInvalidError as error:
        yield stop("cache", f"plan {digest[:12]}: {error}", "read its scans, then approve the plan again")
        return
    try:
        Cache.open(path, secret).frozen(digest)
    except CacheInvalidError:
        text = f"plan {digest[:12]} was approved before scans were read, so it has no patients"
        yield stop("cache", text, "approve the plan again")
        return
    yield from _features(folder, plan)


def _features(folder: SiteFolder, plan: StudyPlan) -> Iterator[Finding]:
    """A study with an encoder has features of all its scans."""
    count = count_features(folder, plan)
    if count is None:
        return
    words = f"plan {plan.digest()[:12]}: {count.words}"
    yield stop("features", words, "approve the plan again") if count.missing else fine("features", words)


def trainings(folder: SiteFolder) -> Finding:
    """No training failed in the last thirty days; the federation is not told of one."""
    since_s = time.time() - FAULTS_DAYS * 86_400
    faults = [each for each in training_faults(folder) if each.time_s >= since_s]
    if not faults:
        return fine("trainings", f"none failed in {FAULTS_DAYS} days")
    last = faults[-1]
    return advice(
        "trainings",
        f"{len(faults)} failed in {FAULTS_DAYS} days and were answered with noise alone; the last in round "
        f"{last.round_number} of plan {last.plan[:12]}: {last.fault}",
        "see agent.log; a hospital whose training fails spends budget and teaches nothing",
    )


def _persons(opened: Cache) -> Iterator[Finding]:
    """Doubts about who is who, which only staff can settle."""
    doubts = {name: opened.doubts[name] for name in STAFF_DECIDES if opened.doubts.get(name)}
    if doubts:
        counts = ", ".join(f"{name.replace('_', ' ')} {_shown(n)}" for name, n in suppressed(doubts).items())
        yield advice("persons", f"may be several people, or one twice: {counts}", 'docs/scans.md, "Persons"')


def labels(folder: SiteFolder, section: DataSection, meanings: Sequence[str] = ()) -> Iterator[Finding]:
    """The label table is well-formed, and labels have met patients."""
    if section.labels and not Path(section.labels).is_file():
        yield advice("labels", f"{section.labels} is not there", "check `labels` in site.toml, and the mount")
    paths = caches(folder)
    if not paths:
        return
    secret = read_secret_file(folder.secret)
    if section.labels and Path(section.labels).is_file():
        trouble = _table_trouble(paths, section, meanings, secret)
        if trouble:
            yield advice("labels", trouble, "mend the table, then `fedward-site ingest` with --labels")
            return
    for path in paths:
        name = "" if len(paths) == 1 else f"{preparation(folder, path).name}: "
        with suppress(*(() if len(paths) == 1 else (FedwardError,))):  # the finding "cache" says what is wrong
            yield _labelled(name, take_census(path, secret))


def _labelled(name: str, census: dict[str, Any]) -> Finding:
    """How many patients of one cache have a label. ``name``: of the cache, where there are several."""
    strata = census["patients_by_stratum"]
    classes = ", ".join(f"{known} {_shown(count)}" for known, count in census["patients_by_class"].items())
    if strata["labelled"] == 0:
        how = "give `ingest` the table with --labels, if there is one"
        return advice("labels", f"{name}no patient has a label", how)
    counts = f"{_shown(strata['labelled'])} patients labelled, {_shown(strata['unlabelled'])} not"
    return fine("labels", f"{name}{counts} ({classes})")


def _table_trouble(paths: Sequence[Path], section: DataSection, meanings: Sequence[str], secret: bytes) -> str:
    """Return what is wrong with the label table of site.toml; "" where it fits one of the caches.

    Each study has a table of its own, and site.toml names one.
    """
    found = ""
    for settings in filter(None, map(made_for, paths)):
        try:
            words = of_study(meanings, settings.classes, has_segments=settings.kind is TaskKind.SEGMENTATION)
            read_labels(Path(section.labels), settings, Pseudonyms.of_site(secret), meanings=words)
        except FedwardError as error:
            found = found or str(error)
        else:
            return ""
    return found


def _shown(count: int | None) -> str:
    return f"<{SMALL_CELL} or suppressed" if count is None else str(count)
