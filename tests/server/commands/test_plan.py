"""`fedward-server plan check` as a person meets it: one sentence, one documented exit code, never a traceback."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from client.consent.policy import SitePolicyFile, check_policy
from common.errors import ExitCode
from common.plan.fitting import derived_range
from common.plan.guarantee import guarantee
from common.plan.reading import read_plan
from common.plan.signing import sign_plan
from common.trust.identity import create_signing_key, read_signing_key, write_public_key
from server.__main__ import main


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def fedward_server(monkeypatch, capsys):
    """Run the command in this process, through the same entry point as the console script."""

    def call(*arguments: object, cwd: Path) -> Done:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["fedward-server", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        written = capsys.readouterr()
        return Done(int(left.value.code or 0), written.out, written.err)

    return call


@pytest.fixture
def study(plan_text, tmp_path):
    """A folder with a plan, signed by the coordinator whose keys lie beside it."""
    key = create_signing_key(tmp_path / "coordinator.key")
    write_public_key(tmp_path / "coordinator.pub", key.public_key())
    file = tmp_path / "study.toml"
    file.write_text(plan_text, encoding="utf-8")
    sign_plan(read_plan(file), file, key)
    return tmp_path


def test_a_good_plan_prints_its_promise_its_digest_and_what_leaves_a_site(study, fedward_server):
    done = fedward_server("plan", "check", "study.toml", "--public-key", "coordinator.pub", cwd=study)
    assert done.returncode == ExitCode.OK, done.stderr
    for part in ("epsilon: 8", "minimum survivors: 3", "leaves a site", read_plan(study / "study.toml").digest()):
        assert part in done.stdout


def test_the_json_form_holds_the_same_facts(study, fedward_server):
    done = fedward_server("plan", "check", "study.toml", "--json", cwd=study)
    facts = json.loads(done.stdout)
    assert facts["digest"] == read_plan(study / "study.toml").digest()
    assert facts["privacy"]["bought"]["epsilon"] <= facts["privacy"]["epsilon"] == 8
    assert len(facts["signed_by"]) == 29
    assert facts["phases"][0]["trained_parameters"] > 10_000


def edit(old: str, new: str):
    def change(study: Path) -> None:
        text = (study / "study.toml").read_text()
        assert old in text
        (study / "study.toml").write_text(text.replace(old, new, 1))

    return change


def write(content: bytes):
    return lambda study: (study / "study.toml").write_bytes(content)


def sign_by_somebody_else(study: Path) -> None:
    sign_plan(read_plan(study / "study.toml"), study / "study.toml", create_signing_key(study / "other.key"))


BAD_PLANS = {
    "negative epsilon": (edit("epsilon = 8.0", "epsilon = -8.0"), ExitCode.PLAN_INVALID, "greater than 0"),
    "delta that hides nobody": (edit("delta = 1e-05", "delta = 0.001"), ExitCode.PLAN_WEAK_PRIVACY, "1/patients"),
    "threshold below its bound": (edit("threshold = 3", "threshold = 2"), ExitCode.PLAN_WEAK_THRESHOLD, "at least 3"),
    "unknown key": (edit("every_rounds", "every_round"), ExitCode.PLAN_UNKNOWN_KEY, "did you mean every_rounds"),
    "wrong type": (edit("rounds = 20", 'rounds = "20"'), ExitCode.PLAN_INVALID, "valid integer"),
    "huge file": (write(b"#" * 10_000_000), ExitCode.FILE_TOO_LARGE, "the limit is"),
    "not UTF-8": (write(b"format = '\xff\xfe'"), ExitCode.NOT_UTF8, "is not UTF-8"),
    "not TOML": (write(b"format: yaml\n"), ExitCode.NOT_TOML, "not TOML"),
    "missing": (lambda study: (study / "study.toml").unlink(), ExitCode.FILE_UNREADABLE, "No such file"),
    "unsigned": (lambda study: (study / "study.toml.sig").unlink(), ExitCode.PLAN_UNSIGNED, "not signed"),
    "changed after signing": (edit("every_rounds = 10", "every_rounds = 9"), ExitCode.PLAN_BAD_SIGNATURE, "changed"),
    "signed by somebody else": (sign_by_somebody_else, ExitCode.PLAN_BAD_SIGNATURE, "do not use this plan"),
    "a promise the noise does not keep": (
        edit("epsilon = 8.0", "epsilon = 2.0"),
        ExitCode.PLAN_WEAK_PRIVACY,
        "noise_multiplier to at least",
    ),
}


@pytest.mark.parametrize("case", BAD_PLANS)
def test_a_bad_plan_gets_one_sentence_and_its_exit_code(case, study, fedward_server):
    spoil, exit_code, sentence = BAD_PLANS[case]
    spoil(study)
    done = fedward_server("plan", "check", "study.toml", "--public-key", "coordinator.pub", cwd=study)
    assert done.returncode == exit_code, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("how", ["readable by others", "a link to a key readable by others"])
def test_signing_with_an_exposed_key_is_refused(how, study, fedward_server):
    (study / "coordinator.key").chmod(0o644)
    name = "coordinator.key"
    if how.startswith("a link"):
        (study / "link.key").symlink_to(study / name)
        name = "link.key"
    done = fedward_server("plan", "sign", "study.toml", "--key", name, cwd=study)
    assert done.returncode == ExitCode.KEY_EXPOSED, done.stderr
    assert "Traceback" not in done.stderr


def test_a_draft_may_be_unsigned(study, fedward_server):
    (study / "study.toml.sig").unlink()
    done = fedward_server("plan", "check", "study.toml", "--draft", cwd=study)
    assert done.returncode == ExitCode.OK
    assert "nobody yet" in done.stdout


def test_as_a_process_of_its_own_it_leaves_the_same_exit_code(study, repository):
    (study / "study.toml.sig").unlink()
    command = [sys.executable, "-m", "server", "plan", "check", "study.toml"]
    environment = os.environ | {"PYTHONPATH": str(repository)}
    done = subprocess.run(command, cwd=study, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, len(done.stderr.splitlines())) == (ExitCode.PLAN_UNSIGNED, 1)


def test_a_usage_error_exits_2(study, fedward_server):
    assert fedward_server("plan", "chekc", cwd=study).returncode == ExitCode.USAGE


def test_debug_shows_the_traceback_that_is_otherwise_hidden(study, fedward_server):
    (study / "study.toml").unlink()
    done = fedward_server("--debug", "plan", "check", "study.toml", cwd=study)
    assert "Traceback" in done.stderr
    assert done.returncode == ExitCode.FILE_UNREADABLE


def test_the_way_from_keys_to_a_signed_plan(tmp_path, fedward_server):
    for name in ("coordinator", "orders", "north", "south", "west"):
        assert fedward_server("keys", "new", name, cwd=tmp_path).returncode == 0
    sites = [part for name in ("north", "south", "west") for part in ("--site", f"{name}={name}.pub")]
    counts = [part for name in ("north", "south", "west") for part in ("--patients", f"{name}=100,400")]
    steps = [
        ["roster", "sign", "roster.json", "--federation", "lungs", "--key", "coordinator.key", *sites],
        ["plan", "new", "study.toml", "--roster", "roster.json", "--order-key", "orders.pub", *counts],
        ["plan", "sign", "study.toml", "--key", "coordinator.key"],
        ["plan", "check", "study.toml", "--public-key", "coordinator.pub"],
    ]
    for step in steps:
        done = fedward_server(*step, cwd=tmp_path)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("sites", [3, 4, 10])
def test_a_new_plan_passes_the_policy_that_a_hospital_starts_with(sites, tmp_path, fedward_server):
    names = [f"site-{number}" for number in range(sites)]
    for name in ("coordinator", "orders", *names):
        fedward_server("keys", "new", name, cwd=tmp_path)
    keys = [part for name in names for part in ("--site", f"{name}={name}.pub")]
    counts = [part for name in names for part in ("--patients", f"{name}=100,400")]
    fedward_server(
        "roster", "sign", "roster.json", "--federation", "lungs", "--key", "coordinator.key", *keys, cwd=tmp_path
    )
    done = fedward_server(
        "plan", "new", "study.toml", "--roster", "roster.json", "--order-key", "orders.pub", *counts, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    plan = read_plan(tmp_path / "study.toml")
    check_policy(SitePolicyFile(format="fedward-policy/1"), plan, guarantee(plan))  # raises if a rule does not hold


def with_roster(fedward_server, place, counts: str) -> list[str]:
    """Make keys and a signed roster ``r.json`` of three hospitals; return the words of what each declares."""
    names = ("north", "south", "west")
    for name in ("coordinator", "orders", *names):
        fedward_server("keys", "new", name, cwd=place)
    keys = [part for name in names for part in ("--site", f"{name}={name}.pub")]
    fedward_server("roster", "sign", "r.json", "--federation", "lungs", "--key", "coordinator.key", *keys, cwd=place)
    return [part for name in names for part in ("--patients", f"{name}={counts}")]


@pytest.mark.parametrize(("window", "is_told"), [((), True), (("--window", "40,400"), False)])
def test_a_plan_for_ct_without_a_window_says_that_hounsfield_units_are_lost(window, is_told, tmp_path, fedward_server):
    counts = with_roster(fedward_server, tmp_path, "100,400")
    new = ("plan", "new", "chest-ct.toml", "--roster", "r.json", "--order-key", "orders.pub", *counts)
    done = fedward_server(*new, "--modality", "CT", *window, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert ("Hounsfield units are lost" in done.stderr) is is_told


def without_range(study):
    """Take the range out of a plan, as older files were written; return the sentence's place for it."""
    file = study / "study.toml"
    lines = [line for line in file.read_text().splitlines() if not line.startswith("coordinate_range")]
    file.write_text("\n".join(lines) + "\n")
    return read_plan(file)


def test_a_plan_whose_range_nobody_chose_is_not_signed_and_the_sentence_has_the_one_it_needs(study, fedward_server):
    needed = derived_range(read_plan(study / "study.toml"))
    without_range(study)
    done = fedward_server("plan", "sign", "study.toml", "--key", "coordinator.key", cwd=study)
    assert done.returncode == ExitCode.PLAN_INVALID
    assert f"coordinate_range is missing; this plan's noise and patients need {needed:g}: add it" in done.stderr


def test_a_plan_signed_before_without_a_range_keeps_digest_and_signature_and_says_so(study, fedward_server):
    plan = without_range(study)
    text = (study / "study.toml").read_text()
    written = text.replace("[secure_aggregation]", "[secure_aggregation]\ncoordinate_range = 64.0")
    (study / "same.toml").write_text(written)
    assert read_plan(study / "same.toml").digest() == plan.digest()
    sign_plan(plan, study / "study.toml", read_signing_key(study / "coordinator.key"))
    done = fedward_server("plan", "check", "study.toml", "--public-key", "coordinator.pub", "--json", cwd=study)
    assert done.returncode == ExitCode.OK, done.stderr
    assert any("coordinate_range is not in the plan: 64 holds" in line for line in json.loads(done.stdout)["warnings"])


@pytest.mark.parametrize("count", ["9" * 5000, "²", "٣", "10000001", "-1", ""])
def test_a_count_of_any_length_or_script_is_a_sentence(count, study, fedward_server):
    (study / "roster.json").unlink(missing_ok=True)
    for name in ("orders", "north", "south", "west"):
        fedward_server("keys", "new", name, cwd=study)
    keys = [part for name in ("north", "south", "west") for part in ("--site", f"{name}={name}.pub")]
    fedward_server(
        "roster", "sign", "roster.json", "--federation", "lungs", "--key", "coordinator.key", *keys, cwd=study
    )
    counts = [part for name in ("north", "south", "west") for part in ("--patients", f"{name}={count},1")]
    new = ["plan", "new", "fresh.toml", "--roster", "roster.json", "--order-key", "orders.pub", *counts]
    done = fedward_server(*new, cwd=study)
    assert done.returncode == ExitCode.PLAN_INVALID
    assert "write SITE=LABELLED,UNLABELLED with whole numbers" in done.stderr


@pytest.mark.parametrize("hidden", ["\u202e", "\u200b", "\x1b[31m"])
def test_a_plan_that_hides_text_in_its_free_fields_is_shown_with_question_marks(hidden, study, fedward_server):
    file = study / "study.toml"
    lines = [f'contact = "Rao{hidden.encode("unicode_escape").decode().replace("x1b", "u001b")}"', file.read_text()]
    file.write_text(lines[1].replace("[study]\n", f"[study]\n{lines[0]}\n"))
    for words in ((), ("--json",)):
        done = fedward_server("plan", "check", "study.toml", "--draft", *words, cwd=study)
        assert done.returncode == ExitCode.OK, done.stderr
        assert hidden[0] not in done.stdout
        assert "Rao" in done.stdout


@pytest.mark.parametrize(
    ("patients", "words"),
    [
        (91_218, ()),
        pytest.param(400, ("--epsilon", "50", "--rounds", "3"), marks=pytest.mark.slow),
        (91_218, ("--epsilon", "2")),
    ],
)
def test_a_plain_plan_passes_its_own_check_however_many_patients_there_are(patients, words, tmp_path, fedward_server):
    counts = with_roster(fedward_server, tmp_path, f"{patients},0")
    new = ("plan", "new", "plain.toml", "--roster", "r.json", "--order-key", "orders.pub", *counts)
    assert fedward_server(*new, "--recipe", "plain", *words, cwd=tmp_path).returncode == 0
    done = fedward_server("plan", "check", "plain.toml", "--draft", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
