"""A study with every mishap ends within its promise, recomputed from the ledger's rows by nothing of ours.

Retries, restarts, a cache that is lost and read again with other labels, a patient who opts out, an older copy of the
journal, and in the end a lost ledger: what each stratum of each site spent is read from SQLite as text and accounted by
dp-accounting and by Opacus, called here directly. Nothing of ``client.ledger`` or ``common.privacy`` is asked.
"""

import json
import shutil
import sqlite3
import warnings
from collections import defaultdict

import pytest
from typer.testing import CliRunner

from client.__main__ import app
from client.consent.approval import approve
from client.consent.continuity.opting_out import keep_opt_outs
from client.dicom.cache import Cache
from client.dicom.cache_folder import open_folder
from client.dicom.withdrawals import withdraw
from client.site import Site
from common.secagg.refusals import Check
from common.trust.identity import read_secret_file

ATTEMPTS = 40  # more than the plan allows


def rows(file) -> list[dict]:
    database = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        return [json.loads(text) for (text,) in database.execute("SELECT body FROM entries ORDER BY number")]
    finally:
        database.close()


def events(entries: list[dict]) -> dict[str, list[tuple[float, float, int]]]:
    """Charges that no VOID took back, by stratum: (rate, noise multiplier, steps)."""
    standing = {(e["study"], e["attempt"]): e["charges"] for e in entries if e["kind"] in {"reserved", "whole"}}
    for entry in entries:
        if entry["kind"] == "void":
            del standing[entry["study"], entry["attempt"]]
    found = defaultdict(list)
    for charges in standing.values():
        for each in charges:
            found[each["stratum"]].append((each["sampling_rate"], each["noise_multiplier"], each["steps"]))
    return found


def google(history, delta: float) -> float:
    import dp_accounting  # noqa: PLC0415 (a second)

    relation = dp_accounting.NeighboringRelation.REPLACE_SPECIAL
    accountant = dp_accounting.pld.PLDAccountant(relation, 1e-4)
    for rate, sigma, steps in history:
        gaussian = dp_accounting.GaussianDpEvent(sigma)
        event = gaussian if rate == 1 else dp_accounting.PoissonSampledDpEvent(rate, gaussian)
        accountant.compose(dp_accounting.SelfComposedDpEvent(event, steps))
    return accountant.get_epsilon(delta)


def opacus_rdp(history, delta: float) -> float:
    from opacus.accountants import RDPAccountant  # noqa: PLC0415 (a second)

    accountant = RDPAccountant()
    accountant.history = [(sigma, rate, steps) for rate, sigma, steps in history]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return accountant.get_epsilon(delta)


def restarted(copied, rounds):
    return {name: Site.open(copied / name) for name in rounds.names}


def mishaps(rounds, study, sites, copied, tmp_path):
    """Play the study up to its end at the sites; return east's folder."""
    east = sites["east"].folder
    rounds.run(rounds.begin(study, attempt=1), sites)
    rounds.order_for(study, sites, "east", attempt=2)  # trained, and nobody ever asks for the rest
    sites = restarted(copied, rounds)  # the reservation stays charged
    shutil.copy2(east.journal, tmp_path / "journal.sqlite")
    rounds.run(rounds.begin(study, attempt=3, round_number=2), sites)
    lose_the_cache(east, study, tmp_path)
    opt_out_one(east, study)
    for ending in ("", "-wal", "-shm"):
        east.journal.with_name(east.journal.name + ending).unlink(missing_ok=True)
    shutil.copy2(tmp_path / "journal.sqlite", east.journal)
    command("restored", study.plan.digest(), "--last-attempt", "3", "--site-folder", east.path)
    sites = restarted(copied, rounds)
    rounds.run(rounds.begin(study, attempt=4, round_number=3), sites)
    for attempt in range(5, ATTEMPTS):
        last = rounds.order_for(study, sites, "east", attempt=attempt, round_number=1 + attempt % 4)
        if attempt % 3 == 0:
            sites["east"] = Site.open(east.path)  # a crash: what was reserved stays charged
    assert rounds.refused_by(last) in {Check.R0_ATTEMPT_MAXIMUM, Check.R0_CONTRIBUTION}, "it is over at last"
    return east


def lose_the_cache(east, study, tmp_path) -> None:
    """Read every scan again, with a table that has lost half of the labels; the staff approve again."""
    before = frozen(east, study)
    shutil.rmtree(east.cache)
    copy = shutil.copytree(tmp_path / "scans", tmp_path / "again")
    lines = (copy / "labels.csv").read_text().splitlines()
    (copy / "labels.csv").write_text("\n".join(lines[:1] + lines[1::2]) + "\n")
    options = ("--plan", study.folder.plan, "--labels", copy / "labels.csv", "--site-folder", east.path)
    command("ingest", copy, *options)
    approve(east, study.folder.plan, approver="Dr East")
    assert frozen(east, study) == before


def frozen(east, study):
    patients = Cache.open(east.cache, read_secret_file(east.secret)).frozen(study.plan.digest()).patients()
    return {key: [record.stratum for record in records] for key, records in patients.items()}


def opt_out_one(east, study) -> None:
    cache = open_folder(east.cache, read_secret_file(east.secret))
    patient = next(key for key, records in frozen(east, study).items() if records)
    assert withdraw(cache, patient) > 0
    keep_opt_outs(east, cache)


def command(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


@pytest.mark.slow
def test_a_study_with_every_mishap_ends_within_its_promise_as_others_compute_it(  # noqa: PLR0917 (fixtures)
    rounds, study, sites, copied, scans, tmp_path
):
    shutil.copytree(min(path for path in scans.iterdir() if path.is_dir()), tmp_path / "scans")
    east = mishaps(rounds, study, sites, copied, tmp_path)
    promise, delta = study.plan.privacy.epsilon, study.plan.privacy.delta
    spent = {}
    for name in rounds.names:
        for stratum, history in events(rows(copied / name / "ledger.sqlite")).items():
            spent[name, stratum] = google(history, delta)
            assert spent[name, stratum] <= promise, (name, stratum)
            assert spent[name, stratum] <= opacus_rdp(history, delta) * 1.001, "RDP is an upper bound too"
            if stratum == "validation":
                assert spent[name, stratum] <= study.plan.evaluation.epsilon
    assert spent["east", "labelled"] > spent["south", "labelled"], "east was asked for more"
    for ending in ("", "-wal", "-shm", ".anchor"):
        east.ledger.with_name(east.ledger.name + ending).unlink(missing_ok=True)
    words = ("--by", "Dr East", "--reason", "the disk died", "--yes", "--site-folder", east.path)
    command("begin-again", "ledger", *words)
    lost = events(rows(east.ledger))
    for stratum, history in lost.items():
        assert spent.get(("east", stratum), 0.0) - 1e-9 <= google(history, delta) <= promise, stratum
    assert lost.keys() == {stratum for name, stratum in spent if name == "east"} >= {"labelled", "validation"}
    fresh = restarted(copied, rounds)
    rounds.order_for(study, fresh, "east", attempt=ATTEMPTS + 1)
    assert events(rows(east.ledger)) == lost, "nothing is spent after that"
