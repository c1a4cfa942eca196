"""Declared counts of approved plans against the true ones, and classes that hardly anybody here has."""

from collections.abc import Iterator
from contextlib import suppress

from client.consent.approval import check_for_site
from client.consent.true_counts import class_notes, count_notes
from client.dicom.cache import Cache
from client.dicom.caches import cache_of, caches
from client.doctor.findings import Finding, advice, fine
from client.installation.audit_log import standing_approvals
from client.installation.folder import SiteFolder
from common.errors import FedwardError
from common.trust.identity import read_secret_file

REMEDY = 'docs/site-handbook.md, "Read the plan and approve it"'


def counts(folder: SiteFolder) -> Iterator[Finding]:
    """Each approved plan was told how many patients there are, and every class has patients."""
    if not caches(folder):
        return
    secret = read_secret_file(folder.secret)
    notes = {note: None for digest in sorted(standing_approvals(folder)) for note in _of_plan(folder, secret, digest)}
    found = list(notes) or _classes_here(folder, secret)
    yield from (advice("counts", note, REMEDY) for note in found)
    if not found:
        yield fine("counts", "as approved plans declare them; every class has patients")


def _classes_here(folder: SiteFolder, secret: bytes) -> list[str]:
    """Return notes on rare classes of every cache that opens; the finding "cache" says what is wrong with others."""
    found: dict[str, None] = {}
    for path in caches(folder):
        with suppress(FedwardError):
            found |= dict.fromkeys(class_notes(Cache.open(path, secret)))
    return list(found)


def _of_plan(folder: SiteFolder, secret: bytes, digest: str) -> list[str]:
    if not folder.plan(digest).exists():
        return []
    try:
        checked = check_for_site(folder, folder.plan(digest))
        cache = Cache.open(cache_of(folder, checked.plan), secret)
        return count_notes(cache, checked.plan, checked.site_id)
    except FedwardError:
        return []  # the finding "plans" or "cache" says why
