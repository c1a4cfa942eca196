"""Declared counts of approved plans against the true ones, and classes that hardly anybody here has."""

from collections.abc import Iterator

from client.consent.approval import check_for_site
from client.consent.true_counts import class_notes, count_notes
from client.dicom.cache import Cache
from client.dicom.cache_folder import HEADER
from client.doctor.findings import Finding, advice, fine
from client.installation.audit_log import standing_approvals
from client.installation.folder import SiteFolder
from common.errors import FedwardError
from common.trust.identity import read_secret_file

REMEDY = 'docs/site-handbook.md, "Read the plan and approve it"'


def counts(folder: SiteFolder) -> Iterator[Finding]:
    """Each approved plan was told how many patients there are, and every class has patients."""
    if not (folder.cache / HEADER).exists():
        return
    cache = Cache.open(folder.cache, read_secret_file(folder.secret))
    notes = {note: None for digest in sorted(standing_approvals(folder)) for note in _of_plan(folder, cache, digest)}
    found = list(notes) or class_notes(cache)
    yield from (advice("counts", note, REMEDY) for note in found)
    if not found:
        yield fine("counts", "as approved plans declare them; every class has patients")


def _of_plan(folder: SiteFolder, cache: Cache, digest: str) -> list[str]:
    if not folder.plan(digest).exists():
        return []
    try:
        checked = check_for_site(folder, folder.plan(digest))
    except FedwardError:
        return []  # the finding "plans" says why
    return count_notes(cache, checked.plan, checked.site_id)
