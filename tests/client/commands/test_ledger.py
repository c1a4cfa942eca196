"""`fedward-site ledger`: what a data protection officer sees: text, JSON, a picture, and a second opinion."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

import client.commands.ledger as command
from client.__main__ import app
from client.ledger.budget import Stratum
from client.ledger.errors import LedgerInvalidError
from client.ledger.ledger import Ledger, charge
from client.ledger.report import report, verify
from common.errors import OutputExistsError
from common.privacy.accounting import SampledGaussian, epsilon
from common.privacy.errors import AccountingError

STUDY = "3f" * 32
RATE, SIGMA = 0.2, 3.0


@pytest.fixture
def site(tmp_path):
    (tmp_path / "policy.toml").write_text('format = "fedward-policy/1"\nepsilon_ceiling = 2.0\n')
    with Ledger.create(tmp_path / "ledger.sqlite", ceiling=2.0) as ledger:
        for attempt in range(1, 6):
            charges = [charge(Stratum.LABELLED, sampling_rate=RATE, noise_multiplier=SIGMA, steps=1)]
            if attempt > 2:
                charges.append(charge(Stratum.UNLABELLED, sampling_rate=RATE, noise_multiplier=2 * SIGMA, steps=1))
            reservation = ledger.reserve(STUDY, attempt, charges, delta=1e-5)
            if attempt < 4:
                ledger.spend(reservation)
            elif attempt == 4:
                ledger.void(reservation)
    return tmp_path


def run(*arguments: object):
    result = CliRunner().invoke(app, ["ledger", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def spent(attempts: int, sigma: float = SIGMA) -> float:
    return epsilon([SampledGaussian(RATE, sigma, attempts)], 1e-5)


def test_json_says_what_was_spent_and_what_is_left(site):
    shown = json.loads(run("--site-folder", site, "--json"))
    labelled, unlabelled = shown["strata"]
    assert (labelled["stratum"], labelled["attempts"]) == ("labelled", 4)
    assert labelled["epsilon"] == shown["epsilon"] == spent(4)
    assert unlabelled["epsilon"] == spent(2, 2 * SIGMA)
    assert labelled["remaining"] == shown["remaining"] == pytest.approx(2.0 - spent(4))
    assert unlabelled["remaining"] == pytest.approx(2.0 - spent(2, 2 * SIGMA))
    assert shown["outcomes"] == {"reserved": 1, "spent": 3, "void": 1}
    left = shown["attempts_left"]
    assert spent(4 + left) <= 2.0 < spent(5 + left)
    assert shown["neighbouring_relation"] == "zero-out"


def test_the_table_names_study_strata_and_ceiling(site):
    shown = run("--site-folder", site)
    for word in ("3f3f3f3f3f3f", "labelled", "unlabelled", f"{spent(4):.3f}", "of 2 at delta 1e-05", "1 void"):
        assert word in shown


@pytest.mark.filterwarnings("ignore")
def test_verify_asks_a_second_accountant_and_says_whether_it_agrees(site, monkeypatch):
    shown = json.loads(run("--site-folder", site, "--json", "--verify"))
    assert [row["agrees"] for row in shown["verify"]] == [True, True]
    assert all(row["pld"] <= row["rdp"] for row in shown["verify"])
    wrong = [(study, stratum, replace(check, pld=check.pld / 2)) for study, stratum, check in verify_again(site)]
    monkeypatch.setattr(command, "verify", lambda spending: wrong)
    with pytest.raises(AccountingError, match="disagree"):
        run("--site-folder", site, "--verify")


def verify_again(site):
    with Ledger.open(site / "ledger.sqlite", ceiling=2.0) as ledger:
        return verify(ledger.spending())


def test_the_chart_is_a_picture_and_never_overwrites(site):
    run("--site-folder", site, "--chart", site / "ledger.png")
    assert (site / "ledger.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(OutputExistsError):
        run("--site-folder", site, "--chart", site / "ledger.png")


def test_a_signed_head_is_compared_on_request(site):
    with Ledger.open(site / "ledger.sqlite", ceiling=2.0) as ledger:
        head = ledger.head(STUDY).hex()
    run("--site-folder", site, "--anchor", f"{STUDY}:{head}")
    for unknown in (f"{STUDY}:{'00' * 32}", f"{STUDY}:xyz", "nonsense"):
        with pytest.raises(LedgerInvalidError):
            run("--site-folder", site, "--anchor", unknown)


def test_a_new_site_begins_its_ledger_once_and_only_on_request(tmp_path):
    (tmp_path / "policy.toml").write_text('format = "fedward-policy/1"\n')
    with pytest.raises(LedgerInvalidError, match="--create"):
        run("--site-folder", tmp_path)
    shown = json.loads(run("--site-folder", tmp_path, "--create", "--json"))
    assert (shown["epsilon"], shown["attempts_left"], shown["strata"]) == (0.0, None, [])
    with pytest.raises(OutputExistsError):
        run("--site-folder", tmp_path, "--create")


def test_an_exhausted_stratum_has_nothing_left(site):
    with Ledger.open(site / "ledger.sqlite", ceiling=spent(4)) as ledger:
        shown = report(ledger.spending(), ceiling=spent(4))
    assert shown.attempts_left == 0
    assert shown.remaining == 0
