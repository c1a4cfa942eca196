"""The folder may be named once, in the environment, for every command that takes it."""

import re

import pytest
from typer.testing import CliRunner

from client.__main__ import COMMANDS as SITE_COMMANDS
from client.__main__ import app as site_app
from server.__main__ import COMMANDS as SERVER_COMMANDS
from server.__main__ import app as server_app

OTHERS = ("init", "keys")  # a folder that is made, or another than the installation's


def helps(app, words):
    """The help of a command, or of each command of a group."""
    text = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"}).stdout
    if "COMMAND [ARGS]" not in text:
        yield words, text
        return
    for name in re.findall(r"^│ ([a-z][a-z-]+) ", text.partition("Commands")[2], re.MULTILINE):
        yield from helps(app, [*words, name])


@pytest.mark.parametrize(
    ("app", "names", "option", "variable"),
    [
        (site_app, SITE_COMMANDS, "--site-folder", "FEDWARD_SITE"),
        (server_app, SERVER_COMMANDS, "--folder", "FEDWARD_FEDERATION"),
    ],
    ids=["site", "coordinator"],
)
def test_every_command_that_takes_the_folder_takes_it_from_the_environment_too(app, names, option, variable):
    taking = [(words, text) for name in names for words, text in helps(app, [name]) if f"{option} " in text]
    assert len(taking) >= 8
    lacking = [words for words, text in taking if variable not in text and words[0] not in OTHERS]
    assert lacking == []
