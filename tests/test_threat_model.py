"""``docs/threat-model.md`` claims nothing without a test, and every test it names exists."""

import ast
import re
from pathlib import Path

import pytest

from simulation.attackers import ATTACKS

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = (REPOSITORY / "docs/threat-model.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py::\w+)`", PAGE)))
CLAIMS = [
    line
    for line in PAGE.split("## What is stopped", 1)[1].split("## What is not stopped", 1)[0].splitlines()
    if line.startswith("| ") and not line.startswith(("| claim", "|---"))
]


def collected_names(file: Path) -> set[str]:
    """The names that pytest collects of a file: functions, and state machines bound to a name."""
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {name for name in found if name.startswith("test_")}


@pytest.mark.parametrize("named", NAMED)
def test_a_test_that_the_page_names_exists(named: str) -> None:
    path, _, name = named.partition("::")
    assert (REPOSITORY / path).is_file()
    assert name in collected_names(REPOSITORY / path)


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_names_how_and_a_test(claim: str) -> None:
    _, said, how, shown, _ = claim.split("|")
    assert said.strip()
    assert how.strip()
    assert re.search(r"`tests/[\w/]+\.py::test_\w+`", shown)


def test_nothing_that_looks_like_a_test_escapes_the_comparison() -> None:
    assert PAGE.count("::test_") == len(re.findall(r"`(tests/[\w/]+\.py::\w+)`", PAGE))
    assert len(CLAIMS) >= 25


def test_the_number_of_attacks_is_that_of_the_program() -> None:
    assert f"{len(ATTACKS)} attacks run" in PAGE
