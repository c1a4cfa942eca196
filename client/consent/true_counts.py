"""What a plan was told of this hospital against what is here: patients as declared, and classes hardly anybody has.

Epsilon rests on neither: each patient is sampled alone, by the plan's rate (privacy.md section 2). But the sum is
divided by the declared numbers, and the coordinator holds scores and sums against them (``server.model.score_bounds``).
Only staff see these sentences; nothing of them leaves.
"""

from collections import Counter
from collections.abc import Mapping

from client.dicom.cache import Cache
from client.dicom.census import SMALL_CELL, suppressed
from client.dicom.rare_classes import rare_classes
from client.dicom.record import Stratum
from common.plan.plan import Site, StudyPlan

ROUNDING = 0.05  # a count that was rounded to two digits is at most this share off
TOLERATED = 0.1  # by which declared counts may be too low (``server.model.score_bounds``)


def count_notes(cache: Cache, plan: StudyPlan, site_id: str) -> list[str]:
    """Return a sentence for each stratum whose declared number is another than the true one, and one on rare classes.

    The patients are those that were fixed for the study, before that those of today. Small numbers are not named.
    Raises: CacheInvalidError.
    """
    manifest = cache.manifest(plan.digest()) or cache.present()
    present = {stratum.value: 0 for stratum in Stratum} | Counter(stratum for stratum, _ in manifest.patients.values())
    site = next(site for site in plan.sites if site.name == site_id)
    return [*_differences(site, present), *class_notes(cache)]


def class_notes(cache: Cache) -> list[str]:
    """Return a sentence on the classes that no patient here has, or a single one."""
    rare = rare_classes(cache)
    if not rare:
        return []
    sentence = (
        f"no patient here, or a single one, has: {', '.join(rare)}; from this hospital the model can learn nothing of "
        "it but one person. Is a word of the label table mapped wrongly (`ingest --map`)?"
    )
    return [sentence]


def _differences(site: Site, present: Mapping[str, int]) -> list[str]:
    shown = suppressed(present)
    told = {Stratum.LABELLED.value: site.labelled_patients, Stratum.UNLABELLED.value: site.unlabelled_patients}
    return [
        f"the plan declares {declared} {name} patients of this hospital, here are {_count(shown[name])}: "
        f"{_consequence(declared, present[name])}"
        for name, declared in told.items()
        if abs(declared - present[name]) > ROUNDING * max(declared, present[name])
    ]


def _consequence(declared: int, true: int) -> str:
    if true < declared:
        return (
            "rounds are divided by the declared number, so the patients here weigh less than planned and the noise "
            "more; their epsilon stays. Tell the coordinator a rounded count for a new plan, or ingest what is missing"
        )
    is_far = true > (1 + TOLERATED) * declared
    void = ", and the coordinator may take honest scores and sums for false ones" if is_far else ""
    return (
        f"steps are longer than planned{void}; their epsilon stays. Tell the coordinator a rounded count for a new plan"
    )


def _count(count: int | None) -> str:
    return f"<{SMALL_CELL} or suppressed" if count is None else str(count)
