"""What this hospital allows, whatever a plan asks: numbered rules, read from its own file, failing closed.

The coordinator's plan is a proposal. A site approves it only if every rule holds, and checks the same rules again
whenever it opens the plan, so that a policy tightened later also binds studies approved before.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from client.consent.errors import PolicyInvalidError, PolicyRefusedError
from common.encoders.card import MAX_ENCODER_BYTES
from common.encoders.checking import LARGEST_ENCODER_BYTES
from common.plan.guarantee import Guarantee
from common.plan.part import PlanPart
from common.plan.plan import StudyPlan
from common.plan.privacy import NoisePlacement
from common.settings_file import read_settings

MAX_POLICY_BYTES: Final = 64 * 1024


class SitePolicyFile(PlanPart):
    """The site's ``policy.toml``. A key that is left out has the strict value given here.

    ``epsilon_ceiling``: what any patient may ever spend here, over all studies together (the ledger enforces it).
    ``maximum_epsilon``, ``maximum_delta``: of one study. ``minimum_*``: of secure aggregation, see the plan.
    ``assumed_colluders``: hospitals this site thinks might work with the coordinator. ``minimum_confirmed``: hospitals
    in every stage of a round that somebody here confirmed, this one included; None: all that the least sum needs.
    ``largest_encoder_bytes``: of the ONNX file of a public encoder that is taken in or used here.
    ``allow_without_privacy``: only for research on public images.
    """

    format: Literal["fedward-policy/1"]
    epsilon_ceiling: Annotated[float, Field(gt=0, le=100)] = 8.0
    maximum_epsilon: Annotated[float, Field(gt=0, le=100)] = 8.0
    maximum_delta: Annotated[float, Field(gt=0, lt=0.01)] = 1e-4
    minimum_cohort: Annotated[int, Field(ge=3, le=1000)] = 3
    minimum_survivors: Annotated[int, Field(ge=3, le=1000)] = 3
    assumed_colluders: Annotated[int, Field(ge=0, le=998)] = 1
    minimum_confirmed: Annotated[int, Field(ge=3, le=1000)] | None = None
    maximum_rounds: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    maximum_session_s: Annotated[float, Field(gt=0, le=604_800)] = 86_400.0
    largest_encoder_bytes: Annotated[int, Field(ge=1, le=MAX_ENCODER_BYTES)] = LARGEST_ENCODER_BYTES
    allow_without_privacy: bool = False


def read_policy(path: Path) -> SitePolicyFile:
    """Read ``policy.toml``; unknown keys and bad values are refused, never ignored.

    Raises: PolicyInvalidError, NotTomlError, FileUnreadableError, FileTooLargeError, NotUtf8Error.
    """
    return read_settings(
        path, SitePolicyFile, max_bytes=MAX_POLICY_BYTES, refusal=PolicyInvalidError,
        advice="nothing runs until it is right",
    )  # fmt: skip


def check_policy(policy: SitePolicyFile, plan: StudyPlan, bought: Guarantee | None) -> None:
    """Check a plan against the policy, rule by rule; ``bought`` is the guarantee this site computed itself.

    Raises: PolicyRefusedError with the rule's number, the value and the limit, at the first rule that does not hold.
    """
    for number, rule in enumerate(RULES, start=1):
        complaint = rule(policy, plan, bought)
        if complaint:
            raise PolicyRefusedError(f"policy rule {number}: {complaint}; this site does not take part in such a plan")


def _privacy_is_promised(policy: SitePolicyFile, plan: StudyPlan, bought: Guarantee | None) -> str:
    if plan.privacy.noise is NoisePlacement.NONE and not policy.allow_without_privacy:
        return "the plan promises no privacy (privacy.noise = none)"
    return "the guarantee is unknown" if bought is None and not policy.allow_without_privacy else ""


def _epsilon_is_low(policy: SitePolicyFile, _: StudyPlan, bought: Guarantee | None) -> str:
    if bought is None or bought.epsilon <= policy.maximum_epsilon:
        return ""
    return f"the plan costs a patient epsilon {bought.epsilon:.3f}, the limit is {policy.maximum_epsilon:g}"


def _delta_is_low(policy: SitePolicyFile, plan: StudyPlan, _: Guarantee | None) -> str:
    delta = plan.privacy.delta
    if delta is None or delta <= policy.maximum_delta:
        return ""
    return f"delta is {delta:g}, the limit is {policy.maximum_delta:g}"


def _cohort_is_large(policy: SitePolicyFile, plan: StudyPlan, _: Guarantee | None) -> str:
    size = plan.secure_aggregation.cohort_size
    return "" if size >= policy.minimum_cohort else f"cohort_size is {size}, the least is {policy.minimum_cohort}"


def _sums_are_large(policy: SitePolicyFile, plan: StudyPlan, _: Guarantee | None) -> str:
    least = plan.secure_aggregation.minimum_survivors
    if least >= policy.minimum_survivors:
        return ""
    return f"minimum_survivors is {least}, the least is {policy.minimum_survivors}"


def _colluders_are_assumed(policy: SitePolicyFile, plan: StudyPlan, _: Guarantee | None) -> str:
    assumed = plan.secure_aggregation.assumed_colluders
    if assumed >= policy.assumed_colluders:
        return ""
    return f"assumed_colluders is {assumed}, the least is {policy.assumed_colluders}"


def _rounds_are_bounded(policy: SitePolicyFile, plan: StudyPlan, _: Guarantee | None) -> str:
    attempts = sum(phase.maximum_attempts for phase in plan.phases)
    return "" if attempts <= policy.maximum_rounds else f"{attempts} attempts, the limit is {policy.maximum_rounds}"


def _real_hospitals_are_enough(policy: SitePolicyFile, plan: StudyPlan, _: Guarantee | None) -> str:
    least = max(policy.assumed_colluders, plan.secure_aggregation.assumed_colluders) + 2
    if policy.minimum_confirmed is None or policy.minimum_confirmed >= least:
        return ""
    return f"minimum_confirmed is {policy.minimum_confirmed}, with the plan's assumed colluders the least is {least}"


Rule = Callable[[SitePolicyFile, StudyPlan, Guarantee | None], str]
RULES: Final[tuple[Rule, ...]] = (
    _privacy_is_promised,
    _epsilon_is_low,
    _delta_is_low,
    _cohort_is_large,
    _sums_are_large,
    _colluders_are_assumed,
    _rounds_are_bounded,
    _real_hospitals_are_enough,
)
