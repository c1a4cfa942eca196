"""The server's check of its own order, before anything leaves."""

from collections.abc import Mapping

from common.networks.errors import WeightsInvalidError
from common.plan.errors import PlanWeakThresholdError
from common.secagg.order import Order
from common.secagg.thresholds import is_reachable, least_survivors, never_both_kinds
from common.trust.errors import RosterInvalidError


def check_order(order: Order, identities: Mapping[str, bytes], model: memoryview, minimum_cohort: int) -> None:
    """Refuse an order that no honest site would take, before anything leaves."""
    n, t, c, s_min = len(order.cohort), order.threshold, order.colluders, order.minimum_survivors
    if not set(order.cohort) <= set(identities) or list(order.cohort) != sorted(set(order.cohort)):
        raise RosterInvalidError("the cohort must be sorted, without repetition, and within the roster")
    if not (never_both_kinds(n, t, c) and is_reachable(n, t) and least_survivors(c) <= s_min <= n >= minimum_cohort):
        raise PlanWeakThresholdError(
            f"n = {n}, t = {t}, c = {c}, s_min = {s_min}, n_min = {minimum_cohort} break 2t > n + c, t <= n, "
            "max(3, c + 2) <= s_min <= n or n >= n_min; choose others in the plan"
        )
    order.vector.check()
    if n > order.cohort_maximum or model.nbytes != order.model_bytes:
        raise WeightsInvalidError(
            f"the vector is made for {order.cohort_maximum} sites and the order announces {order.model_bytes} bytes; "
            f"the cohort has {n} sites and the model {model.nbytes} bytes"
        )
