"""How a plan speaks to secure aggregation: digests, vector and divisor of each phase, the same at server and site.

Both sides compute these from their own copy of the plan, so an order that differs in any of them is refused by the
site (``client.secagg.rules``) without a word about why being needed from the server.
"""

import math
from collections.abc import Collection

from common.plan.phases import Phase
from common.plan.plan import Site, StudyPlan
from common.plan.privacy import NoisePlacement
from common.secagg.encoding import digest
from common.secagg.vector import VectorSpec
from common.trust.canonical import canonical_bytes


def task_digest(plan: StudyPlan, phase: Phase) -> bytes:
    """Return the digest (32 bytes) of everything that decides what is trained: task, image, network, phase."""
    parts = {
        "task": plan.task.model_dump(mode="json"),
        "image": plan.image.model_dump(mode="json"),
        "network": plan.network.model_dump(mode="json"),
        "phase": phase.model_dump(mode="json"),
    }
    return digest("task", canonical_bytes(parts))


def privacy_digest(plan: StudyPlan) -> bytes:
    """Return the digest (32 bytes) of the promise and of the evaluation's budget."""
    parts = {
        "privacy": plan.privacy.model_dump(mode="json"),
        "evaluation": plan.evaluation.model_dump(mode="json"),
        "sites": [site.model_dump(mode="json") for site in plan.sites],
    }
    return digest("privacy", canonical_bytes(parts))


def vector_spec(plan: StudyPlan, *, body_length: int, meta_words: int) -> VectorSpec:
    """Return the form of a round's vectors. ``cohort_maximum`` is the plan's cohort, so words have no idle headroom."""
    rules = plan.secure_aggregation
    return VectorSpec(
        meta_words=meta_words,
        body_length=body_length,
        word_bits=rules.word_bits,
        guard_bits=rules.guard_bits,
        coordinate_range=rules.coordinate_range,
        cohort_maximum=rules.cohort_size,
    )


def site_weight(plan: StudyPlan, phase: Phase, site: Site) -> float:
    """Return the public weight with which a site's update enters the sum.

    1 where clipped gradient sums travel (distributed noise, or none). With local noise the difference of weights
    travels, weighted by the site's expected batch over the largest of all sites: in (0, 1], 0 for a site without
    patients of the phase.
    """
    if plan.privacy.noise is not NoisePlacement.LOCAL:
        return 1.0
    return expected_patients(phase, site) / max(expected_patients(phase, other) for other in plan.sites)


def divisor(plan: StudyPlan, phase: Phase, survivors: Collection[str]) -> float:
    """Return the public number by which the sum over ``survivors`` is divided: declared counts only.

    Gradient sums: the patients expected in a round of these sites. Differences of weights: the sum of site weights.
    Never the realised number of patients, which is private (privacy.md section 2).
    Raises: ValueError when nobody is expected at these sites.
    """
    sites = [site for site in plan.sites if site.name in survivors]
    if plan.privacy.noise is NoisePlacement.LOCAL:
        total = math.fsum(site_weight(plan, phase, site) for site in sites)
    else:
        total = math.fsum(expected_patients(phase, site) for site in sites)
    if total <= 0:
        raise ValueError("no patient is expected at the sites that are left; the round has no mean")
    return total


def expected_patients(phase: Phase, site: Site) -> float:
    """Return how many patients of a site a round samples on average, by its declared counts."""
    return (
        phase.labelled_sampling_rate * site.labelled_patients
        + phase.unlabelled_sampling_rate * site.unlabelled_patients
    )
