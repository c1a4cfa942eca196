"""An engine is chosen on two made-up patients, within a budget, and kept; nobody who is not there is computed."""

import json
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from client.private_gradients import choice
from client.private_gradients.budget import LEAST_S, Budget, Spending
from client.private_gradients.choice import choose
from client.private_gradients.clipping import LatticeSum
from client.private_gradients.engine import ENGINES, PrivateGradient
from client.private_gradients.loop import loop_gradients
from client.private_gradients.places import same_in_each_place
from client.private_gradients.problem import Problem
from client.private_gradients.settings import EngineName, SpeedSettings
from client.private_gradients.stacks import PatientRows, rows_together, stack_patients
from client.private_gradients.verdict import RememberedVerdicts, Verdict
from client.private_gradients.verdict_folder import VerdictFolder
from client.private_gradients.way import Way
from common.networks.parameters import layout, train_only
from common.networks.registry import build_network


def loss(outputs: Tensor, classes: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, classes, reduction="none")


def network():
    return build_network("small_cnn", dimensions=2, classes=2, width=4, zero_head=False)


def patient(seed: int, rows: int = 1) -> PatientRows:
    inputs = torch.randn(rows, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return PatientRows(inputs, (torch.arange(rows) % 2,), torch.full((rows,), 1 / rows))


class Counted:
    """An engine for stacks, right or with a fault; counts the places that it computes, by size of the part."""

    def __init__(self, fault=lambda gradients, stack: gradients):
        self.sizes: list[int] = []
        self._fault = fault

    def __call__(self, problem, stack):
        self.sizes.append(stack.patients)
        gradients = torch.zeros(stack.patients, problem.order.num_parameters)
        gradients[(stack.weights != 0).any(1)] = loop_gradients(problem, stack)
        return self._fault(gradients, stack)


def problem() -> Problem:
    built = network()
    train_only(built, layout(built))
    return Problem(built, layout(built), loss)


def chosen(engine: Counted, *, patients: int = 8, least_s: float = LEAST_S, seconds=None, monkeypatch=None) -> Way:
    """The choice between an engine and the loop, by a clock that a test sets: seconds of a part with so many places."""
    if seconds:
        clock = {"now": 0.0}

        def timed(name, run):
            def running(problem, stack):
                clock["now"] += seconds(name, stack.patients)
                return run(problem, stack)

            return running

        monkeypatch.setattr(choice, "seconds_on", lambda _: clock["now"])
        reference, tried = timed("loop", loop_gradients), timed("counted", engine)
    else:
        reference, tried = loop_gradients, engine
    stack = rows_together([patient(0)]).repeated(patients)
    spending = Spending(Budget(least_s=least_s, share=0.0))
    return choose({"loop": reference, "counted": tried}, problem(), stack, reference=reference, spending=spending)


def quicker_together(name: str, places: int) -> float:
    return 1.0 * places if name == "loop" else 0.5 + 0.3 * places  # two save a third: enough in pairs, too


def slower_together(name: str, places: int) -> float:
    return 1.0 * places if name == "loop" else 1.1 * places


def test_where_company_saves_nothing_two_patients_are_all_that_is_tried(monkeypatch):
    engine = Counted()
    way = chosen(engine, patients=64, seconds=slower_together, monkeypatch=monkeypatch, least_s=1e9)
    assert (way.name, way.patients) == ("loop", 1)
    assert set(engine.sizes) == {2}
    assert len(engine.sizes) <= 1 + choice.TIMINGS


def test_where_company_saves_time_parts_grow_as_long_as_they_give_the_same_bits(monkeypatch):
    engine = Counted()
    way = chosen(engine, seconds=quicker_together, monkeypatch=monkeypatch, least_s=1e9)
    assert way.name == "counted"
    assert (way.patients, way.smaller) == (8, (4, 2, 1))


def other_bits_of_one(gradients, stack):
    return gradients * (1 + 1e-7 * (stack.patients == 1))


def test_where_one_alone_has_other_bits_three_go_together_so_that_no_other_number_leaves_a_place(monkeypatch):
    engine = Counted(other_bits_of_one)
    way = chosen(engine, seconds=quicker_together, monkeypatch=monkeypatch, least_s=1e9)
    assert (way.patients, way.smaller) == (8, (4, 3, 2))
    for sampled in range(2, 20):
        engine.sizes.clear()
        found = torch.cat(list(way.gradients(problem(), rows_together([patient(seed) for seed in range(sampled)]))))
        assert len(found) == sampled == sum(engine.sizes)


@pytest.mark.parametrize(("patient_s", "patients"), [(1e-3, 8), (1e-2, 1)], ids=["overhead", "work"])
def test_where_two_save_nothing_larger_parts_are_tried_only_of_gradients_that_are_mostly_overhead(
    patient_s, patients, monkeypatch
):
    def seconds(name: str, places: int) -> float:
        return patient_s * places if name == "loop" else 2 * patient_s  # however many there are

    way = chosen(Counted(other_bits_of_one), seconds=seconds, monkeypatch=monkeypatch, least_s=1e9)
    assert way.patients == patients
    assert way.name == ("counted" if patients > 1 else "loop")


def other_bits_of_four(gradients, stack):
    return gradients * (1 + 1e-7 * (stack.patients >= 4))


def neighbours_show(gradients, stack):
    return gradients + 1e-3 * stack.inputs[0].sum()


def place_matters(gradients, stack):
    return gradients * (1 + 1e-3 * torch.arange(stack.patients).view(-1, 1))


def wrong(gradients, stack):
    return 1.5 * gradients


FAULTS = {"other bits in larger parts": (other_bits_of_four, "counted", 2)} | {
    fault.__name__: (fault, "loop", 1) for fault in (neighbours_show, place_matters, wrong)
}


@pytest.mark.parametrize("case", FAULTS)
def test_an_engine_is_used_only_as_far_as_it_keeps_patients_apart(case, monkeypatch):
    fault, name, patients = FAULTS[case]
    way = chosen(Counted(fault), seconds=quicker_together, monkeypatch=monkeypatch, least_s=1e9)
    assert (way.name, way.patients) == (name, patients)


@pytest.mark.parametrize(("least_s", "most"), [(0.5, 0), (6.0, 1)])
def test_once_the_budget_is_spent_one_patient_at_a_time_stands(least_s, most, monkeypatch):
    engine = Counted()
    way = chosen(engine, seconds=quicker_together, monkeypatch=monkeypatch, least_s=least_s)
    assert (way.name, way.patients) == ("loop", 1)
    assert len(engine.sizes) <= most


def test_an_engine_that_the_site_asked_for_gives_way_to_the_loop_too_when_time_is_up(tmp_path):
    built = network()
    gradient = PrivateGradient(built, layout(built), SpeedSettings(EngineName.VMAP), VerdictFolder(tmp_path))
    nothing = Spending(Budget(least_s=0.0, share=0.0))
    gradient.measure(patient(0), loss, at_once=4, most_rows=3, spending=nothing)
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["verdict"]["engine"] == "loop"


def test_a_budget_is_twenty_seconds_or_two_percent_of_the_planned_work():
    budget = Budget()
    assert budget.left_s == LEAST_S == 20
    budget.plan(10_000)
    assert budget.left_s == 200
    budget.spent_s += 150
    assert budget.allows(50)
    assert not budget.allows(51)


FAULTS_OF_PLACES = {
    "the last place": lambda gradients, stack: gradients[-1].mul_(1 + 1e-6),
    "a place in the middle": lambda gradients, stack: gradients[5].mul_(1 + 1e-6),
    "who is alone": lambda gradients, stack: gradients.mul_(1 + 1e-6 * ((stack.weights != 0).sum() == 1)),
    "a neighbour of the next": lambda gradients, stack: gradients.add_(1e-6 * gradients.roll(1, 0)),
}


@pytest.mark.parametrize("fault", FAULTS_OF_PLACES.values(), ids=FAULTS_OF_PLACES)
def test_parts_of_one_size_are_used_only_where_a_gradient_has_the_same_bits_in_each_place(fault):
    def broken(problem, stack):
        gradients = right(problem, stack)
        fault(gradients, stack)
        return gradients

    example, right, built = rows_together([patient(seed) for seed in range(8)]), Counted(), problem()
    assert same_in_each_place(partial(right, built), example)
    assert not same_in_each_place(partial(broken, built), example)


def test_where_sixteen_places_differ_parts_of_one_size_are_smaller_and_where_two_differ_each_goes_alone():
    """An engine that the site named is no reason to end a study: one at a time is right for every network."""

    def odd_from(size):
        return Counted(lambda gradients, stack: gradients.mul_(1 + 1e-7 * (torch.arange(len(gradients)) == 3)[:, None])
                       if len(gradients) >= size else gradients)  # fmt: skip

    stack = rows_together([patient(0)]).repeated(16)
    for size, sizes, name in ((16, {2, 4, 8}, "counted"), (2, {1}, "loop")):
        engine = (
            odd_from(size)
            if size > 2
            else Counted(lambda gradients, stack: gradients * (1 + 1e-6 * torch.arange(len(gradients))[:, None]))
        )
        spending = Spending(Budget(least_s=LEAST_S, share=0.0))
        way = choose({"counted": engine}, problem(), stack, reference=loop_gradients, spending=spending, one_size=True)
        assert (way.name, way.patients in sizes, way.smaller) == (name, True, ())


@pytest.mark.parametrize("sampled", [*range(1, 18), 64])
def test_nobody_who_is_not_there_is_computed(sampled):
    engine = Counted()
    way = Way("counted", engine, 8, autocast=False, smaller=(4, 2, 1))
    stack = rows_together([patient(seed) for seed in range(sampled)])
    found = torch.cat(list(way.gradients(problem(), stack)))
    assert len(found) == sampled == sum(engine.sizes)
    assert set(engine.sizes) <= {8, 4, 2, 1}


@pytest.mark.parametrize(("sampled", "computed"), [(1, 2), (2, 2), (3, 4), (9, 10)])
def test_where_one_alone_has_other_bits_at_most_one_place_stays_empty(sampled, computed):
    engine = Counted()
    way = Way("counted", engine, 8, autocast=False, smaller=(4, 2))
    found = torch.cat(list(way.gradients(problem(), rows_together([patient(seed) for seed in range(sampled)]))))
    assert (len(found), sum(engine.sizes)) == (sampled, computed)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_sum_is_to_the_bit_what_each_patient_adds_alone_whatever_their_rows_and_number(engine):
    built = network()
    order = layout(built)
    gradient = PrivateGradient(built, order, SpeedSettings(engine))

    def values(patients):
        total = LatticeSum(order.num_parameters, step=2.0**-30, device=torch.device("cpu"))
        gradient.add(patients, loss, clipping_norm=0.5, total=total, at_once=8, most_rows=6)
        return total.values.long()

    patients = [patient(seed, rows=1 + seed % 5) for seed in range(13)]
    alone = sum(values([each]) for each in patients)
    assert bool(alone.any())
    assert torch.equal(values(patients), alone)
    assert torch.equal(values(patients[::-1]), alone)


# --- verdicts on disk -------------------------------------------------------------------------------------------------


def asked_of(folder, *, settings=None, at_once: int = 4):
    """Measure with verdicts in a folder; return the gradient."""
    built = network()
    gradient = PrivateGradient(built, layout(built), settings, VerdictFolder(folder))
    gradient.measure(patient(0), loss, at_once=at_once, most_rows=3, spending=Spending(Budget()))
    return gradient


def trials(monkeypatch) -> list[object]:
    made: list[object] = []

    def noted(engines, *arguments, **options):
        made.append(engines)
        return choose(engines, *arguments, **options)

    monkeypatch.setattr("client.private_gradients.engine.choose", noted)
    return made


def test_a_choice_survives_a_restart_and_is_for_its_owner_only(tmp_path, monkeypatch):
    made = trials(monkeypatch)
    asked_of(tmp_path / "engines")
    first = len(made)
    assert first >= 1
    asked_of(tmp_path / "engines")
    assert len(made) == first
    files = list((tmp_path / "engines").iterdir())
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    question = json.loads(files[0].read_text())["question"]
    assert {"network", "trained", "loss", "shapes", "device", "threads", "torch", "fedward"} <= set(question)


OTHERS = {
    "another setting": {"settings": SpeedSettings(autocast=True)},
    "more patients at once": {"at_once": 8},
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_choice_holds_for_what_it_was_made_for_only(case, tmp_path, monkeypatch):
    asked_of(tmp_path)
    made = trials(monkeypatch)
    asked_of(tmp_path, **OTHERS[case])
    assert made


DAMAGES = {
    "empty": b"",
    "half": b'{"format": "fedward-engine/1", "question": {',
    "another format": b'{"format": "fedward-engine/2", "question": {}, "verdict": {}}',
    "an engine that nobody knows": b'{"format":"fedward-engine/1","question":{},"verdict":'
    b'{"engine":"magic","patients":1,"autocast":false}}',
    "another question": b'{"format":"fedward-engine/1","question":{},"verdict":'
    b'{"engine":"loop","patients":1,"autocast":false}}',
    "too large": b" " * (1 << 17),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_made_again_with_a_note(damage, tmp_path, monkeypatch, caplog):
    asked_of(tmp_path)
    files = list(tmp_path.iterdir())
    for file in files:
        file.write_bytes(DAMAGES[damage])
    made = trials(monkeypatch)
    asked_of(tmp_path)
    assert made
    assert "engines are tried again" in caplog.text
    assert json.loads(files[0].read_text())["format"] == "fedward-engine/1"


IMPOSSIBLE = {
    "more side by side than the site allows": {"patients": 4096},
    "bfloat16 where the site said no": {"autocast": True},
    "compiled where the site said no": {"engine": "compiled"},
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_a_verdict_that_no_trial_can_have_come_to_is_not_believed(case, tmp_path, monkeypatch):
    asked_of(tmp_path)
    for file in tmp_path.iterdir():
        document = json.loads(file.read_text())
        document["verdict"] = {"engine": "vmap", "patients": 2, "autocast": False, "smaller": []} | IMPOSSIBLE[case]
        file.write_text(json.dumps(document))
    made = trials(monkeypatch)
    asked_of(tmp_path)
    assert made


@pytest.mark.parametrize("sizes", [(4, (4,)), (2, (4,)), (8, (2, 4)), (0, ()), (1 << 13, ())])
def test_sizes_of_parts_that_make_no_sense_are_refused(sizes):
    with pytest.raises(ValueError, match=r"patients|sizes"):
        Verdict(engine="vmap", patients=sizes[0], smaller=tuple(sizes[1]), autocast=False)


def test_what_nobody_measured_is_done_one_at_a_time_and_nothing_is_tried_at_work(tmp_path, monkeypatch):
    made = trials(monkeypatch)
    built = network()
    order = layout(built)
    gradient = PrivateGradient(built, order, SpeedSettings(EngineName.VMAP), VerdictFolder(tmp_path))
    stacks = stack_patients([patient(0), patient(1)], patients_per_stack=2, rows_per_patient=1)
    found = gradient.clipped_sum(stacks, loss, clipping_norm=0.5)
    plain = PrivateGradient(built, order, SpeedSettings(EngineName.LOOP))
    stacks = stack_patients([patient(0), patient(1)], patients_per_stack=2, rows_per_patient=1)
    assert torch.equal(found.values, plain.clipped_sum(stacks, loss, clipping_norm=0.5).values)
    assert not made


def test_no_more_go_side_by_side_than_there_is_memory_for_whatever_was_chosen():
    verdict = Verdict(engine="vmap", patients=8, autocast=False, smaller=(4, 2))

    class Same(RememberedVerdicts):
        def find(self, question):
            return verdict

    def sizes(limit: int) -> list[int]:
        engine = Counted()
        built = network()
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(ENGINES, EngineName.VMAP, engine)
            gradient = PrivateGradient(built, layout(built), None, Same(), limit=limit)
            total = LatticeSum(layout(built).num_parameters, step=2.0**-30, device=torch.device("cpu"))
            people = [patient(seed) for seed in range(8)]
            gradient.add(people, loss, clipping_norm=0.5, total=total, at_once=8, most_rows=1)
        return engine.sizes

    assert sizes(4096) == [8]
    assert sizes(5) == [4, 4]
    assert sizes(1) == []  # the loop, one at a time
