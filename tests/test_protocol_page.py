"""``docs/protocol.md`` says what the code does: its diagram and table are made from the code, its example runs."""

import re
import subprocess
import sys
from pathlib import Path

from common.secagg.diagram import check_table, stage_diagram
from common.secagg.stages import Kind

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = (REPOSITORY / "docs/protocol.md").read_text()


def between(start: str, end: str) -> str:
    return PAGE.split(start, 1)[1].split(end, 1)[0].strip()


def test_the_diagram_is_the_table_of_the_code() -> None:
    assert between("<!-- made by: python -m common.secagg.diagram -->", "<!-- end -->") == stage_diagram().strip()


def test_the_table_of_checks_is_that_of_the_code() -> None:
    assert between("## Checks", "\n## ") == check_table().strip()


def test_the_example_runs_and_is_at_most_twenty_statements() -> None:
    example = between("```python", "```")
    printed = run(example)
    assert printed.count("True") == 15
    assert "False" not in printed
    assert len([line for line in example.splitlines() if line.strip()]) <= 20


def test_the_hostile_example_is_refused_as_the_page_says() -> None:
    assert run(PAGE.split("```python")[2].split("```", 1)[0]) == ""


def run(example: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-c", example], cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_every_kind_of_message_stands_on_the_page() -> None:
    table = between("## Messages", "## Thresholds")
    assert {kind for kind in Kind if not re.search(rf"\b{kind.upper()}\b", table)} == set()
