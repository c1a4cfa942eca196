"""The plan's own promise is a ceiling of the ledger for each stratum, in whatever order it is spent."""

import pytest

from client.ledger.budget import EntryKind, Stratum
from client.ledger.errors import LedgerInvalidError, PromiseSpentError, StrataChangedError
from client.ledger.ledger import Ledger, Remark, Reservation, charge
from client.ledger.terms import LogMark, StudyTerms
from common.privacy.accounting import SampledGaussian, epsilon

DELTA, STUDY, OTHER = 1e-5, "a" * 64, "b" * 64
MARK = LogMark(1, "c" * 64)
PLANNED = {Stratum.LABELLED: (0.2, 8.0, 5), Stratum.UNLABELLED: (0.5, 16.0, 5), Stratum.VALIDATION: (1.0, 30.0, 2)}


def cost(stratum, steps=1, multiplier=None):
    rate, planned, _ = PLANNED[stratum]
    return charge(stratum, sampling_rate=rate, noise_multiplier=multiplier or planned, steps=steps)


PROMISE = [cost(stratum, steps) for stratum, (_, _, steps) in PLANNED.items()]
TERMS = StudyTerms(PROMISE, b"s" * 32, MARK)


@pytest.fixture
def ledger(tmp_path):
    with Ledger.create(tmp_path / "ledger.sqlite", ceiling=100.0) as opened:
        yield opened


def promised(stratum):
    rate, multiplier, steps = PLANNED[stratum]
    return epsilon([SampledGaussian(rate, multiplier, steps)], DELTA)


@pytest.mark.parametrize("stratum", Stratum)
def test_no_stratum_is_charged_more_than_the_plan_promised_it(stratum, ledger):
    steps = PLANNED[stratum][2]
    for attempt in range(1, steps + 1):
        ledger.spend(ledger.reserve(STUDY, attempt, [cost(stratum)], delta=DELTA, terms=TERMS))
    before = ledger.spending()
    for _ in range(2):
        with pytest.raises(PromiseSpentError, match=f"{promised(stratum):.3f}"):
            ledger.reserve(STUDY, steps + 1, [cost(stratum)], delta=DELTA, terms=TERMS)
    assert ledger.spending() == before, "a refusal charges nothing"
    assert before[0].epsilon(stratum) == pytest.approx(promised(stratum))
    others = [each for each in Stratum if each is not stratum]
    for attempt, other in enumerate(others, start=steps + 1):
        ledger.reserve(STUDY, attempt, [cost(other)], delta=DELTA, terms=TERMS)


BEYOND = {
    "a step with less noise than planned": [cost(Stratum.LABELLED, 5, multiplier=4.0)],
    "more steps at once": [cost(Stratum.LABELLED, 6)],
    "a stratum over its promise beside one below it": [cost(Stratum.LABELLED), cost(Stratum.VALIDATION, 3)],
}


@pytest.mark.parametrize("sentence", BEYOND)
def test_what_the_plan_did_not_promise_is_refused(sentence, ledger):
    with pytest.raises(PromiseSpentError):
        ledger.reserve(STUDY, 1, BEYOND[sentence], delta=DELTA, terms=TERMS)
    assert ledger.spending() == []


def test_a_stratum_without_a_promise_is_never_charged(ledger):
    terms = StudyTerms(PROMISE[:1], b"s" * 32, MARK)
    with pytest.raises(PromiseSpentError, match="unlabelled"):
        ledger.reserve(STUDY, 1, [cost(Stratum.UNLABELLED)], delta=DELTA, terms=terms)


def test_other_mechanisms_within_the_promised_epsilon_are_allowed(ledger):
    ledger.reserve(STUDY, 1, [cost(Stratum.LABELLED, 5, multiplier=16.0)], delta=DELTA, terms=TERMS)
    assert ledger.spending()[0].epsilon(Stratum.LABELLED) < promised(Stratum.LABELLED)


def test_a_voided_attempt_gives_its_part_of_the_promise_back_and_a_crashed_one_does_not(ledger):
    for attempt in (1, 2, 3):
        ledger.void(ledger.reserve(STUDY, attempt, [cost(Stratum.VALIDATION)], delta=DELTA, terms=TERMS))
    for attempt in (10, 11):
        ledger.reserve(STUDY, attempt, [cost(Stratum.VALIDATION)], delta=DELTA, terms=TERMS)
    with pytest.raises(PromiseSpentError):
        ledger.reserve(STUDY, 12, [cost(Stratum.VALIDATION)], delta=DELTA, terms=TERMS)


def test_the_promise_is_each_study_s_own_and_is_remembered_over_a_restart(ledger, tmp_path):
    ledger.reserve(STUDY, 1, [cost(Stratum.VALIDATION, 2)], delta=DELTA, terms=TERMS)
    ledger.reserve(OTHER, 1, [cost(Stratum.VALIDATION, 2)], delta=DELTA, terms=TERMS)
    with Ledger.open(tmp_path / "ledger.sqlite", ceiling=100.0) as again:
        for terms in (TERMS, None):  # the entry counts, whatever is claimed later
            with pytest.raises(PromiseSpentError):
                again.reserve(STUDY, 2, [cost(Stratum.VALIDATION)], delta=DELTA, terms=terms)


def test_a_study_of_a_ledger_of_the_version_before_goes_on_and_has_its_promise_from_then(ledger):
    ledger.spend(ledger.reserve(STUDY, 1, [cost(Stratum.VALIDATION)], delta=DELTA))
    assert ledger.openings() == {}
    ledger.reserve(STUDY, 2, [cost(Stratum.VALIDATION)], delta=DELTA, terms=TERMS)
    with pytest.raises(PromiseSpentError):
        ledger.reserve(STUDY, 3, [cost(Stratum.VALIDATION)], delta=DELTA, terms=TERMS)
    assert ledger.spending()[0].attempts == {1: EntryKind.SPENT, 2: EntryKind.RESERVED}


def test_the_terms_are_the_study_s_first_entry_once_and_other_strata_are_refused(ledger):
    for attempt in (1, 2):
        ledger.reserve(STUDY, attempt, [cost(Stratum.LABELLED)], delta=DELTA, terms=TERMS)
    kinds = [row.body["kind"] for row in ledger._store.rows]
    assert kinds == ["opened", "reserved", "reserved"]
    head = ledger.head(STUDY)
    with pytest.raises(StrataChangedError, match="goes no further"):
        ledger.reserve(STUDY, 3, [cost(Stratum.LABELLED)], delta=DELTA, terms=StudyTerms(PROMISE, b"t" * 32, MARK))
    assert ledger.head(STUDY) == head


def test_a_study_charged_whole_spends_its_whole_promise_and_nothing_after(ledger):
    remark = Remark("ledger", "Dr Rao", "the disk died", MARK)
    ledger.charge_whole({STUDY: (PROMISE, DELTA)}, remark=remark)
    [spent] = ledger.spending()
    for stratum in Stratum:
        assert spent.epsilon(stratum) == pytest.approx(promised(stratum))
        for terms in (None, TERMS):
            with pytest.raises(PromiseSpentError):
                ledger.reserve(STUDY, 7, [cost(stratum)], delta=DELTA, terms=terms)
    [entry] = ledger.entries(EntryKind.BEGUN_AGAIN)
    assert (entry["file"], entry["person"], entry["reason"]) == ("ledger", "Dr Rao", "the disk died")


def test_a_whole_charge_counts_even_above_the_ceiling(tmp_path):
    with Ledger.create(tmp_path / "ledger.sqlite", ceiling=0.1) as ledger:
        ledger.charge_whole({STUDY: (PROMISE, DELTA)}, remark=Remark("ledger", "Dr Rao", "lost", MARK))
        assert ledger.epsilon() > 0.1
        with pytest.raises(LedgerInvalidError, match="stays charged"):
            ledger.void(Reservation(STUDY, 0))
