"""What the documents say about the program is compared with the program."""

import re
import subprocess
import sys
import tomllib

import pytest

from client.__main__ import COMMANDS as SITE_COMMANDS
from common.commands import load
from common.errors import ExitCode, FedwardError
from common.plan.phases import Phase
from common.plan.task import Image, Network
from server.__main__ import COMMANDS as SERVER_COMMANDS
from simulation.__main__ import COMMANDS as SIMULATION_COMMANDS


def test_every_exit_code_has_a_heading_and_every_heading_a_code(repository):
    text = (repository / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    headings = {int(code): name for code, name in re.findall(r"^## (\d+) ([A-Z_0-9]+)$", text, flags=re.MULTILINE)}
    assert headings == {code.value: code.name for code in ExitCode}


def test_every_exit_code_is_explained_in_what_happened_and_what_to_do(repository):
    text = (repository / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        assert len(section.split("\n", 1)[1].strip()) > 40, section


def all_errors(kind: type[FedwardError] = FedwardError) -> list[type[FedwardError]]:
    return [found for child in kind.__subclasses__() for found in (child, *all_errors(child))]


def test_every_error_says_its_sentence_and_has_a_code_of_its_own_area():
    for error in all_errors():
        assert error.__doc__, error
        assert error.exit_code is not ExitCode.INTERNAL, error


@pytest.mark.parametrize("command", ["fedward-sim", "fedward-server", "fedward-site"])
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_every_command_answers_help_and_version(command, option):
    module = {"fedward-sim": "simulation", "fedward-server": "server", "fedward-site": "client"}[command]
    done = subprocess.run(
        [sys.executable, "-m", module, option], capture_output=True, text=True, check=True, timeout=60
    )
    assert command in done.stdout
    assert "Example" in done.stdout or option == "--version"


def test_the_readme_names_only_commands_that_exist(repository):
    text = (repository / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z-]+)(?:`| |\s+#)", text)) <= targets
    known = {"sim": SIMULATION_COMMANDS, "server": SERVER_COMMANDS, "site": SITE_COMMANDS}
    for program, command in set(re.findall(r"fedward-(sim|server|site) ([a-z-]+)", text)):
        assert load(command, known[program][command][0]).name == command


def test_the_page_on_segmentation_names_every_key_of_it_with_its_default_and_no_other(repository):
    text = (repository / "docs" / "segmentation.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z_.]+)` \| ([^|]*) \|", text, flags=re.MULTILINE)
    parts = {"image.": Image, "network.": Network}
    for key, default in rows:
        part = next((part for place, part in parts.items() if key.startswith(place)), Phase)
        found = part.model_fields[key.rpartition(".")[2]].default
        if isinstance(found, str | int | float) and not isinstance(found, bool):
            assert str(found).removesuffix(".0") in default, key
    new = {"loss", "class_weights", "view_range", "mirrored_axes", "warm_up_rounds", "schedule", "ramp_up_rounds"}
    new |= {"network.levels", "image.patch_px", "image.patches_per_patient", "image.foreground_share"}
    assert new <= {key for key, _ in rows}
    plan = tomllib.loads(text.split("```toml\n")[1].split("```")[0])
    assert plan["image"].keys() <= Image.model_fields.keys()
    assert plan["network"].keys() <= Network.model_fields.keys()
    assert all(phase.keys() <= Phase.model_fields.keys() for phase in plan["phases"])


def test_every_file_a_document_links_to_exists(repository):
    for document in [repository / "README.md", repository / "CHANGELOG.md", *(repository / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
