import copy
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from common.encoders.card import read_card
from common.errors import FileUnreadableError, NotTomlError
from common.plan.errors import PlanInvalidError
from common.plan.fitting import derived_range
from common.plan.guarantee import guarantee
from common.plan.head_steps import steps_for
from common.plan.phases import Method
from common.plan.privacy import NoisePlacement
from common.plan.reading import parse_plan
from common.plan.summary import warnings
from server.drafting.building import default_thresholds
from server.drafting.draft import MOST_ATTEMPTS
from server.drafting.plan_text import plan_toml
from simulation.errors import ScenarioInvalidError
from simulation.runtime.faults import Trouble
from simulation.study.hospital_data import make_hospitals, planned_files
from simulation.study.plan_building import build_plan, declared
from simulation.study.scenario_reading import SHIPPED, find_scenario, parse_scenario, read_scenario

DEMO = tomllib.loads((SHIPPED / "demo.toml").read_text())
COUNTS_OF = {
    "hundred-sites": (2, 18),
    "hippocampus": (14, 55),
    "hippocampus-semi-supervised": (14, 55),
    "hippocampus-private": (69, 0),
    "hippocampus-private-epsilon-2": (69, 0),
    "hippocampus-private-few": (14, 55),
    "malicious-server": (6, 54),
}
IMAGES_OF = {"pneumoniamnist.npz": 5232, "hippocampus260.npz": 260, "brain128.npz": 2271}  # to deal out
COUNTS = {f"hospital-{number}": (60, 540) for number in range(1, 5)}


def changed(place: str, value: object) -> dict:
    """The demo with one value changed; ``place`` as a person writes it: study.phases.0.rounds."""
    document = copy.deepcopy(DEMO)
    *path, last = place.split(".")
    part = document
    for key in path:
        part = part[int(key)] if key.isdecimal() else part.setdefault(key, {})
    part[last] = value
    return document


def card_of(scenario, file):
    """The card of a shipped scenario's encoder; None without one."""
    paths = scenario.encoder_paths(file)
    return None if paths is None else read_card(paths[1])


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.toml")), ids=lambda file: file.stem)
def test_every_shipped_scenario_is_read_is_commented_and_gives_a_plan_that_keeps_its_promise(file):
    scenario = read_scenario(file)
    assert file.stem == scenario.name
    assert sum(line.lstrip().startswith("#") for line in file.read_text().splitlines()) >= 2
    counts = dict.fromkeys(scenario.site_names, COUNTS_OF.get(file.stem, (120, 480)))
    plan = build_plan(scenario, counts, roster_digest="0" * 64, order_key="A" * 43 + "=", card=card_of(scenario, file))
    bought = guarantee(plan)
    if bought is None:
        assert scenario.study.privacy.epsilon is None
    else:
        assert bought.epsilon <= plan.privacy.epsilon
    assert parse_plan(tomllib.loads(plan_toml(plan)), "again").digest() == plan.digest()


WRONG = {
    "an encoder without its section": ("study.network.name", "encoder", "belong together"),
    "an encoder's section without an encoder": ("study.network.encoder", {"file": "a.onnx"}, "belong together"),
    "an unknown key is named with the nearest": ("hospitals.pateints", 5, "did you mean patients"),
    "an unknown section lists what there is": ("zzz", {}, "valid here: comparisons, "),
    "a key of the plan is known too": ("study.privacy.epsilonn", 8.0, "did you mean epsilon"),
    "a phase is looked into": ("study.phases.0.round", 3, "did you mean rounds"),
    "a count below its bound": ("hospitals.sites", 2, "hospitals.sites is 2, input should be greater"),
    "a text instead of a number": ("hospitals.sites", "four", "hospitals.sites is 'four'"),
    "a share above 1": ("hospitals.labelled_share", 1.5, "less than or equal to 1"),
    "a fault names a stranger": ("faults.0.sites", ["hospital-9"], "'hospital-9', which is not one of 4"),
    "a fault at no stage": ("faults.0.actions", ["lunch"], "faults.0.actions.0 is 'lunch'"),
    "an archive without a file": ("hospitals.source", "archive", "archive is missing"),
    "classes that the hospitals do not have": ("study.task.classes", ["a", "b"], "the hospitals have"),
    "all hospitals without labels": ("hospitals.unlabelled_sites", 4, "must be below sites"),
    "epsilon without delta": ("study.privacy", {"noise": "distributed", "epsilon": 1.0}, "must both be given"),
    "phantoms in colour": ("study.image.channels", 3, "phantoms are grey"),
    "another format": ("format", "fedward-scenario/9", "format is 'fedward-scenario/9'"),
    "a name that is no name": ("name", "My Study", "name is 'My Study'"),
}


@pytest.mark.parametrize(("place", "value", "sentence"), WRONG.values(), ids=WRONG)
def test_a_wrong_scenario_gives_one_sentence(place, value, sentence):
    with pytest.raises(ScenarioInvalidError, match=re.escape(sentence)) as refused:
        parse_scenario(changed(place, value), "my.toml")
    assert str(refused.value).startswith("my.toml: ")
    assert "\n" not in str(refused.value)


def test_a_missing_section_is_named():
    document = copy.deepcopy(DEMO)
    del document["study"]["task"]
    with pytest.raises(ScenarioInvalidError, match=r"study\.task is missing"):
        parse_scenario(document, "my.toml")


def test_scenarios_are_found_by_path_and_by_name(tmp_path):
    assert find_scenario("demo") == SHIPPED / "demo.toml"
    assert find_scenario(str(tmp_path / "mine.toml")) == tmp_path / "mine.toml"
    with pytest.raises(ScenarioInvalidError, match="did you mean demo"):
        find_scenario("demmo")
    with pytest.raises(FileUnreadableError):
        read_scenario(tmp_path / "mine.toml")
    (tmp_path / "bad.toml").write_text("this is = not = toml")
    with pytest.raises(NotTomlError):
        read_scenario(tmp_path / "bad.toml")


def test_the_noise_is_just_enough():
    plan = build_plan(
        parse_scenario(DEMO, "demo"),
        COUNTS,
        roster_digest="0" * 64,
        order_key="A" * 43 + "=",
    )
    bought = guarantee(plan)
    assert 7.9 < bought.epsilon <= 8.0
    ratio = plan.phases[0].noise_multiplier / plan.phases[1].noise_multiplier
    assert ratio == pytest.approx(DEMO["study"]["phases"][0]["noise_ratio"], rel=1e-3)


def test_noise_that_a_phase_names_is_kept_and_attempts_are_filled_in():
    document = changed("study.phases.1.noise_multiplier", 5.0)
    plan = build_plan(parse_scenario(document, "demo"), COUNTS, roster_digest="0" * 64, order_key="A" * 43 + "=")
    assert plan.phases[1].noise_multiplier == 5.0
    assert plan.phases[1].maximum_attempts == 46  # a tenth more than 40, and two
    assert parse_scenario(DEMO, "demo").study.phases[1].maximum_attempts == MOST_ATTEMPTS


def without_rounds(**phase):
    document = copy.deepcopy(DEMO)
    head = document["study"]["phases"][1]
    document["study"]["phases"][1] = {key: value for key, value in head.items() if key != "rounds"} | phase
    return parse_scenario(document, "demo")


def planned(scenario):
    return build_plan(scenario, COUNTS, roster_digest="0" * 64, order_key="A" * 43 + "=")


def test_rounds_that_a_phase_does_not_name_follow_from_public_numbers():
    plan = planned(without_rounds())
    assert plan.phases[1].rounds == steps_for(plan, plan.phases[1]) == 40
    assert plan.phases[1].maximum_attempts == 44
    document = copy.deepcopy(DEMO)
    document["study"]["privacy"]["epsilon"] = document["study"]["evaluation"]["epsilon"] = 0.5
    del document["study"]["phases"][1]["rounds"]
    tight = planned(parse_scenario(document, "demo"))
    assert tight.phases[1].rounds < 10
    assert tight.phases[1].maximum_attempts == tight.phases[1].rounds + 1


def test_rounds_without_a_rule_are_asked_for():
    with pytest.raises(PlanInvalidError, match=r"phase head has no rounds; they follow .* set rounds"):
        planned(without_rounds(trainable="all"))
    with pytest.raises(PlanInvalidError, match="no rounds, but maximum_attempts = 9: set both, or neither"):
        planned(without_rounds(maximum_attempts=9))


def test_a_hundred_sites_get_thresholds_that_fit_them():
    thresholds = default_thresholds(100)
    n, t, c = thresholds["cohort_size"], thresholds["threshold"], thresholds["assumed_colluders"]
    assert 2 * t > n + c
    assert thresholds["minimum_survivors"] == 75
    assert default_thresholds(3)["assumed_colluders"] == 0


@pytest.mark.parametrize(("true", "said"), [(0, 0), (7, 7), (48, 48), (104, 100), (117, 120), (2349, 2300), (99, 99)])
def test_declared_counts_are_rounded_to_two_digits(true, said):
    assert declared(true) == said


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.toml")), ids=lambda file: file.stem)
def test_no_coordinate_of_a_standardising_hospital_can_reach_the_range_at_which_it_is_cut(file):
    scenario = read_scenario(file)
    rules = scenario.study.secure_aggregation
    hospitals = scenario.hospitals
    images = IMAGES_OF[Path(hospitals.archive).name] if hospitals.source == "archive" else 0
    most = hospitals.patients if hospitals.source == "phantoms" else -(-images // hospitals.sites)
    for phase in scenario.study.phases:
        if phase.method is Method.STANDARDISE and scenario.study.privacy.noise is not NoisePlacement.NONE:
            derived = (
                rules is None or "coordinate_range" not in rules.model_fields_set
            )  # ``fitting.derived_range`` sees to it
            assert derived or rules.coordinate_range > most * phase.clipping_norm, "the sum would be cut, unseen"


def test_faults_of_a_scenario_reach_the_grid_as_written():
    fault = parse_scenario(DEMO, "demo").faults[0].fault()
    assert (fault.trouble, fault.sites, fault.actions, fault.every) == (Trouble.DROP, ("hospital-3",), ("order",), 5)


def test_an_archive_is_cut_to_the_limit_with_its_test_set_untouched(tmp_path):
    rng = np.random.default_rng(0)
    archive = tmp_path / "images.npz"
    np.savez(
        archive,
        train_images=rng.integers(0, 255, (60, 28, 28), dtype=np.uint8),
        train_labels=rng.integers(0, 2, (60, 1), dtype=np.uint8),
        test_images=rng.integers(0, 255, (20, 28, 28), dtype=np.uint8),
        test_labels=np.arange(20, dtype=np.uint8)[:, None] % 2,
    )
    document = tomllib.loads((SHIPPED / "pneumonia-4-hospitals.toml").read_text())
    document["hospitals"] |= {"limit": 24}
    scenario = parse_scenario(document, "images")
    made = make_hospitals(tmp_path / "out", scenario, archive, lambda _: None)
    assert sum(hospital.images for hospital in made) == 24 == planned_files(scenario, archive)
    assert len(np.load(tmp_path / "out" / "test.npz")["images"]) == 20
    with pytest.raises(ScenarioInvalidError, match="give the file with --data"):
        make_hospitals(tmp_path / "none", scenario, Path("nowhere.npz"), lambda _: None)


def test_a_plan_whose_standardising_sum_would_be_cut_is_warned_of():
    warned = {}
    for limit in (64.0, DEMO["study"]["secure_aggregation"]["coordinate_range"]):
        scenario = parse_scenario(changed("study.secure_aggregation.coordinate_range", limit), "demo")
        plan = build_plan(scenario, COUNTS, roster_digest="0" * 64, order_key="A" * 43 + "=")
        warned[limit] = [line for line in warnings(plan) if "is cut, unseen" in line]
    assert [len(lines) for lines in warned.values()] == [1, 0]
    assert "coordinate_range is 64" in warned[64.0][0]


def test_a_scenario_without_a_range_gets_the_one_that_its_noise_and_patients_need():
    document = tomllib.loads((SHIPPED / "pneumonia-4-hospitals.toml").read_text())
    document["study"].get("secure_aggregation", {}).pop("coordinate_range", None)
    plan = build_plan(parse_scenario(document, "x"), COUNTS, roster_digest="0" * 64, order_key="A" * 43 + "=")
    assert plan.secure_aggregation.coordinate_range == derived_range(plan) != 64.0
