"""Every attack is refused by the check that is there for it; no check is decoration: without it, something gives."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.secagg.messages import Packet
from common.secagg.refusals import TABLE, Check, CheckSet
from common.secagg.stages import Kind
from simulation import attackers
from simulation.attackers import ATTACKS
from simulation.attacks.arena import Arena, Attack, Outcome, play

REPOSITORY = Path(__file__).resolve().parents[3]
BY_NAME = {attack.name: attack for attack in ATTACKS}
SWITCHABLE = sorted(check for check, row in TABLE.items() if row.is_switchable)
# Without one of these, the attack that it is there for meets another check (or our own code stops): two lines hold it.
# Every other check stands alone: without it, some attack below is accepted.
SECOND_LINE = {
    Check.WIRE_SIZE: {Check.WIRE_CANONICAL},
    Check.WIRE_VERSION: {Check.WIRE_CANONICAL},
    Check.ANY_KIND: {Check.ANY_KIND, Check.ANY_STAGE, Check.ANY_INTERNAL},
    Check.ANY_STAGE: {Check.ANY_SESSION, Check.ANY_INTERNAL},
    Check.R0_PHASE: {Check.ANY_INTERNAL},
    Check.R0_COHORT_ROSTER: {Check.R0_BOTH_KINDS},  # nobody confirmed an invented site, so it counts as a colluder
    Check.R0_COHORT_MINIMUM: {Check.R0_CONFIRMED},
    Check.R0_SURVIVORS: {Check.R0_HONEST},
    Check.R0_LENGTH: {Check.R0_CONTRIBUTION},
    Check.R1_COHORT: {Check.ANY_INTERNAL},
    Check.R1_OWN: {Check.R1_SIGNATURES, Check.ANY_INTERNAL},
    Check.R1_LOW_ORDER: {Check.ANY_INTERNAL},
    Check.R2_SUBSET: {Check.R2_CIPHERTEXTS},
    Check.C_SITE: {Check.C_ONCE, Check.C_STAGE},
    Check.C_PAYLOAD: {Check.ANY_INTERNAL},
    Check.C_SEED: {Check.C_SUM},
    Check.C_MASK_KEY: {Check.C_SUM},
    Check.C_SUM: {Check.ANY_INTERNAL},
}


@pytest.mark.parametrize("name", BY_NAME)
def test_it_is_refused_by_its_check_and_no_share_is_released(name: str) -> None:
    attack = BY_NAME[name]
    assert play(attack) == Outcome(name, attack.check, is_refused=True, released_shares=0, opened=frozenset())


@pytest.mark.parametrize("check", SWITCHABLE)
def test_without_this_check_an_attack_is_accepted_or_meets_a_second_line(check: Check) -> None:
    outcomes = [play(attack, CheckSet(without={check})) for attack in ATTACKS if attack.check is check]
    assert outcomes, f"no attack is there for {check}"
    fates = {outcome.check if outcome.is_refused else None for outcome in outcomes}
    if check in SECOND_LINE:
        assert fates == SECOND_LINE[check]
        assert fates != {check}
    else:
        assert None in fates


def test_there_are_more_attacks_than_agreed_and_each_has_a_name_of_its_own() -> None:
    assert len(BY_NAME) == len(ATTACKS) >= 33
    assert {attack.check for attack in ATTACKS} >= set(SWITCHABLE)


READ: dict[str, tuple[tuple[str, ...], int]] = {
    "server plays all hospitals but one, with keys of its own": (("site-001",), 0),
    "server shows nine sites nine lists of survivors, to open the sum over two": (("site-001", "site-002"), 9 * 10),
    "server orders the same model again from all but one, to subtract": (("site-001",), 3 * 4),
}


@pytest.mark.parametrize("name", READ)
def test_without_the_one_check_the_server_reads_the_very_numbers(name: str) -> None:
    attack = BY_NAME[name]
    outcome = play(attack, CheckSet(without={attack.check}))
    sites, shares = READ[name]
    assert outcome.opened == {sites}
    assert outcome.released_shares == shares
    assert not outcome.is_refused


def _honest_round(arena: Arena) -> None:
    _, packets = arena.run_until(Kind.CERTIFICATE)
    for name in arena.honest:
        arena.offer(name, packets[name])


def _half_refused(arena: Arena) -> None:
    _, packets = arena.run_until(Kind.CERTIFICATE)
    arena.offer("site-001", packets["site-001"])
    arena.offer("site-002", Packet(b"\x00"))


JUDGED = {
    "an attack that every site takes part in": (_honest_round, 4 * 5),
    "an attack that one site takes part in and another refuses": (_half_refused, 5),
    "an attack that did nothing": (lambda arena: None, 0),
}


@pytest.mark.parametrize("sentence", JUDGED)
def test_the_judge_calls_accepted(sentence: str) -> None:
    act, shares = JUDGED[sentence]
    outcome = play(Attack(sentence, Check.R4_SIZE, act))
    assert not outcome.is_refused
    assert outcome.to_json() == {"name": sentence, "refused": False, "code": None, "released_shares": shares}


def test_the_command_prints_exactly_the_agreed_json_and_exits_0() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "simulation.attackers", "--json"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    printed = json.loads(done.stdout)
    assert list(printed) == ["cases", "refused", "accepted"]
    assert (printed["refused"], printed["accepted"]) == (len(ATTACKS), 0)
    codes = {attack.name: TABLE[attack.check].code for attack in ATTACKS}
    expected = [{"name": n, "refused": True, "code": code, "released_shares": 0} for n, code in codes.items()]
    assert printed["cases"] == expected
    assert done.stderr == ""


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_the_command_exits_1_when_an_attack_is_accepted(option: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attackers, "ATTACKS", [Attack("an honest round", Check.R4_SIZE, _honest_round), ATTACKS[0]])
    done = CliRunner().invoke(attackers.app, option)
    assert done.exit_code == 1
    assert ('"accepted": 1' if option else "1 refused, 1 accepted") in done.stdout
