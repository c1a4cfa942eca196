"""Orders that a site refuses, each by its own check; with that check off they meet another fate."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.secagg.rules import SecondAttempt
from common.secagg.keys import sign
from common.secagg.messages import Packet, SignedOrder, decode, encode
from common.secagg.order import encode_order
from common.secagg.refusals import TABLE, Check, CheckSet
from common.secagg.stages import SITE_SENDS, Kind, SiteStage
from common.secagg.statements import order_statement
from simulation.runtime.secagg_federation import NOW_S, Federation, new_federation

VICTIM = "site-001"
OTHERS = ("site-002", "site-003", "site-004", "site-005")
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for journals in memory where there is one: each journal is fsynced several times a round."""
    if not Path("/dev/shm").is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as made:
        yield Path(made)


def refusal_of(federation: Federation, packet: Packet) -> tuple[Check | None, str]:
    """Give the victim a packet; return the check that refused it (None if it was answered) and who was blamed."""
    answer = federation.sites[VICTIM].receive(packet.message, packet.payload)
    kind, message = decode(answer.message, SITE_SENDS)
    return (message.check, message.about) if kind is Kind.REFUSAL else (None, "")


ZEROS = bytes(32)
ORDERS: dict[str, tuple[Check, Callable[[Federation], dict[str, Any]]]] = {
    "of another federation": (Check.R0_FEDERATION, lambda f: {"federation": "elsewhere"}),
    "under another roster": (Check.R0_ROSTER, lambda f: {"roster_digest": ZEROS}),
    "under an older roster": (Check.R0_EPOCH, lambda f: {"epoch": 0}),
    "for a plan that was not approved": (Check.R0_PLAN, lambda f: {"plan_digest": ZEROS}),
    "for a phase that the plan lacks": (Check.R0_PHASE, lambda f: {"phase": 1}),
    "for a round that is not planned": (Check.R0_ROUND, lambda f: {"round_number": 101}),
    "with another layout": (Check.R0_LAYOUT, lambda f: {"layout_digest": ZEROS}),
    "with another training task": (Check.R0_TASK, lambda f: {"task_digest": ZEROS}),
    "with other privacy settings": (Check.R0_PRIVACY, lambda f: {"privacy_digest": ZEROS}),
    "that is over already": (Check.R0_DEADLINE, lambda f: {"deadline_unix_s": NOW_S}),
    "that lasts a year": (Check.R0_DEADLINE, lambda f: {"deadline_unix_s": NOW_S + 31_536_000}),
    "for an unsorted cohort": (Check.R0_COHORT_SORTED, lambda f: {"cohort": (*OTHERS, VICTIM)}),
    "for a cohort with one site twice": (Check.R0_COHORT_SORTED, lambda f: {"cohort": (VICTIM, VICTIM, *OTHERS)}),
    "for a cohort without this site": (Check.R0_COHORT_SELF, lambda f: {"cohort": OTHERS}),
    "for a cohort with an invented site": (Check.R0_COHORT_ROSTER, lambda f: {"cohort": (*f.names, "sybil")}),
    "for a cohort of two": (Check.R0_COHORT_MINIMUM, lambda f: {"cohort": f.names[:2], "threshold": 2}),
    "for a cohort of hospitals that nobody here confirmed": (Check.R0_CONFIRMED, lambda f: {**_confirm_only_itself(f)}),
    "for more sites than the vector holds": (Check.R0_COHORT_MAXIMUM, lambda f: {"cohort_maximum": 4}),
    "for a vector made for a thousand sites": (Check.R0_COHORT_MAXIMUM, lambda f: {"cohort_maximum": 1000}),
    "for a vector made for more sites than planned": (
        Check.R0_COHORT_MAXIMUM,
        lambda f: {"cohort": f.names[:4], "cohort_maximum": _plan_for_four(f)},
    ),
    "with a threshold that opens both secrets": (Check.R0_BOTH_KINDS, lambda f: {"threshold": 3}),
    "with a threshold nobody reaches": (Check.R0_REACHABLE, lambda f: {"threshold": 6}),
    "with a survivor minimum nobody reaches": (Check.R0_REACHABLE, lambda f: {"minimum_survivors": 6}),
    "for sums over two sites": (Check.R0_SURVIVORS, lambda f: {"minimum_survivors": 2}),
    "for sums with one honest site": (
        Check.R0_SURVIVORS,
        lambda f: {"minimum_survivors": 3, "colluders": 2, "threshold": 5},
    ),
    "that assumes no colluders": (Check.R0_COLLUDERS, lambda f: {"colluders": 0}),
    "with less honest noise than planned": (
        Check.R0_HONEST,
        lambda f: {"minimum_survivors": 4, "colluders": 2, "threshold": 5} if _wants_three_honest(f) else {},
    ),
    "with 16-bit words": (Check.R0_WORD, lambda f: {"word_bits": 16}),
    "without guard bits": (Check.R0_GUARD, lambda f: {"guard_bits": 0}),
    "with so many guard bits that the noise is cut": (Check.R0_GUARD, lambda f: {"guard_bits": 20}),
    "with a range that shows signs only": (Check.R0_RANGE, lambda f: {"coordinate_range": 1e-6}),
    "whose sums overflow": (Check.R0_OVERFLOW, lambda f: {"guard_bits": _approve_guard_bits(f, 30)}),
    "for a longer vector": (Check.R0_LENGTH, lambda f: {"body_length": 1 << 30}),
    "for another number of meta words": (Check.R0_LENGTH, lambda f: {"meta_words": 4}),
    "with another model than announced": (Check.R0_MODEL_DIGEST, lambda f: {"model_digest": ZEROS}),
    "that announces a model of another size": (Check.R0_MODEL_SIZE, lambda f: {"model_bytes": 3}),
    "that was ordered before": (Check.R0_ATTEMPT, lambda f: {"attempt": _journal_attempt(f, 7)}),
    "with a lower attempt": (Check.R0_ATTEMPT, lambda f: {"attempt": _journal_attempt(f, 8) - 5}),
    "after all attempts are used": (Check.R0_ATTEMPT_MAXIMUM, lambda f: {"attempt": _use_up_attempts(f)}),
    "after all orders are used, although no vector left": (
        Check.R0_ATTEMPT_MAXIMUM,
        lambda f: {"attempt": _use_up_orders(f)},
    ),
    "for an opened model without noise": (Check.R0_RELEASED, lambda f: {"attempt": _release_without_noise(f)}),
    "that could open a second sum without noise": (
        Check.R0_TWO_SUMS,
        lambda f: {"threshold": 3, "cohort": _three_sites_without_noise(f)},
    ),
    "whose model is not the last result": (Check.R0_RESULT, lambda f: {"round_number": _after_a_result(f)}),
    "for a vector that was sent before": (Check.R0_FRESH, lambda f: {"attempt": _repeat_the_vector(f)}),
}


def _confirm_only_itself(federation: Federation) -> dict[str, Any]:
    policy = replace(federation.policies[VICTIM], confirmed=frozenset({VICTIM}), minimum_confirmed=3)
    federation.policies[VICTIM] = policy
    return {}


def _wants_three_honest(federation: Federation) -> bool:
    policy = replace(federation.policies[VICTIM], minimum_survivors=4)
    federation.policies[VICTIM] = policy
    return policy.guaranteed_honest == 3


def _journal_attempt(federation: Federation, attempt: int) -> int:
    federation.journals[VICTIM].record_attempt(federation.order.plan_digest, 0, attempt)
    return attempt


def _use_up_attempts(federation: Federation) -> int:
    for attempt in range(1, 3):
        _journal_attempt(federation, attempt)
        federation.journals[VICTIM].record_masked(federation.order.plan_digest, 0, attempt)
    _change_phase(federation, maximum_attempts=2)
    return 3


def _use_up_orders(federation: Federation) -> int:
    policy = federation.policies[VICTIM]
    for attempt in range(1, 6):
        _journal_attempt(federation, attempt)
    federation.policies[VICTIM] = replace(policy, maximum_orders=5)
    federation.new_session(VICTIM)
    return 6


def _plan_for_four(federation: Federation) -> int:
    _change_phase(federation, cohort_maximum=4)
    return 5


def _approve_guard_bits(federation: Federation, guard_bits: int) -> int:
    _change_phase(federation, minimum_guard_bits=guard_bits)
    return guard_bits


def _release_without_noise(federation: Federation) -> int:
    _change_phase(federation, second_attempt=SecondAttempt.NEVER)
    order = federation.order
    federation.journals[VICTIM].record_release(order.plan_digest, order.model_digest, 1)
    return 2


def _three_sites_without_noise(federation: Federation) -> tuple[str, ...]:
    _change_phase(federation, second_attempt=SecondAttempt.NEVER)
    return federation.names[:3]


def _after_a_result(federation: Federation) -> int:
    federation.journals[VICTIM].record_result(federation.order.plan_digest, phase=0, round_number=1, model_digest=ZEROS)
    return 2


def _repeat_the_vector(federation: Federation) -> int:
    vector = federation.work[VICTIM].draw(1)
    federation.work[VICTIM].draw = lambda attempt: vector
    first = federation.sign_order(federation.new_order())
    assert refusal_of(federation, first) == (None, "")
    return 2


def _change_phase(federation: Federation, **changes: Any) -> None:
    policy = federation.policies[VICTIM]
    federation.policies[VICTIM] = replace(policy, phases=(replace(policy.phases[0], **changes),))


def _give_order(
    federation: Federation, changes: Callable[[Federation], dict[str, Any]], checks: CheckSet
) -> Check | None:
    changed = changes(federation)
    federation.new_session(VICTIM, checks=checks)
    packet = federation.sign_order(federation.new_order(**changed))
    return refusal_of(federation, packet)[0]


@pytest.mark.parametrize("sentence", ORDERS)
def test_a_site_refuses_an_order(sentence: str, folder: Path) -> None:
    check, changes = ORDERS[sentence]
    federation = new_federation(5, folder)
    assert _give_order(federation, changes, CheckSet()) is check
    assert federation.sites[VICTIM].stage is SiteStage.DEAD
    if check is not Check.R0_FRESH:
        assert federation.work[VICTIM].events == []


@pytest.mark.parametrize("sentence", ORDERS)
def test_without_that_check_the_order_meets_another_fate(sentence: str, folder: Path) -> None:
    check, changes = ORDERS[sentence]
    assert _give_order(new_federation(5, folder), changes, CheckSet(without={check})) is not check


SIGNATURES = {
    "signed by a stranger": lambda f: STRANGER,
    "signed by a hospital": lambda f: f.identities["site-002"],
}


@pytest.mark.parametrize("sentence", SIGNATURES)
def test_a_site_refuses_an_order_that_is(sentence: str, folder: Path) -> None:
    for checks, expected in ((CheckSet(), Check.R0_SIGNATURE), (CheckSet(without={Check.R0_SIGNATURE}), None)):
        federation = new_federation(5, folder)
        federation.new_session(VICTIM, checks=checks)
        packet = federation.sign_order(federation.new_order(attempt=99), key=SIGNATURES[sentence](federation))
        assert refusal_of(federation, packet)[0] is expected


UNREADABLE = {
    "no text": lambda good: b"\xc1",
    "another encoding of an order": lambda good: good.replace(b"\xa5epoch\x01", b"\xa5epoch\xcc\x01"),
    "an order cut short": lambda good: good[:-1],
}


@pytest.mark.parametrize("sentence", UNREADABLE)
def test_a_site_refuses_bytes_that_are_no_order_although_the_coordinator_signed_them(
    sentence: str, folder: Path
) -> None:
    federation = new_federation(5, folder)
    order = UNREADABLE[sentence](encode_order(federation.order))
    signed = SignedOrder(order=order, signature=sign(federation.order_key, *order_statement(order)))
    assert refusal_of(federation, Packet(encode(signed)))[0] is Check.WIRE_FIELDS


def test_a_site_refuses_a_model_other_than_the_cohort_was_told_of(folder: Path) -> None:
    federation = new_federation(5, folder)
    packet = federation.sign_order(federation.new_order(), model=b"trapped weights")
    assert refusal_of(federation, packet)[0] is Check.R0_MODEL_DIGEST


def test_every_check_of_an_order_has_a_case_here() -> None:
    here = {check for check, _ in ORDERS.values()} | {Check.R0_SIGNATURE}
    assert {check for check in TABLE if check.startswith("R0") and TABLE[check].is_switchable} <= here
