"""A plan that a person changed, with what follows from the change computed anew."""

from collections.abc import Iterator
from typing import Any, Final

from common.plan.aggregation import SecureAggregation, Timing
from common.plan.combinations import check_combinations
from common.plan.guarantee import guarantee
from common.plan.phases import Method, Phase
from common.plan.plan import StudyPlan
from common.plan.privacy import NoisePlacement
from server.drafting.completing import completed
from server.drafting.draft import NOT_SET, DraftPhase

PROMISED_SHARE: Final = 0.995  # of epsilon: noise that buys less than this is computed anew


def fixed(plan: StudyPlan, source: str) -> StudyPlan:
    """Return ``plan`` with layouts, noise, range of a sum, reply slot and norms of a ridge computed from the rest.

    The noise of the phases keeps its proportions, and all phases together cost the promise.
    Raises: what checking a plan raises, with ``source`` before it.
    """
    check_combinations(plan, source)
    private = plan.privacy.noise is not NoisePlacement.NONE
    kept = private and _buys_the_promise(plan)
    most = max((phase.noise_multiplier for phase in plan.phases), default=1.0) or 1.0
    drafts = [_draft(phase, most=most, private=private, keeps_noise=kept or not private) for phase in plan.phases]
    rules = plan.secure_aggregation.model_dump(mode="json", exclude={"coordinate_range"})
    timing = plan.timing.model_dump(mode="json") | {"reply_slot_s": 0.0}
    opened = plan.model_copy(
        update={
            "phases": tuple(phase.model_copy(update={"layout_hash": NOT_SET}) for phase in plan.phases),
            "secure_aggregation": SecureAggregation.model_validate(rules),
            "timing": Timing.model_validate(timing),
        }
    )
    return completed(opened, drafts, source)


def changes(before: StudyPlan, after: StudyPlan) -> list[tuple[str, Any, Any]]:
    """Return place, value before and value after, of everything that differs."""
    return list(_differences("", before.model_dump(mode="json"), after.model_dump(mode="json")))


def _buys_the_promise(plan: StudyPlan) -> bool:
    """Tell whether the noise as it is costs the promise, neither more nor noticeably less."""
    bought = guarantee(plan)
    promised = plan.privacy.epsilon or 0.0
    return bought is not None and PROMISED_SHARE * promised <= bought.epsilon <= promised


def _draft(phase: Phase, *, most: float, private: bool, keeps_noise: bool) -> DraftPhase:
    open_keys = {"layout_hash"} if keeps_noise else {"layout_hash", "noise_multiplier"}
    if phase.method is Method.RIDGE and private:
        open_keys.add("clipping_norm")
    said = {key: value for key, value in phase.model_dump(mode="json").items() if value is not None}
    kept = {key: value for key, value in said.items() if key not in open_keys}
    ratio = (phase.noise_multiplier or most) / most
    return DraftPhase.model_validate(kept | {"noise_ratio": ratio})


def _differences(place: str, before: Any, after: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from _differences(f"{place}.{key}" if place else key, before.get(key), after.get(key))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _differences(f"{place}[{index}]", old, new)
    elif before != after:
        yield place, before, after
