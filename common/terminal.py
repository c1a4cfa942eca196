"""How our three commands talk: one sentence on failure, JSON where a script reads, no traceback unless asked.

``run`` is the only place of the project that turns an error into an exit status.
"""

import json
import sys
import time
import traceback
import unicodedata
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, NoReturn

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment

from common.commands import Commands, lazy_group
from common.errors import ExitCode, FedwardError, of_system

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


class _Terminal(Console):
    """A console that shows a question mark for each character that nobody sees, whatever part of a text it came in."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Return the segments of ``renderable``; control codes are the console's own alone."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


output = _Terminal(highlight=False, soft_wrap=True, emoji=False)
errors = _Terminal(stderr=True, highlight=False, soft_wrap=True, emoji=False)


class NowAndThen:
    """Lines on standard error about long work where nobody sees a bar (a file, a service's log): one in ``every_s``."""

    def __init__(
        self, *, quiet: bool = False, every_s: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._quiet, self._every_s, self._clock, self._last_s = quiet, every_s, clock, clock()

    def tell(self, text: str) -> None:
        """Print the line, unless it is too early, or a terminal shows a bar."""
        if self._quiet or errors.is_terminal or self._clock() - self._last_s < self._every_s:
            return
        self._last_s = self._clock()
        errors.print(text, markup=False)


def fedward_version() -> str:
    """Return the installed version, or ``0+source`` when run from a clone that was not installed."""
    try:
        return version("fedward")
    except PackageNotFoundError:
        return "0+source"


def new_application(name: str, help_text: str, commands: Commands) -> typer.Typer:
    """Make a typer application with ``--version`` and ``--debug``, whose ``commands`` are imported on use."""
    app = typer.Typer(
        cls=lazy_group(commands),
        name=name,
        help=help_text,
        no_args_is_help=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
        add_completion=False,
        suggest_commands=False,  # click does it since 8.5
    )

    def show_version(value: bool) -> None:
        if value:
            typer.echo(f"{name} {fedward_version()}")
            raise typer.Exit

    @app.callback()
    def options(
        _version: Annotated[
            bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and exit.")
        ] = False,
        _debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
    ) -> None:
        pass

    options.__doc__ = help_text
    return app


def print_json(value: object) -> None:
    """Print ``value`` as one JSON object on standard output, keys in the order given.

    Characters that nobody sees are written as JSON escapes them: for a script it is the same text.
    """
    text = json.dumps(value, ensure_ascii=False, indent=2)
    sys.stdout.write("".join(map(_escaped, text)) if visible(text) != text else text)
    sys.stdout.write("\n")


def _escaped(character: str) -> str:
    return character if visible(character) == character else json.dumps(character)[1:-1]


def run(app: Callable[[], object]) -> NoReturn:
    """Run a typer application and leave the process with a documented exit code.

    A ``FedwardError`` prints its sentence; anything else prints that a bug was met and how to see it. With ``--debug``
    (before the command) both also print the traceback. Exit codes: ``docs/exit-codes.md``.
    """
    try:
        app()
    except FedwardError as error:
        fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        fail("stopped by the keyboard; nothing that was already written is lost", 130)
    except Exception as error:  # noqa: BLE001 (the last net: a person never sees a traceback unasked)
        lacking = of_system(error)
        if lacking is not None:
            fail(str(lacking), lacking.exit_code)
        fail(f"unexpected {type(error).__name__}: this is a bug; run again with --debug first", ExitCode.INTERNAL)
    sys.exit(ExitCode.OK)


def fail(sentence: str, exit_code: int) -> NoReturn:
    """Print one sentence to standard error and exit; with ``--debug`` the traceback goes before it."""
    if "--debug" in sys.argv:
        traceback.print_exc()
    errors.print(f"[bold red]error[/]: {printable(sentence)}", markup=True)
    sys.exit(int(exit_code))


class _Printable(dict[int, str | int]):
    """A table for ``str.translate`` that is filled as characters come."""

    def __missing__(self, point: int) -> str | int:
        self[point] = found = "?" if unicodedata.category(chr(point)) in _UNSEEN else point
        return found


# A value quoted in a sentence may come from a file or a plan: no control, format or bidirectional character reaches the
# terminal (they hide text, or show it in another order), no line ends where the reader does not see it, no markup is
# read. Emoji codes are none to our consoles.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_SEEN = _Printable()


def printable(text: str) -> str:
    """Return foreign text for a console that reads markup: shown as it is, with a question mark for what nobody sees.

    Whatever stands before a bracket or at the text's end, no tag begins in it, and none after it is swallowed.
    """
    seen = text.translate(_SEEN)
    body = seen.rstrip("\\")
    # backslashes at the end are of the tag that follows, so one follows: an empty one
    return escape(body) + (("\\\\" * (len(seen) - len(body)) + "[bold][/bold]") if body != seen else "")


def visible(text: str) -> str:
    """Return the text with a question mark in the place of each character that nobody sees."""
    return text if text.isascii() and text.isprintable() else text.translate(_VISIBLE)


_VISIBLE = _Printable({ord(character): ord(character) for character in "\t\n"})
