"""Reading a plan: every way to get it wrong has one sentence that names place, value and limit."""

import copy
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import FedwardError, FileTooLargeError, FileUnreadableError, NotTomlError, NotUtf8Error
from common.plan.errors import PlanInvalidError, PlanUnknownKeyError, PlanWeakPrivacyError, PlanWeakThresholdError
from common.plan.reading import MAX_PLAN_BYTES, parse_plan, read_plan

BAD_VALUES = {
    "epsilon below zero": (
        ("privacy", "epsilon"),
        -1.0,
        PlanInvalidError,
        r"privacy\.epsilon is -1\.0.*greater than 0",
    ),
    "epsilon as text": (("privacy", "epsilon"), "8", PlanInvalidError, r"privacy\.epsilon is '8'.*valid number"),
    "epsilon infinite": (("privacy", "epsilon"), float("inf"), PlanInvalidError, "privacy.epsilon is inf"),
    "epsilon not a number": (("privacy", "epsilon"), float("nan"), PlanInvalidError, "privacy.epsilon is nan"),
    "delta that hides nobody": (
        ("privacy", "delta"),
        0.009,
        PlanWeakPrivacyError,
        r"below 1/patients = 0\.000364",
    ),
    "a threshold one site too low": (
        ("secure_aggregation", "threshold"),
        2,
        PlanWeakThresholdError,
        r"threshold is 2, it must be at least 3",
    ),
    "a threshold nobody reaches": (
        ("secure_aggregation", "threshold"),
        5,
        PlanWeakThresholdError,
        "exceed cohort",
    ),
    "two survivors": (("secure_aggregation", "minimum_survivors"), 2, PlanWeakThresholdError, "at least 3"),
    "more survivors than sites": (
        ("secure_aggregation", "minimum_survivors"),
        5,
        PlanWeakThresholdError,
        "exceed",
    ),
    "a word too small for noise": (("secure_aggregation", "word_bits"), 16, PlanWeakPrivacyError, "needs 32"),
    "a word of an odd size": (("secure_aggregation", "word_bits"), 24, PlanInvalidError, "word_bits is 24"),
    "no guard bits": (("secure_aggregation", "guard_bits"), 0, PlanInvalidError, "greater than or equal to 1"),
    "a cohort larger than the federation": (
        ("secure_aggregation", "cohort_size"),
        9,
        PlanInvalidError,
        "lists only 4 sites",
    ),
    "rounds as a fraction": (("phases", 0, "rounds"), 2.5, PlanInvalidError, r"phases\[0\]\.rounds is 2\.5"),
    "fewer attempts than rounds": (("phases", 0, "maximum_attempts"), 1, PlanInvalidError, "at least rounds"),
    "no attempt left for the closing round": (
        ("phases", 0, "maximum_attempts"),
        20,
        PlanInvalidError,
        "it must be above rounds",
    ),
    "a phase that trains nobody": (("phases", 0, "labelled_sampling_rate"), 0.0, PlanInvalidError, "nobody"),
    "no noise but a promise": (("phases", 0, "noise_multiplier"), 0.0, PlanInvalidError, "above 0"),
    "local steps under distributed noise": (
        ("phases", 0, "local_steps"),
        4,
        PlanInvalidError,
        "local_steps must be 1",
    ),
    "a class twice": (("task", "classes"), ["normal", "normal"], PlanInvalidError, "entry twice"),
    "three sizes in two dimensions": (("image", "size_px"), [8, 8, 8], PlanInvalidError, "size_px has 3"),
    "a CT window without numbers": (("image", "intensity"), "ct_window", PlanInvalidError, "window_hu must be"),
    "uptake without a range": (("image", "intensity"), "suv_range", PlanInvalidError, "range_suv must be"),
    "a range without uptake": (
        ("image", "range_suv"),
        [0.0, 15.0],
        PlanInvalidError,
        "only with intensity = suv_range",
    ),
    "two channels": (("image", "channels"), 2, PlanInvalidError, "image.channels"),
    "a unit of privacy that is not the patient": (
        ("privacy", "unit"),
        "image",
        PlanInvalidError,
        "privacy.unit",
    ),
    "an old format": (("format",), "fedward-plan/0", PlanInvalidError, "format is 'fedward-plan/0'"),
    "a misspelt key": (("privacy", "epsilom"), 8.0, PlanUnknownKeyError, "did you mean epsilon"),
    "a misspelt key in a list": (("phases", 0, "rouds"), 8, PlanUnknownKeyError, "did you mean rounds"),
    "a key nobody knows": (("telemetry",), True, PlanUnknownKeyError, "valid here: aggregation, evaluation"),
    "text with control characters in a name": (("study", "name"), "a\x1b[2J", PlanInvalidError, "study.name"),
}


RIDGE = {"method": "ridge", "trainable": "head", "rounds": 1, "unlabelled_sampling_rate": 1.0}
NO_RIDGE = {
    "for the whole network": ({"trainable": "all"}, {}, "set trainable = head"),
    "in two rounds": ({"rounds": 2}, {}, "rounds is 2, method = ridge takes one"),
    "without labels": ({"labelled_sampling_rate": 0.0}, {}, "method = ridge needs labels"),
    "that samples no unlabelled patient": ({"unlabelled_sampling_rate": 0.0}, {}, "because method = ridge needs it"),
    "from sums that nobody makes": ({}, {"noise": "local"}, "ridge needs sums, so privacy.noise cannot be local"),
    "where nobody is unlabelled": ({}, {"unlabelled_patients": 0}, "needs unlabelled patients, and no site declares"),
    "where nobody is labelled": ({}, {"labelled_patients": 0}, "needs labelled patients, and no site declares"),
}


@pytest.mark.parametrize(("phase", "elsewhere", "sentence"), NO_RIDGE.values(), ids=NO_RIDGE)
def test_no_plan_has_a_ridge(phase, elsewhere, sentence, plan_document):
    plan_document["phases"][0] |= RIDGE | phase
    plan_document["privacy"] |= {key: value for key, value in elsewhere.items() if key == "noise"}
    for site in plan_document["sites"]:
        site |= {key: value for key, value in elsewhere.items() if key != "noise"}
    with pytest.raises(PlanInvalidError, match=sentence):
        parse_plan(plan_document, "plan")


def changed(document: dict[str, Any], place: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    result: Any = copy.deepcopy(document)
    part = result
    for step in place[:-1]:
        part = part[step]
    part[place[-1]] = value
    return result


def test_a_good_plan_is_read(plan_document):
    plan = parse_plan(plan_document, "plan.toml")
    assert plan.declared_patients == 2750
    assert plan.expected_batch(plan.phases[0]) == pytest.approx(0.2 * 350)
    assert plan.secure_aggregation.honest_survivors == 2


@pytest.mark.parametrize("case", BAD_VALUES)
def test_a_bad_value_is_refused_with_its_place_and_limit(case, plan_document):
    place, value, error, sentence = BAD_VALUES[case]
    with pytest.raises(error, match=sentence):
        parse_plan(changed(plan_document, place, value), "plan.toml")


def test_a_missing_section_is_named(plan_document):
    del plan_document["task"]
    with pytest.raises(PlanInvalidError, match="task is missing"):
        parse_plan(plan_document, "plan.toml")


@pytest.mark.parametrize(
    ("content", "error", "sentence"),
    [
        (b"x" * (MAX_PLAN_BYTES + 1), FileTooLargeError, "the limit is 262144"),
        (b'title = "\xff"', NotUtf8Error, "byte 9 is not UTF-8"),
        (b"format = ", NotTomlError, "not TOML"),
        (b"a = " + b"[" * 5000, NotTomlError, "not TOML"),
    ],
    ids=["huge", "not UTF-8", "not TOML", "nested without end"],
)
def test_a_file_that_is_no_plan_is_refused(content, error, sentence, tmp_path):
    file = tmp_path / "plan.toml"
    file.write_bytes(content)
    with pytest.raises(error, match=sentence):
        read_plan(file)


def test_a_fifo_does_not_hang_the_reader(tmp_path):
    os.mkfifo(tmp_path / "plan.toml")
    with pytest.raises(FileUnreadableError, match="not a regular file"):
        read_plan(tmp_path / "plan.toml")


def test_a_plan_read_from_a_file_equals_the_same_plan_from_values(plan_text, plan_document, tmp_path: Path):
    file = tmp_path / "plan.toml"
    file.write_text(plan_text, encoding="utf-8")
    assert read_plan(file).digest() == parse_plan(plan_document, "plan").digest()


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(section=st.sampled_from(["study", "privacy", "phases", "sites", "image", "secure_aggregation"]), junk=JUNK)
def test_whatever_stands_in_a_section_the_answer_is_a_sentence(section, junk, plan_text):
    document = tomllib.loads(plan_text) | {section: junk}
    with pytest.raises(FedwardError) as caught:
        parse_plan(document, "plan.toml")
    assert len(str(caught.value)) < 1000


def test_standardising_and_its_parameters_belong_together(plan_document):
    plan_document["phases"][0] |= {"method": "standardise"}
    with pytest.raises(PlanInvalidError, match="set both or neither"):
        parse_plan(plan_document, "plan.toml")
