"""Who is in which stratum of a study, for as long as the study lasts, whatever becomes of the cache.

approval        the cache's own list of the study; a cache made again takes the copy that was kept
first charge    a copy is kept outside of the cache, and its keyed digest goes into the study's first entry
each charge     the digest of the cache's list is compared with that entry (``client.ledger.terms``)
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from client.dicom.cache import Cache
from client.dicom.cache_folder import HEADER, open_folder
from client.dicom.caches import cache_of
from client.dicom.errors import CacheInvalidError
from client.dicom.studies import KeptManifests, StudyManifest, load_manifest
from client.installation.audit_log import last_mark
from client.installation.folder import SiteFolder
from client.ledger.ledger import Ledger
from client.ledger.study_charges import planned_events
from client.ledger.terms import StudyTerms, promised
from common.plan.plan import StudyPlan
from common.trust.identity import read_secret_file
from common.web.freshness import Mark, mark_of


def freeze_study(folder: SiteFolder, plan: StudyPlan) -> None:
    """Fix the study's patients in the cache: as they were when it began here, or else as they are now.

    Raises: StrataChangedError, with nothing fixed, when the study began with others and its copy is lost too;
    CacheInvalidError, also where no cache was made for the plan's task and image format; LedgerInvalidError.
    """
    secret, digest = read_secret_file(folder.secret), plan.digest()
    cache = Cache.open(cache_of(folder, plan), secret)
    kept = KeptManifests(folder.studies, secret).load(digest)
    candidates = [each for each in (cache.manifest(digest), kept, cache.present()) if each is not None]
    opening = _opening(folder, digest)
    if opening is not None:
        fitting = [each for each in candidates if each.strata_digest(secret).hex() == opening["strata"]]
        if not fitting:
            _terms(folder, plan, candidates[0], secret).require_same_strata(opening)
        candidates = fitting
    cache.freeze(digest, manifest=candidates[0])


class StudyStrata:
    """The list of patients of an approved study at this site, looked at before each charge."""

    def __init__(self, folder: SiteFolder, plan: StudyPlan) -> None:
        self._folder, self._plan = folder, plan
        self._known: tuple[Mark, StudyTerms] | None = None

    def terms(self) -> StudyTerms:
        """Return on what terms the study goes on now; a copy of its list of patients is kept first, durably.

        What did not change on disk is not read again.
        Raises: CacheInvalidError where the study was never frozen in this cache; KeyExposedError, ChainBrokenError,
        LedgerInvalidError.
        """
        folder, digest = self._folder, self._plan.digest()
        cache = cache_of(folder, self._plan)
        files = (folder.secret, cache / HEADER, cache / "studies" / f"{digest}.sealed", folder.audit)
        mark = mark_of(*files, folder.studies / f"{digest}.sealed")
        if self._known is None or self._known[0] != mark:
            self._known = mark, self._read(digest, cache)
        return self._known[1]

    def require_same(self) -> None:
        """Raise StrataChangedError unless the cache gives the study the strata with which it began here."""
        opening = _opening(self._folder, self._plan.digest())
        if opening is not None:
            self.terms().require_same_strata(opening)

    def _read(self, digest: str, cache: Path) -> StudyTerms:
        folder, secret = self._folder, read_secret_file(self._folder.secret)
        manifest = load_manifest(open_folder(cache, secret), digest)
        if manifest is None:
            raise CacheInvalidError("this cache has no list of the study's patients; approve its plan again")
        terms, kept = _terms(folder, self._plan, manifest, secret), KeptManifests(folder.studies, secret)
        if kept.load(digest) != manifest:
            opening = _opening(folder, digest)
            if opening is None or opening["strata"] == terms.strata.hex():
                kept.keep(digest, manifest)
        return terms


def _terms(folder: SiteFolder, plan: StudyPlan, manifest: StudyManifest, secret: bytes) -> StudyTerms:
    return StudyTerms(promised(planned_events(plan)), manifest.strata_digest(secret), last_mark(folder))


def _opening(folder: SiteFolder, digest: str) -> Mapping[str, Any] | None:
    if not folder.ledger.is_file():
        return None
    with Ledger.open(folder.ledger, ceiling=0.0) as ledger:
        return ledger.openings().get(digest)
