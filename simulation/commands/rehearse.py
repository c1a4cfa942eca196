"""``fedward-sim rehearse``: a whole deployment on loopback, with real processes, TLS, keys and commands."""

from pathlib import Path
from typing import Annotated, Any, Final, Self

import typer
from rich.table import Table

from common.terminal import JsonOption, errors, output, print_json
from simulation.rehearsal.cast import LARGEST_CAST, LEAST_CAST
from simulation.rehearsal.performance import perform

KILL_ROUNDS: Final = 14  # enough that every kill meets a round


def rehearse(
    *,
    sites: Annotated[int, typer.Option(help="Number of hospitals.", min=LEAST_CAST, max=LARGEST_CAST)] = 3,
    rounds: Annotated[int, typer.Option(help="Training rounds; one more scores the model.", min=1, max=100)] = 2,
    kill: Annotated[
        bool, typer.Option("--kill", help="Kill -9 each process once, at random moments; takes minutes longer.")
    ] = False,
    width: Annotated[
        int,
        typer.Option(help="Width of a residual network to train (292: 25 M parameters); 0: a small one.", min=0),
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="New folder to keep it in; default: a temporary one.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Play a whole deployment on this machine: certificates, enrolment, plan, approval, rounds, model.

    Coordinator and hospitals are separate processes that speak TLS on loopback, set up by the commands that people type
    (docs/site-handbook.md, docs/coordinator-handbook.md). Nothing leaves this machine.

    Example: `fedward-sim rehearse --sites 3 --rounds 2 --out /tmp/rehearsal`
    """
    wanted = max(rounds, KILL_ROUNDS) if kill else rounds
    with errors.status("starting") if errors.is_terminal and not as_json else _Quiet(as_json=as_json) as status:

        def tell(number: int, of: int, words: str) -> None:
            status.update(f"{number} of {of}: {words}")

        result = perform(out, sites=sites, rounds=wanted, kills=kill, width=width, told=tell)
    print_json(result) if as_json else _show(result)


class _Quiet:
    """Where nobody watches: one line a step on standard error, or none."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def update(self, words: str) -> None:
        """Say a step."""
        if not self._as_json:
            errors.print(words, markup=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _show(result: dict[str, Any]) -> None:
    table = Table("step", "seconds", title="rehearsal", title_justify="left", box=None)
    for row in result["steps"]:
        table.add_row(row["step"], f"{row['seconds']:.1f}")
    output.print(table)
    output.print(
        f"{result['sites']} hospitals, {result['rounds']} rounds, half of them within "
        f"{result['overhead_s_per_round']:.2f} s (training on a few small pictures included)"
    )
    output.print(f"model SHA-256 {result['model_sha256']}", markup=False)
    for row in result["killed"]:
        output.print(f"killed the {row['victim']} while {row['during']} was out: went on within {row['recovered_s']} s")
    largest = max(result["peak_mb"].items(), key=lambda item: item[1], default=None)
    if largest:
        output.print(f"most memory: {largest[0]}, {largest[1]:.0f} MB")
    books = result["books"]
    output.print(
        f"books agree: {books['attempts']} attempts, {books['rounds']} rounds, {books['ledger_events']} ledger events"
    )
    if result["folder"]:
        output.print(f"everything lies in {result['folder']}", markup=False)
