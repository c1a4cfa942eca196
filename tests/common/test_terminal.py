"""What others wrote reaches a terminal or a page as text that one sees; numbers of any size get a sentence."""

import json

import pytest
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from client.commands.site_options import parsed_toml
from common import terminal
from common.errors import FedwardError, NotTomlError
from common.plan.errors import PlanInvalidError
from common.plan.reading import read_plan
from common.settings_file import read_settings
from common.terminal import NowAndThen, printable, visible
from common.web.markup import element

HIDDEN = [
    "\u202e",
    "\u2066",
    "\u200b",
    "\u200f",
    "\ufeff",
    "\u2028",
    "\u0085",
    "\x1b",
    "\U000e0041",
    "\ue000",
    "\ud800",
]


@pytest.mark.parametrize("character", HIDDEN)
def test_a_character_that_nobody_sees_is_shown_as_a_question_mark(character):
    assert printable(f"a{character}b") == "a?b"
    assert visible(f"a{character}b") == "a?b"
    assert element("p", f"a{character}b", title=character) == '<p title="?">a?b</p>'


@pytest.mark.parametrize("character", [*HIDDEN[:-1], "\x1b[31m"])
def test_whatever_is_printed_shows_no_such_character_and_json_escapes_it(character, capsys):
    table = Table("x")
    table.add_row(escape(f"a{character}b"))
    terminal.output.print(f"a{character}b", markup=False)
    terminal.output.print(table)
    terminal.errors.print(escape(f"[bold]a{character}b[/]"))
    terminal.print_json({"title": f"a{character}b"})
    shown = capsys.readouterr()
    assert character[0] not in shown.out + shown.err
    assert "a?" in shown.out
    assert json.loads(shown.out[shown.out.index("{") :]) == {"title": f"a{character}b"}


MARKED = [
    r"MIT\[not for clinical use]", r"x\[/]", r"a\\[bold]b", "[red]", "[0]", "ends with \\", "two \\\\",
    "three \\\\\\", "[/", r"\[link=http://x]y\[/link]",
]  # fmt: skip


@pytest.mark.parametrize("text", MARKED)
def test_no_tag_begins_in_foreign_text_and_none_after_it_is_lost(text, capsys):
    terminal.output.print(f"[bold]{printable(text)}[/] after", soft_wrap=True)
    assert capsys.readouterr().out == f"{text} after\n"
    with pytest.raises(SystemExit):
        terminal.fail(text, 1)
    assert capsys.readouterr().err.replace("\n", "") == f"error: {text}"


def test_letters_of_all_languages_stay():
    text = "Universitätsklinikum 大学病院 مستشفى – study"
    assert printable(text) == visible(text) == text


@pytest.mark.parametrize("name", ["output", "errors"])
def test_an_emoji_code_in_a_plan_is_text(name, capsys):
    console: Console = getattr(terminal, name)
    table = Table("x")
    table.add_row(printable(":warning: :skull:"))
    console.print(table)
    console.print(printable(":skull:"))
    shown = "".join(capsys.readouterr())
    assert ":warning: :skull:" in shown
    assert shown.count(":skull:") == 2


class Settings(BaseModel):
    port: int


@pytest.mark.parametrize("value", ["9" * 5000, "-" + "9" * 5000, "[" * 5000, "1" + "_1" * 5000])
def test_a_number_of_any_size_in_a_file_is_a_sentence(value, tmp_path):
    file = tmp_path / "file.toml"
    file.write_text(f"port = {value}\n")
    with pytest.raises(NotTomlError):
        parsed_toml(file)
    for read in (read_plan, lambda path: read_settings(path, Settings, max_bytes=1 << 20, refusal=PlanInvalidError,
                                                       advice="see there")):  # fmt: skip
        with pytest.raises(FedwardError):
            read(file)


def test_long_work_says_a_line_now_and_then_where_no_terminal_shows_a_bar(capsys, monkeypatch):
    now = {"s": 0.0}
    console = Console(stderr=True, force_terminal=False)
    monkeypatch.setattr("common.terminal.errors", console)
    lines = NowAndThen(every_s=30.0, clock=lambda: now["s"])
    for second in range(100):
        now["s"] = float(second)
        lines.tell(f"at {second}")
    quiet = NowAndThen(quiet=True, every_s=0.0)
    quiet.tell("never")
    assert capsys.readouterr().err.split("\n")[:-1] == ["at 30", "at 60", "at 90"]
    monkeypatch.setattr("common.terminal.errors", Console(stderr=True, force_terminal=True))
    NowAndThen(every_s=0.0).tell("never")
    assert "never" not in capsys.readouterr().err
