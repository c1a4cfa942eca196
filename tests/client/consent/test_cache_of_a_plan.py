"""A plan is approved only with a cache that was made for it: compared whole, and each difference is named."""

import tomllib

import pytest

from client.consent.approval import approve
from client.dicom.cache_folder import open_or_create
from client.dicom.errors import CacheInvalidError
from client.dicom.settings import IngestSettings, require_made_for, settings_for
from common.plan.reading import parse_plan, read_plan
from common.trust.identity import read_secret_file

VOLUMES = {"dimensions": 3, "size_px": (8, 64, 64), "spacing_mm": (2.0, 1.0, 1.0)}
WINDOW = {"intensity": "ct_window", "window_hu": (40.0, 400.0)}

# what the cache was made for instead of the plan's own -> the settings that a person reads of
DIFFERENT = {
    "the same classes in another order": ({"classes": ("abnormal", "normal")}, ("classes",)),
    "one class more": ({"classes": ("normal", "abnormal", "nodule")}, ("classes",)),
    "a class of another name": ({"classes": ("normal", "consolidation")}, ("classes",)),
    "several labels a scan": ({"kind": "multi_label"}, ("kind",)),
    "outlines instead of labels": ({"kind": "segmentation"}, ("kind",)),
    "another modality": ({"modalities": ("CR",)}, ("modalities",)),
    "one modality more": ({"modalities": ("CR", "DX", "MG")}, ("modalities",)),
    "volumes": (VOLUMES, ("dimensions", "size_px", "spacing_mm")),
    "a larger picture": ({"size_px": (128, 128)}, ("size_px",)),
    "height and width exchanged": ({"size_px": (64, 32)}, ("size_px",)),
    "a spacing where the plan fits the whole picture": ({"spacing_mm": (1.0, 1.0)}, ("spacing_mm",)),
    "Hounsfield units": (WINDOW, ("intensity", "window_hu")),
    "another rule of brightness": ({"intensity": "luminance"}, ("intensity",)),
    "other percentiles": ({"percentiles": (0.0, 100.0)}, ("percentiles",)),
    "three colours": ({"intensity": "luminance", "channels": 3}, ("channels", "intensity")),
    "uptake of PET": (
        {"modalities": ("PT",), "intensity": "suv_range", "range_suv": (0.0, 15.0)},
        ("intensity", "modalities", "range_suv"),
    ),
    "images as the detector measured them": ({"presentation": "for_processing"}, ("presentation",)),
}


def changed(plan, changes) -> IngestSettings:
    return IngestSettings.model_validate(settings_for(plan.task, plan.image).model_dump() | changes)


@pytest.mark.parametrize("case", DIFFERENT)
def test_a_cache_made_for_anything_else_is_refused_at_approval_with_what_differs(case, north, signed_plan):
    changes, named = DIFFERENT[case]
    open_or_create(north.cache, read_secret_file(north.secret), changed(read_plan(signed_plan), changes))
    with pytest.raises(CacheInvalidError, match="made for another study") as refused:
        approve(north, signed_plan, approver="Dr A. Meyer")
    said = str(refused.value).partition("(")[2]
    assert tuple(part.split(" is ")[0].strip() for part in said.split(";")[: len(named)]) == named
    assert "ingest" in said
    assert not north.audit.exists(), "nothing was approved"
    assert not any((north.cache / "studies").iterdir()), "nobody was fixed"


def test_a_cache_made_for_the_plan_is_taken(north, signed_plan):
    plan = read_plan(signed_plan)
    open_or_create(north.cache, read_secret_file(north.secret), settings_for(plan.task, plan.image))
    assert approve(north, signed_plan, approver="Dr A. Meyer").plan.digest() == plan.digest()


@pytest.mark.parametrize(("which", "changes"), [("window_hu", {"window_hu": (40.0, 80.0)}), ("part", {"part": "last"})])
def test_in_volumes_window_and_part_of_a_series_are_compared_too(which, changes, plan_text):
    document = tomllib.loads(plan_text)
    document["task"] |= {"modalities": ["CT"], "dimensions": 3}
    document["image"] |= {key: list(value) for key, value in VOLUMES.items() if key != "dimensions"}
    document["image"] |= {"intensity": "ct_window", "window_hu": [40.0, 400.0]}
    plan = parse_plan(document, "plan")
    require_made_for(changed(plan, {}), plan)
    with pytest.raises(CacheInvalidError, match=f"{which} is"):
        require_made_for(changed(plan, changes), plan)


def test_the_table_has_every_setting_and_only_the_pipeline_may_be_older(north, signed_plan):
    compared = {name for _, names in DIFFERENT.values() for name in names} | {"part"}
    assert compared == IngestSettings.model_fields.keys() - {"pipeline_version"}
    plan = read_plan(signed_plan)
    require_made_for(changed(plan, {"pipeline_version": 1}), plan)
