"""What a plan asks of a machine is told before anybody signs or approves it."""

import pytest

from common.plan.machines import STATED, need_of, stated_machines
from common.plan.reading import parse_plan
from common.plan.task import TaskKind


@pytest.fixture
def plan(plan_document):
    return parse_plan(plan_document, "plan")


def at(plan, *, size, network="unet", width=16, scans=4):
    """The plan with another network and size."""
    return plan.model_copy(
        update={
            "image": plan.image.model_copy(update={"size_px": size, "maximum_scans_per_patient": scans}),
            "network": plan.network.model_copy(update={"name": network, "width": width}),
        }
    )


def test_a_plan_says_what_it_needs_on_each_stated_machine(plan):
    found = stated_machines(at(plan, size=(224, 224), network="residual", width=64))
    assert [each["machine"] for each in found] == [machine.name for machine in STATED]
    for each in found:
        assert each["fits"]
        assert each["patients_at_once"] >= 1
        assert each["round_s"] > 0
    processor, gpu = found
    assert processor["least_mb"] == gpu["least_mb"] > processor["patient_mb"] > 100
    assert processor["round_s"] > gpu["round_s"]


def test_a_plan_that_fits_nowhere_says_so(plan):
    found = stated_machines(at(plan, size=(256, 256, 256), width=64))
    assert [each["fits"] for each in found] == [False, False]
    assert [each["patients_at_once"] for each in found] == [0, 0]


@pytest.mark.parametrize("more", [{"size": (448, 448)}, {"width": 32}, {"scans": 8}])
def test_more_pixels_channels_or_scans_need_more(plan, more):
    usual = {"size": (224, 224), "width": 16, "scans": 4}
    less, much = need_of(at(plan, **usual)), need_of(at(plan, **(usual | more)))
    assert much.patient_bytes > 1.5 * less.patient_bytes
    assert much.at_once(8e9) < less.at_once(8e9)


def with_patches(plan, size, patch):
    image = {"size_px": size, "patch_px": patch, "patches_per_patient": 2, "maximum_scans_per_patient": 1}
    return plan.model_copy(
        update={
            "task": plan.task.model_copy(update={"dimensions": 3, "kind": TaskKind.SEGMENTATION}),
            "image": plan.image.model_copy(update=image),
            "network": plan.network.model_copy(update={"name": "unet", "width": 16}),
        }
    )


def test_memory_follows_the_patch_and_a_whole_ct_fits_where_it_did_not(plan):
    size = (400, 512, 512)
    whole, patches = (need_of(with_patches(plan, size, patch)) for patch in ((), (64, 128, 128)))
    assert whole.at_once(24e9) == 0
    assert patches.at_once(8e9 * 0.8) >= 1
    larger = need_of(with_patches(plan, size, (96, 128, 128)))
    assert larger.patient_bytes == pytest.approx(1.5 * patches.patient_bytes, rel=0.02)
    smaller = need_of(with_patches(plan, (200, 512, 512), (64, 128, 128)))
    assert smaller.patient_bytes == patches.patient_bytes
    assert smaller.process_bytes < patches.process_bytes
