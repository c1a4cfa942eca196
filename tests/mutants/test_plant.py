"""``make mutants`` must be able to fail: a fault that nothing could notice survives, a broken run says nothing."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

PLANT = Path(__file__).with_name("plant.py")
sys.path.insert(0, str(PLANT.parent))
try:
    import plant
finally:
    sys.path.remove(str(PLANT.parent))

# words -> what stands in common/privacy/intervals.py, what it becomes, the verdict
CASES = {
    "a fault that nothing could notice": ("for whoever counts right answers", "for whoever counts", "SURVIVED"),
    "one that a test notices": ("max(0.0, min(share,", "max(0.5, min(share,", "caught"),
    "words that are not there": ("no such words", "others", "SAYS NOTHING"),
    "words that stand there often": ("share", "part", "SAYS NOTHING"),
    "no Python": ("import math", "import math)", "SAYS NOTHING"),
    "a program that cannot be imported": ("import math", "import no_such_module_at_all", "SAYS NOTHING"),
}


def entry(path: str, tests: str, name: str) -> str:
    old, new, _ = CASES[name]
    fault = f"[[file.fault]]\nsays = {json.dumps(name)}\nold = {json.dumps(old)}\nnew = {json.dumps(new)}\n"
    return f'[[file]]\npath = "{path}"\ntests = ["{tests}"]\n{fault}'


def planted(file: Path, *more: str) -> tuple[int, dict[str, str], str]:
    """Run the command; return its exit status, the verdict of each fault by its words, and what it said besides."""
    line = [sys.executable, str(PLANT), "--faults", str(file), "--json", *more]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=300)
    found = json.loads(done.stdout)["faults"] if done.stdout else []
    return done.returncode, {each["says"]: each["verdict"] for each in found}, done.stderr


@pytest.mark.slow
def test_each_fault_gets_its_verdict_and_what_says_nothing_is_no_success(tmp_path):
    file = tmp_path / "faults.toml"
    path, tests = "common/privacy/intervals.py", "tests/mutants/of_intervals.py"
    file.write_text("\n".join(entry(path, tests, name) for name in CASES))
    status, verdicts, _ = planted(file)
    assert verdicts == {name: case[2] for name, case in CASES.items()}
    assert status == 2


def test_tests_that_fail_without_any_fault_say_nothing():
    assert plant.unfaulted(("tests/mutants/no_such_tests.py",)).verdict is plant.Verdict.SAYS_NOTHING


def test_a_test_that_loops_for_ever_is_ended_and_counts_as_found(tmp_path):
    tests = tmp_path / "test_loop.py"
    tests.write_text("def test_loop():\n    while True:\n        pass\n")
    verdict, about = plant.verdict_of(*plant.judge(None, (str(tests),), (), 3.0))
    assert (verdict, about) == (plant.Verdict.HUNG, "not done after 3 s")
    assert plant.unfaulted((str(tests.with_name("test_none.py")),)).verdict is plant.Verdict.SAYS_NOTHING


def test_one_survivor_is_a_failure_and_a_run_that_proves_nothing_is_another():
    assert plant.exit_status(planted=40, survived=0, says_nothing=0) == 0
    assert plant.exit_status(planted=40, survived=1, says_nothing=0) == 1
    assert plant.exit_status(planted=40, survived=0, says_nothing=1) == 2
    assert plant.exit_status(planted=0, survived=0, says_nothing=0) == 2


@pytest.mark.slow
def test_a_fault_of_ones_own_needs_a_file_that_has_tests():
    status, _, said = planted(plant.FAULTS, "--file", "no/such/file.py", "--old", "a", "--new", "b")
    assert status != 0
    assert "files that have" in said


def test_every_fault_of_the_list_applies_and_no_two_are_the_same(repository, tmp_path):
    """What the list names stands in the program exactly once; without this a renamed line would stop being tried."""
    faults = plant.read_faults()
    assert len(faults) >= 40
    assert Counter((fault.file, fault.old, fault.new) for fault in faults).most_common(1)[0][1] == 1
    for number, fault in enumerate(faults):
        copy = tmp_path / str(number) / fault.file
        copy.parent.mkdir(parents=True)
        copy.write_bytes((repository / fault.file).read_bytes())
        assert plant.plant(tmp_path / str(number), fault) == "", f"{fault.file}: {fault.says}"
        for test in (*fault.tests, *fault.by):
            assert (repository / test.partition("::")[0]).exists(), test


@pytest.mark.slow
def test_every_planted_fault_is_caught():
    done = subprocess.run(
        [sys.executable, str(PLANT), "--json"], capture_output=True, text=True, check=False, timeout=3600
    )
    found = json.loads(done.stdout)
    assert [fault for fault in found["faults"] if fault["verdict"] not in ("caught", "hung")] == []
    assert done.returncode == 0
