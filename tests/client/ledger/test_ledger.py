"""The ledger's rules: debit before training, one charge an attempt, one ceiling over all studies, no older copy."""

import random
import shutil
import sqlite3
from contextlib import closing

import pytest

from client.ledger.budget import Affordable, EntryKind, Spending, Stratum, Tally, add_up, histories
from client.ledger.errors import BudgetExhaustedError, LedgerInvalidError
from client.ledger.ledger import Ledger, charge
from client.ledger.store import LedgerStore, study_start
from common.errors import OutputExistsError
from common.privacy.accounting import SampledGaussian, epsilon
from common.privacy.errors import AccountingError

DELTA = 1e-5
STUDY, OTHER = "a" * 64, "b" * 64


def cost(noise_multiplier=10.0, stratum=Stratum.LABELLED, steps=1):
    return [charge(stratum, sampling_rate=1.0, noise_multiplier=noise_multiplier, steps=steps)]


def attempts_within(ceiling: float, noise_multiplier: float = 10.0) -> int:
    """How many attempts of ``cost()`` fit, straight from the accountant."""
    count = 0
    while epsilon([SampledGaussian(1.0, noise_multiplier, count + 1)], DELTA) <= ceiling:
        count += 1
    return count


@pytest.fixture
def path(tmp_path):
    Ledger.create(tmp_path / "ledger.sqlite").close()
    return tmp_path / "ledger.sqlite"


def test_the_step_that_would_pass_the_ceiling_is_refused_and_costs_nothing(path):
    fits = attempts_within(1.0)
    assert fits > 3
    with Ledger.open(path, ceiling=1.0) as ledger:
        for attempt in range(1, fits + 1):
            ledger.spend(ledger.reserve(STUDY, attempt, cost(), delta=DELTA))
        spent = ledger.epsilon()
        for _ in range(2):
            with pytest.raises(BudgetExhaustedError, match="ceiling is 1"):
                ledger.reserve(STUDY, fits + 1, cost(), delta=DELTA)
        assert ledger.epsilon() == spent <= 1.0
        assert len(ledger.spending()[0].attempts) == fits


def test_strata_do_not_add_up_but_studies_do(path):
    fits = attempts_within(1.0)
    with Ledger.open(path, ceiling=1.0) as ledger:
        both = cost() + cost(stratum=Stratum.UNLABELLED)
        for attempt in range(1, fits + 1):  # as many as for one stratum alone
            ledger.reserve(STUDY, attempt, both, delta=DELTA)
        with pytest.raises(BudgetExhaustedError):
            ledger.reserve(OTHER, 1, cost(stratum=Stratum.VALIDATION), delta=DELTA)


def test_a_patient_may_have_been_in_any_stratum_of_each_study(path):
    strong, weak = cost(2.0), cost(40.0, Stratum.UNLABELLED)
    with Ledger.open(path, ceiling=100.0) as ledger:
        ledger.reserve(STUDY, 1, strong + weak, delta=DELTA)
        ledger.reserve(OTHER, 1, cost(2.0, Stratum.UNLABELLED) + cost(40.0), delta=DELTA)
        worst = epsilon([SampledGaussian(1.0, 2.0, 2)], DELTA)
        assert ledger.epsilon() == pytest.approx(worst, rel=1e-6)


def test_the_ceiling_is_judged_at_the_smallest_delta_of_all_studies(path):
    with Ledger.open(path, ceiling=100.0) as ledger:
        ledger.reserve(STUDY, 1, cost(), delta=1e-3)
        ledger.reserve(OTHER, 1, cost(), delta=1e-8)
        assert ledger.epsilon() == pytest.approx(epsilon([SampledGaussian(1.0, 10.0, 2)], 1e-8))


def test_what_is_affordable_is_judged_by_the_worst_patient_at_the_smallest_delta():
    strong, weak = [SampledGaussian(1.0, 2.0, 1)], [SampledGaussian(1.0, 40.0, 1)]
    ceiling = epsilon(strong, DELTA) * 0.9
    for strata in (
        {Stratum.LABELLED: strong, Stratum.UNLABELLED: weak},
        {Stratum.LABELLED: weak, Stratum.UNLABELLED: strong},
    ):
        assert not Affordable(ceiling).allows([Spending(STUDY, DELTA, strata)])
    assert Affordable(ceiling).allows([Spending(STUDY, DELTA, {Stratum.LABELLED: weak})])
    two = [Spending(name, delta, {Stratum.LABELLED: weak}) for name, delta in ((STUDY, 1e-3), (OTHER, 1e-8))]
    both = [SampledGaussian(1.0, 40.0, 2)]
    between = (epsilon(both, 1e-3) + epsilon(both, 1e-8)) / 2
    for spending in (two, two[::-1]):
        assert not Affordable(between).allows(spending)


def test_many_studies_are_judged_by_an_upper_bound():
    strengths = [[SampledGaussian(1.0, noise_multiplier, 1)] for noise_multiplier in (10.0, 11.0, 12.0)]
    spending = [Spending(str(number), DELTA, dict(zip(Stratum, strengths, strict=True))) for number in range(6)]
    found = list(histories(spending))
    assert len(found) <= 27
    worst = [SampledGaussian(1.0, 10.0, 6)]  # the truth: the strongest stratum of each
    assert Affordable(1.0).epsilon(spending) >= epsilon(worst, DELTA)


def test_void_gives_the_cost_back_but_only_before_anything_left(path):
    with Ledger.open(path, ceiling=100.0) as ledger:
        ledger.void(ledger.reserve(STUDY, 1, cost(), delta=DELTA))
        assert ledger.epsilon() == 0
        spent = ledger.reserve(STUDY, 2, cost(), delta=DELTA)
        ledger.spend(spent)
        with pytest.raises(LedgerInvalidError, match="stays charged"):
            ledger.void(spent)
        assert ledger.epsilon() > 0
        assert ledger.spending()[0].attempts == {1: EntryKind.VOID, 2: EntryKind.SPENT}


def test_after_a_restart_a_reservation_can_be_neither_voided_nor_spent_and_stays_charged(path):
    with Ledger.open(path, ceiling=100.0) as ledger:
        reservation = ledger.reserve(STUDY, 1, cost(), delta=DELTA)
        before = ledger.epsilon()
    with Ledger.open(path, ceiling=100.0) as ledger:
        for move in (ledger.void, ledger.spend):
            with pytest.raises(LedgerInvalidError, match="stays charged"):
                move(reservation)
        assert ledger.epsilon() == before > 0


def test_an_attempt_is_charged_once_ever_whatever_became_of_it(path):
    with Ledger.open(path, ceiling=100.0) as ledger:
        ledger.reserve(STUDY, 1, cost(), delta=DELTA)
        ledger.void(ledger.reserve(STUDY, 2, cost(), delta=DELTA))
        ledger.reserve(OTHER, 1, cost(), delta=DELTA)
        for attempt in (1, 2):
            with pytest.raises(LedgerInvalidError, match="already"):
                ledger.reserve(STUDY, attempt, cost(), delta=DELTA)


REFUSED = {
    "no charge at all": (STUDY, 1, [], DELTA),
    "attempt zero": (STUDY, 0, cost(), DELTA),
    "a study without a name": ("", 1, cost(), DELTA),
    "a study with a line break": ("a\nb", 1, cost(), DELTA),
    "a study with an endless name": ("a" * 1000, 1, cost(), DELTA),
    "a delta of zero": (STUDY, 1, cost(), 0.0),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_reservation_without_meaning_is_refused_for(name, path):
    study, attempt, charges, delta = REFUSED[name]
    with Ledger.open(path, ceiling=100.0) as ledger, pytest.raises(AccountingError):
        ledger.reserve(study, attempt, charges, delta=delta)


def test_a_missing_ledger_never_begins_at_zero(path):
    path.unlink()
    with pytest.raises(LedgerInvalidError, match="no privacy ledger"):
        Ledger.open(path, ceiling=1.0)
    assert not path.exists()


def test_a_ledger_is_never_begun_twice(path):
    with pytest.raises(OutputExistsError):
        Ledger.create(path)
    with Ledger.open(path, ceiling=9.0) as ledger:
        ledger.reserve(STUDY, 1, cost(), delta=DELTA)
    path.unlink()
    with pytest.raises(OutputExistsError, match="begun twice"):  # its anchor is still there
        Ledger.create(path)


def filled(path, attempts: int) -> None:
    with Ledger.open(path, ceiling=100.0) as ledger:
        first = max((max(spending.attempts) for spending in ledger.spending()), default=0) + 1
        for attempt in range(first, first + attempts):
            ledger.spend(ledger.reserve(STUDY, attempt, cost(), delta=DELTA))


def _edit(path, statement: str) -> None:
    database = sqlite3.connect(path)
    database.executescript(f"DROP TRIGGER never_changed; DROP TRIGGER never_removed; {statement}")
    database.commit()
    database.close()


DAMAGE = {
    "a cheaper charge": lambda p: _edit(p, "UPDATE entries SET body = replace(body, '10', '99') WHERE number = 3"),
    "an entry removed from the middle": lambda p: _edit(p, "DELETE FROM entries WHERE number = 3"),
    "entries removed from the end": lambda p: _edit(p, "DELETE FROM entries WHERE number > 2"),
    "all entries removed": lambda p: _edit(p, "DELETE FROM entries"),
    "an entry moved to another study": lambda p: _edit(p, f"UPDATE entries SET study = '{OTHER}' WHERE number = 3"),
    "a forged hash": lambda p: _edit(p, "UPDATE entries SET hash = zeroblob(32) WHERE number = 4"),
    "another SQLite file": lambda p: _edit(p, "PRAGMA application_id = 1"),
    "a newer format": lambda p: _edit(p, "PRAGMA user_version = 2"),
    "no table": lambda p: _edit(p, "DROP TABLE entries"),
    "not SQLite at all": lambda p: p.write_bytes(b"ledger" * 1000),
    "an empty file": lambda p: p.write_bytes(b""),
    "half a file": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
    "no anchor beside it": lambda p: p.with_name(p.name + ".anchor").unlink(),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_ledger_is_refused_after(name, path):
    filled(path, 3)
    DAMAGE[name](path)
    with pytest.raises(LedgerInvalidError):
        Ledger.open(path, ceiling=100.0)


def test_the_file_itself_refuses_changes(path):
    filled(path, 1)
    for statement in ("UPDATE entries SET body = ''", "DELETE FROM entries"):
        database = sqlite3.connect(path, isolation_level=None)
        with closing(database), pytest.raises(sqlite3.IntegrityError, match="append only"):
            database.execute(statement)


def test_a_restored_older_copy_is_noticed_and_said_so(path, tmp_path):
    filled(path, 2)
    shutil.copy(path, tmp_path / "backup")
    filled(path, 1)
    shutil.copy(tmp_path / "backup", path)
    with pytest.raises(LedgerInvalidError, match="older"):
        Ledger.open(path, ceiling=100.0)


def test_an_older_copy_restored_with_its_anchor_is_noticed_by_the_signed_head(path, tmp_path):
    filled(path, 2)
    anchor = path.with_name(path.name + ".anchor")
    shutil.copy(path, tmp_path / "backup")
    shutil.copy(anchor, tmp_path / "backup.anchor")
    with Ledger.open(path, ceiling=100.0) as ledger:
        early = ledger.head(STUDY)
    filled(path, 1)
    with Ledger.open(path, ceiling=100.0) as ledger:
        signed = ledger.head(STUDY)  # this travelled in KEYS
        for known in (study_start(STUDY), early, signed):
            ledger.check_anchor(STUDY, known)
    shutil.copy(tmp_path / "backup", path)
    shutil.copy(tmp_path / "backup.anchor", anchor)
    with Ledger.open(path, ceiling=100.0) as ledger:
        ledger.check_anchor(STUDY, early)
        with pytest.raises(LedgerInvalidError, match="older"):
            ledger.check_anchor(STUDY, signed)


def test_a_copy_restored_under_a_running_process_is_noticed_before_the_next_charge(path, tmp_path):
    filled(path, 1)
    shutil.copy(path, tmp_path / "backup")
    with Ledger.open(path, ceiling=100.0) as ledger:
        ledger.reserve(STUDY, 10, cost(), delta=DELTA)
        _edit(path, "DELETE FROM entries WHERE number > 2")
        with pytest.raises(LedgerInvalidError, match="gone or changed"):
            ledger.reserve(STUDY, 11, cost(), delta=DELTA)


def test_a_study_s_head_moves_with_its_own_entries_only(path):
    with Ledger.open(path, ceiling=100.0) as ledger:
        assert ledger.head(STUDY) == study_start(STUDY) != ledger.head(OTHER)
        reservation = ledger.reserve(STUDY, 1, cost(), delta=DELTA)
        head = ledger.head(STUDY)
        ledger.reserve(OTHER, 1, cost(), delta=DELTA)
        assert ledger.head(STUDY) == head
        ledger.spend(reservation)
        assert ledger.head(STUDY) != head
        assert len(head) == 32


def test_an_entry_of_another_kind_is_never_passed_over(path):
    with LedgerStore(path).exclusive():
        pass
    store = LedgerStore(path)
    with store.exclusive():
        store.append(STUDY, {"kind": "refunded", "study": STUDY, "attempt": 1, "time": 0})
    with Ledger.open(path, ceiling=1.0) as ledger, pytest.raises(LedgerInvalidError, match="understood"):
        ledger.reserve(STUDY, 2, cost(), delta=DELTA)


def test_knowing_that_a_longer_history_fits_never_lets_a_costlier_one_pass():
    budget = Affordable(1.0)

    def spending(*events):
        return [Spending(STUDY, DELTA, {Stratum.LABELLED: list(events)})]

    fits = attempts_within(1.0)
    for steps in range(1, fits + 3):
        assert budget.allows(spending(SampledGaussian(1.0, 10.0, steps))) == (steps <= fits)
    assert not budget.allows(spending(SampledGaussian(1.0, 10.0, 1), SampledGaussian(1.0, 1.0, 1)))
    assert not budget.allows([Spending(STUDY, 1e-12, {Stratum.LABELLED: [SampledGaussian(1.0, 10.0, fits)]})])


def test_the_tally_kept_entry_by_entry_is_what_adding_up_the_whole_ledger_gives(path):
    moments = random.Random(7)
    with Ledger.open(path, ceiling=100.0) as ledger:
        for attempt in range(1, 40):
            charges = cost(moments.choice([10.0, 20.0])) + cost(30.0, Stratum.UNLABELLED, steps=attempt)
            study = moments.choice([STUDY, OTHER])
            held = ledger.reserve(study, attempt, charges, delta=moments.choice([1e-5, 1e-6]))
            moments.choice([ledger.spend, ledger.void, lambda _: None])(held)
    tally, bodies = Tally(), [row.body for row in LedgerStore(path).rows]
    for count, body in enumerate(bodies, start=1):
        tally.add(body)
        kept, whole = tally.spending(), add_up(bodies[:count])
        assert [(each.study, each.delta) for each in kept] == [(each.study, each.delta) for each in whole]
        assert list(histories(kept)) == list(histories(whole))


def test_two_entries_about_one_attempt_both_count_in_the_tally(path):
    held = Ledger.open(path, ceiling=100.0)
    held.reserve(STUDY, 1, cost(), delta=DELTA)
    (row,) = LedgerStore(path).rows
    tally = Tally()
    tally.add(row.body)
    tally.add(row.body)
    assert tally.knows(STUDY, 1)
    assert not tally.knows(OTHER, 1)
    assert tally.spending()[0].events == {Stratum.LABELLED: [SampledGaussian(1.0, 10.0, 2)]}


def test_a_failure_inside_the_exclusive_block_leaves_file_and_object_as_they_were(path):
    store = LedgerStore(path)

    def failing() -> None:
        with store.exclusive():
            store.append(STUDY, {"kind": "spent", "study": STUDY, "attempt": 1, "time": 0})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        failing()
    assert store.rows == LedgerStore(path).rows == []
    with store.exclusive():
        pass


TORN = {
    "the newest entry is torn": (6, b"\0" * 300),
    "the entry before it is torn": (5, b"{" * 512),
}


@pytest.mark.parametrize("sentence", TORN)
def test_a_ledger_opens_although_in_its_anchor(sentence, path):
    filled(path, 3)
    _damage_slot(path, *TORN[sentence])
    with Ledger.open(path, ceiling=100.0) as ledger:
        assert len(ledger.spending()[0].attempts) == 3


def test_an_anchor_without_a_whole_slot_is_refused(path):
    filled(path, 3)
    for number in (5, 6):
        _damage_slot(path, number, b"\0" * 512)
    with pytest.raises(LedgerInvalidError):
        Ledger.open(path, ceiling=100.0)


def test_an_anchor_that_vanishes_stops_the_next_charge_and_the_next_opening(path):
    with Ledger.open(path, ceiling=100.0) as ledger:
        path.with_name(path.name + ".anchor").unlink()
        with pytest.raises(LedgerInvalidError, match="anchor"):
            ledger.reserve(STUDY, 1, cost(), delta=DELTA)
        assert ledger.epsilon() > 0, "what was committed stays charged"
    with pytest.raises(LedgerInvalidError, match="anchor"):
        Ledger.open(path, ceiling=100.0)


def _damage_slot(path, number: int, rubbish: bytes) -> None:
    with path.with_name(path.name + ".anchor").open("r+b") as file:
        file.seek(number % 2 * 512)
        file.write(rubbish)


def test_a_crash_before_the_anchor_was_renewed_does_not_lock_the_site_out(path, monkeypatch):
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    ledger = Ledger.open(path, ceiling=100.0)
    monkeypatch.setattr("client.ledger.store._write_anchor", crash)
    with pytest.raises(KeyboardInterrupt):
        ledger.reserve(STUDY, 1, cost(), delta=DELTA)
    ledger.close()
    monkeypatch.undo()
    with Ledger.open(path, ceiling=100.0) as ledger:
        assert ledger.epsilon() > 0, "what was committed stays charged"
        ledger.reserve(STUDY, 2, cost(), delta=DELTA)
