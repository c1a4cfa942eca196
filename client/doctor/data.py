"""Scans, cache and labels; every count below ten is suppressed, as in `fedward-site data`."""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from client.dicom.cache import Cache
from client.dicom.cache_folder import HEADER
from client.dicom.census import SMALL_CELL, suppressed, take_census
from client.dicom.errors import CacheInvalidError
from client.dicom.labels import read_labels
from client.dicom.pseudonyms import Pseudonyms
from client.doctor.findings import Finding, advice, fine, stop
from client.features.counting import count_features
from client.installation.audit_log import standing_approvals
from client.installation.config import DataSection
from client.installation.folder import SiteFolder
from client.installation.training_faults import training_faults
from common.errors import FedwardError
from common.plan.reading import read_plan
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
    """Scans were read, and every approved plan has its patients."""
    approved = [digest for digest in sorted(standing_approvals(folder)) if folder.plan(digest).exists()]
    if not (folder.cache / HEADER).exists():
        found = stop if approved else advice
        yield found("cache", "no scans have been read", "`fedward-site ingest SCANS --plan PLAN --labels LABELS`")
        return
    secret = read_secret_file(folder.secret)
    opened = Cache.open(folder.cache, secret)
    yield fine("cache", f"{_shown(take_census(folder.cache, secret)['patients'])} patients")
    yield from _persons(opened)
    for digest in approved:
        try:
            opened.frozen(digest)
        except CacheInvalidError:
            text = f"plan {digest[:12]} was approved before scans were read, so it has no patients"
            yield stop("cache", text, "approve the plan again")
            continue
        yield from _features(folder, digest)


def _features(folder: SiteFolder, digest: str) -> Iterator[Finding]:
    """A study with an encoder has features of all its scans."""
    count = count_features(folder, read_plan(folder.plan(digest)))
    if count is None:
        return
    words = f"plan {digest[:12]}: {count.words}"
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
    if not (folder.cache / HEADER).exists():
        return
    secret = read_secret_file(folder.secret)
    if section.labels and Path(section.labels).is_file():
        try:
            _read_labels(folder, section, meanings, secret)
        except FedwardError as error:
            yield advice("labels", str(error), "mend the table, then `fedward-site ingest` with --labels")
            return
    census = take_census(folder.cache, secret)
    strata = census["patients_by_stratum"]
    classes = ", ".join(f"{name} {_shown(count)}" for name, count in census["patients_by_class"].items())
    if strata["labelled"] == 0:
        yield advice("labels", "no patient has a label", "give `ingest` the table with --labels, if there is one")
        return
    counts = f"{_shown(strata['labelled'])} patients labelled, {_shown(strata['unlabelled'])} not"
    yield fine("labels", f"{counts} ({classes})")


def _read_labels(folder: SiteFolder, section: DataSection, meanings: Sequence[str], secret: bytes) -> None:
    settings = Cache.open(folder.cache, secret).settings
    read_labels(Path(section.labels), settings, Pseudonyms.of_site(secret), meanings=meanings)


def _shown(count: int | None) -> str:
    return f"<{SMALL_CELL} or suppressed" if count is None else str(count)
