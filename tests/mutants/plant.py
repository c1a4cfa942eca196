"""Plants one fault at a time in a copy of the program and runs the tests that should notice: ``make mutants``.

    python tests/mutants/plant.py                    every fault of faults.toml
    python tests/mutants/plant.py --only ledger      those whose file or words contain it
    python tests/mutants/plant.py --file client/ledger/budget.py --old 'A' --new 'B'     a fault of your own

A fault is one replacement in one promise-critical file: what stands there (exactly once) and what it becomes. Caught:
a test of that file fails. Hung: the tests took more than ten times as long as without the fault, which a person would
notice too; counts as caught. Survived: all of them pass, which is a hole in the tests; exit status 1. Says nothing (the
fault does not apply, the program cannot even be imported, or the tests fail or do not end without any fault): exit
status 2, because then "caught" would mean nothing.

Third-party libraries are loaded once and every run is a fork, so that a fault costs its tests, not PyTorch's start.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
FAULTS: Final = Path(__file__).with_name("faults.toml")
COPIED: Final = ("common", "client", "server", "simulation", "tests", "pyproject.toml", "docs")
LIBRARIES: Final = ("torch", "numpy", "pydantic", "cryptography", "hypothesis", "pytest", "dp_accounting", "pydicom")
LONGEST_S: Final = 600.0  # the tests of a file without a fault
LEAST_LIMIT_S: Final = 60.0  # a fault's tests may always take so long: a loaded machine is no finding
HUNG_FACTOR: Final = 10.0  # and so many times what they take without it
HUNG: Final = -2  # in place of pytest's exit status
CAUGHT_BY: Final = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


class Verdict(StrEnum):
    """What came of one fault."""

    CAUGHT = "caught"
    HUNG = "hung"
    SURVIVED = "SURVIVED"
    SAYS_NOTHING = "SAYS NOTHING"


@dataclass(frozen=True)
class Fault:
    """One replacement. ``by``: the tests that should notice, run first; ``tests``: all tests of the file."""

    file: str
    says: str
    old: str
    new: str
    tests: tuple[str, ...]
    by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """A fault's verdict; ``about``: the test that caught it, or why it says nothing."""

    file: str
    says: str
    verdict: Verdict
    about: str
    seconds: float


def read_faults(file: Path = FAULTS) -> list[Fault]:
    """Read ``faults.toml``. Raises: KeyError, ValueError for a file that is not in its form."""
    found = []
    for entry in tomllib.loads(file.read_text(encoding="utf-8"))["file"]:
        for fault in entry["fault"]:
            if unknown := set(fault) - {"says", "old", "new", "by"}:
                raise ValueError(f"{entry['path']}: {fault['says']}: unknown keys {sorted(unknown)}")
            by = tuple(fault.get("by", ()))
            found.append(Fault(entry["path"], fault["says"], fault["old"], fault["new"], tuple(entry["tests"]), by))
    return found


def plant(root: Path, fault: Fault) -> str:
    """Replace in ``root``; return why it cannot be done, or nothing."""
    path = root / fault.file
    if not path.is_file():
        return "there is no such file"
    text = path.read_text(encoding="utf-8")
    if (times := text.count(fault.old)) != 1:
        return f"its text stands there {times} times; it must stand there once"
    changed = text.replace(fault.old, fault.new)
    if changed == text:
        return "it changes nothing"
    try:
        compile(changed, str(path), "exec")
    except SyntaxError as error:
        return f"it is no Python ({error.msg})"
    path.write_text(changed, encoding="utf-8")
    return ""


def copy_of_the_tree(folder: Path) -> Path:
    """Copy what tests need into ``folder`` and return it."""
    for name in COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / name)
    with suppress(OSError):
        (folder.parent / "shared").symlink_to(REPOSITORY.parent / "shared")
    return folder


def run_tests(root: Path, tests: Iterable[str], log: Path) -> int:
    """Run tests of the tree at ``root`` in this process, which must be a fork; return pytest's exit status."""
    import pytest  # noqa: PLC0415 (loaded before the fork)

    os.chdir(root)
    sys.path[:0] = [str(root)]
    os.environ["PYTHONPATH"] = str(root)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    with log.open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-rfE", *tests]))


def try_fault(folder: Path, fault: Fault | None, tests: tuple[str, ...], by: tuple[str, ...], answer: Any) -> None:
    """Child: plant, run ``by`` and then ``tests``, and put (exit status, what it is about) into ``answer``."""
    os.setsid()
    root = copy_of_the_tree(folder / "tree")
    if fault is not None and (why := plant(root, fault)):
        answer.put((-1, why))
        return
    status, log = 0, folder / "log"
    for chosen in filter(None, (by, tests)):
        status = run_tests(root, chosen, log)
        if status != 0:
            break
    caught = CAUGHT_BY.search(log.read_text(errors="replace"))
    answer.put((status, caught[1] if caught else f"pytest ended with status {status}"))


def verdict_of(status: int, about: str) -> tuple[Verdict, str]:
    """Say what an exit status of pytest means: 1 is a failed test, 0 none; others say nothing about the fault."""
    if status == HUNG:
        return Verdict.HUNG, about
    if status == 0:
        return Verdict.SURVIVED, "every test of the file passes"
    return (Verdict.CAUGHT, about) if status == 1 else (Verdict.SAYS_NOTHING, about)


def judge(fault: Fault | None, tests: tuple[str, ...], by: tuple[str, ...], limit_s: float) -> tuple[int, str]:
    """Run one fault (None: none) in a fork, with a limit of time; see ``try_fault``."""
    context = multiprocessing.get_context("fork")
    answer = context.SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="fedward-mutant-", ignore_cleanup_errors=True) as folder:
        child = context.Process(target=try_fault, args=(Path(folder), fault, tests, by, answer))
        child.start()
        child.join(limit_s)
        hung = child.is_alive()
        child.kill()
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # the programs that its tests started
        child.join()
    if hung:
        return HUNG, f"not done after {limit_s:.0f} s"
    return answer.get() if not answer.empty() else (-1, "the process that ran the tests died")


def outcome(fault: Fault, *, usual_s: float) -> Outcome:
    """Judge one fault, whose tests take ``usual_s`` without it."""
    began = time.monotonic()
    limit_s = max(LEAST_LIMIT_S, HUNG_FACTOR * usual_s)
    verdict, about = verdict_of(*judge(fault, fault.tests, fault.by, limit_s))
    return Outcome(fault.file, fault.says, verdict, about, round(time.monotonic() - began, 1))


def unfaulted(tests: tuple[str, ...]) -> Outcome:
    """Run a set of tests with nothing planted: they survive that, or say nothing about any fault."""
    began = time.monotonic()
    status, about = judge(None, tests, (), LONGEST_S)
    seconds = round(time.monotonic() - began, 1)
    if status == 0:
        return Outcome("", "no fault", Verdict.SURVIVED, "every test passes", seconds)
    return Outcome("", "no fault", Verdict.SAYS_NOTHING, f"fails without any fault: {about}", seconds)


def outcomes(faults: list[Fault], workers: int) -> Iterator[Outcome]:
    """Judge all faults, several at a time, each set of tests first without a fault."""
    from multiprocessing.pool import ThreadPool  # noqa: PLC0415 (threads only wait: each run is a process)

    kinds = sorted({fault.tests for fault in faults})
    with ThreadPool(workers) as pool:
        usual = dict(zip(kinds, pool.imap(unfaulted, kinds), strict=True))
        yield from (found for found in usual.values() if found.verdict is Verdict.SAYS_NOTHING)
        yield from pool.imap_unordered(lambda fault: outcome(fault, usual_s=usual[fault.tests].seconds), faults)


def chosen_faults(arguments: argparse.Namespace) -> list[Fault]:
    """Return the faults that the command line asks for. Raises: SystemExit for a file without tests of its own."""
    known = read_faults(arguments.faults)
    if arguments.file:
        tests = next((fault.tests for fault in known if fault.file == arguments.file), None)
        if tests is None:
            files = ", ".join(sorted({fault.file for fault in known}))
            raise SystemExit(f"{arguments.file} has no tests in faults.toml; files that have: {files}")
        return [Fault(arguments.file, "a fault of your own", arguments.old, arguments.new, tests)]
    return [fault for fault in known if arguments.only in fault.file + fault.says]


def main() -> int:
    """Judge the faults, print a line for each, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="part of a file's name or of a fault's words")
    parser.add_argument("--file", default="", help="a file for a fault of your own, with --old and --new")
    parser.add_argument("--old", default="", help="what stands there, exactly once")
    parser.add_argument("--new", default="", help="what it becomes")
    parser.add_argument("--faults", type=Path, default=FAULTS, help="another list of faults")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end instead of lines")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in LIBRARIES:
        importlib.import_module(name)
    faults, found = chosen_faults(arguments), []
    for each in outcomes(faults, arguments.workers):
        found.append(each)
        if not arguments.json:
            print(f"{each.verdict:12} {each.file}: {each.says}: {each.about} ({each.seconds:.0f} s)", flush=True)
    counts = {verdict.name.lower(): sum(each.verdict is verdict for each in found) for verdict in Verdict}
    if arguments.json:
        print(json.dumps({"planted": len(faults), **counts, "faults": [asdict(each) for each in found]}))
    else:
        caught = counts["caught"] + counts["hung"]
        print(f"{len(faults)} faults planted, {caught} caught ({counts['hung']} hung), {counts['survived']} survived")
    return exit_status(planted=len(faults), survived=counts["survived"], says_nothing=counts["says_nothing"])


def exit_status(*, planted: int, survived: int, says_nothing: int) -> int:
    """Return 0 when every fault was caught, 1 when one survived, 2 when the run proves nothing."""
    return 2 if says_nothing or not planted else int(survived > 0)


if __name__ == "__main__":
    sys.exit(main())
