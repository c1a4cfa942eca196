"""The benchmark of rounds: whole rounds are timed, in turn, and each side's processor time is its own."""

import multiprocessing
import os
import time
from dataclasses import asdict

import pytest

from simulation.benchmarks.rounds import Row, why_no_nvflare
from simulation.benchmarks.rounds_bare import fedavg_on_ray_ms, loop_ms
from simulation.benchmarks.rounds_real import PARTS, RealRound, _summary, real_scenario
from simulation.benchmarks.rounds_timed import Lap, Laps, Stopwatch, measure, on_loopback, tree_cpu_s
from simulation.study.scenario_reading import parse_scenario

PAUSE_S = 0.5
AGREED = {
    "sites",
    "ours_ms_per_round",
    "flower_ray_ms_per_round",
    "nvflare_ms_per_round",
    "ours_start_s",
    "flower_ray_start_s",
    "flower_fedavg_ray_ms_per_round",
    "loop_ms_per_round",
}


@pytest.mark.slow
def test_every_round_is_a_lap_and_the_pause_between_two_counts_for_neither() -> None:
    paused: list[Lap] = []

    def pause(lap: Lap) -> None:
        paused.append(lap)
        time.sleep(PAUSE_S)

    began_s = time.perf_counter()
    laps = measure(3, 3, Stopwatch(pause, time.process_time), on_loopback)
    elapsed_s = time.perf_counter() - began_s
    assert laps.laps == paused
    assert len(paused) == 3
    assert all(lap.seconds > 0 for lap in paused)
    assert sum(lap.seconds for lap in paused) <= elapsed_s - 3 * PAUSE_S


def test_start_and_rounds_are_kept_apart() -> None:
    laps = Laps([Lap(9.0, 5.0), Lap(0.25, 0.25), Lap(0.75, 0.75), Lap(0.5, None)])
    assert (laps.start_s, laps.ms_per_round, laps.cpu_ms_per_round) == (9.0, 500.0, 500.0)
    assert Laps([Lap(1.0, None), Lap(1.0, None)]).cpu_ms_per_round is None


def test_the_rows_have_the_agreed_names_and_say_why_nvflare_is_missing() -> None:
    row = Row(4, 1.0, None, None, 1.0, None, None, None, None, None, 0.1)
    assert set(asdict(row)) >= AGREED
    assert "nvflare" in why_no_nvflare()


@pytest.mark.parametrize("part", PARTS)
def test_each_part_of_a_real_round_is_a_function_that_exists(part: str) -> None:
    owner, name = PARTS[part]
    assert callable(getattr(owner, name))


def test_the_loop_of_plain_averaging_takes_some_time() -> None:
    assert loop_ms(3, 2) > 0


@pytest.mark.slow
def test_flowers_own_fedavg_is_measured_or_one_sentence_says_why_not() -> None:
    found, why = fedavg_on_ray_ms(2, 3)
    assert (found is None) == why.startswith("not measured: ")
    assert found is None or found > 0


def test_processor_time_is_that_of_this_process_and_its_children_but_one() -> None:
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=_burn)
    before = tree_cpu_s()
    child.start()
    child.join(60) if before is None else _wait_until_it_burnt(child.pid or 0)
    if before is not None:
        whole, own = tree_cpu_s(), tree_cpu_s(but=child.pid)
        assert whole is not None
        assert own is not None
        assert whole >= own + 0.5
    child.terminate()
    child.join()


def test_the_share_is_what_is_neither_training_nor_scoring_nor_masking() -> None:
    parts = {"training_s": 6.0, "evaluating_s": 1.0, "masking_s": 0.5, "cpu_s": 3.0}
    real = _summary([Lap(10.0, 4.0)] * 3, [parts] * 3)
    assert isinstance(real, RealRound)
    assert (real.control_plane_share, real.control_plane_cpu_share) == (0.25, 0.25)
    assert parse_scenario(real_scenario(), "the benchmark").study.phases[0].trainable == "all"


def _wait_until_it_burnt(process: int) -> None:
    for _ in range(600):
        burnt = (tree_cpu_s() or 0.0) - (tree_cpu_s(but=process) or 0.0)
        if burnt >= 0.7:
            return
        time.sleep(0.1)


def _burn() -> None:
    end = os.times().user + 30
    while os.times().user < end:
        pass
