"""How many scans of a study lack features here, and the refusal to work on a study while any does."""

from dataclasses import dataclass

from client.dicom.cache import Cache
from client.dicom.caches import cache_of
from client.features.errors import FeaturesMissingError
from client.features.preparation import preparation_of
from client.features.store import FeatureStore
from client.installation.folder import SiteFolder
from common.plan.plan import StudyPlan
from common.trust.identity import read_secret_file


@dataclass(frozen=True)
class FeatureCount:
    """``missing`` of ``scans`` have no features yet. ``scan_s``: of one scan, as measured here; 0: never measured."""

    missing: int
    scans: int
    scan_s: float = 0.0

    @property
    def words(self) -> str:
        """Say it to a person."""
        if self.missing == 0:
            return f"features of all {self.scans} scans are here"
        left = f", about {amount_of_time(self.missing * self.scan_s)}" if self.scan_s else ""
        return f"features of {self.missing} of {self.scans} scans are not computed yet{left}"


def count_features(folder: SiteFolder, plan: StudyPlan) -> FeatureCount | None:
    """Return how many of a study's scans lack features; None for a plan without an encoder.

    Raises: CacheInvalidError, also for a study that was never approved here; KeyExposedError.
    """
    preparation = preparation_of(plan)
    if preparation is None:
        return None
    secret = read_secret_file(folder.secret)
    records = Cache.open(cache_of(folder, plan), secret).frozen(plan.digest()).records
    store = FeatureStore(folder.features, secret, preparation)
    return FeatureCount(len(store.missing(records)), len(records), store.scan_s())


def require_features(folder: SiteFolder, plan: StudyPlan) -> None:
    """Refuse to work on a study of which scans lack features; nothing was charged.

    Raises: FeaturesMissingError; as ``count_features``.
    """
    count = count_features(folder, plan)
    if count is not None and count.missing:
        raise FeaturesMissingError(f"{count.words}; `fedward-site approve` of the plan computes them")


def amount_of_time(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
