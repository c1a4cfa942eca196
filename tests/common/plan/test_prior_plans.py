"""A prior belongs to a plan in one way only: first, once, in a U-Net that has it, from masks."""

import pytest

from common.plan.errors import PlanInvalidError
from common.plan.fitting import derived_range
from common.plan.reading import parse_plan
from common.plan.settings_read import check_settings_are_read

MASKS = {"name": "prior", "method": "prior", "trainable": "prior", "rounds": 1, "maximum_attempts": 3}
TRAINED = {"name": "outlines"}
UNET = {"name": "unet", "width": 4, "prior": True}

REFUSED = {
    "two rounds": (UNET, [MASKS | {"rounds": 2}, TRAINED], "rounds is 2, method = prior takes one"),
    "a prior alone": (UNET, [MASKS], "the first phase must have method = prior"),
    "after the network": (UNET, [TRAINED, MASKS], "the first phase must have method = prior"),
    "twice": (UNET, [MASKS, MASKS | {"name": "again"}, TRAINED], "the first phase must have method = prior"),
    "no phase makes it": (UNET, [TRAINED], "the first phase must have method = prior"),
    "the network has none": (UNET | {"prior": False}, [MASKS, TRAINED], "needs network.prior = true"),
    "of unlabelled scans": (
        UNET, [MASKS | {"unlabelled_sampling_rate": 0.2}, TRAINED], "method = prior uses no unlabelled scan",
    ),
    "another part of the network": (
        UNET, [MASKS | {"trainable": "head"}, TRAINED], "method = prior and trainable = prior belong together",
    ),
}  # fmt: skip


@pytest.fixture
def planned(plan_document):
    def make(network, phases, **sections):
        document = plan_document | sections
        document["task"] = document["task"] | {"kind": "segmentation"}
        document["network"] = network
        document["phases"] = [document["phases"][0] | phase for phase in phases]
        return parse_plan(document, "plan")

    return make


@pytest.mark.parametrize(("network", "phases", "sentence"), REFUSED.values(), ids=REFUSED)
def test_any_other_way_is_refused(network, phases, sentence, planned):
    with pytest.raises(PlanInvalidError, match=sentence):
        planned(network, phases)


def test_with_local_noise_there_is_no_sum_of_masks(planned):
    with pytest.raises(PlanInvalidError, match=r"needs sums, so privacy\.noise cannot be local"):
        planned(UNET, [MASKS, TRAINED], privacy={"noise": "local", "epsilon": 8.0, "delta": 1e-5})


def test_smoothing_without_a_prior_is_refused_as_read_by_nobody(planned):
    plan = planned(UNET | {"prior": False}, [TRAINED | {"prior_smoothing_px": 2.0}])
    with pytest.raises(PlanInvalidError, match="prior_smoothing_px is 2"):
        check_settings_are_read(plan, "plan")


def test_the_range_is_for_a_voxel_of_the_masks_not_for_their_norm(planned):
    small, large = (
        planned(UNET, [MASKS | {"clipping_norm": norm, "noise_multiplier": 0.5 / norm}, TRAINED])
        for norm in (1.0, 100.0)
    )
    assert derived_range(large) < 10 * derived_range(small)
