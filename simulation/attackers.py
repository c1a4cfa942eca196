"""Every attack on secure aggregation that a reviewer will try, played against the real halves of the protocol.

    python -m simulation.attackers            # a table
    python -m simulation.attackers --json     # {"cases": [...], "refused": n, "accepted": 0}

Exits 1 if any attack is accepted. ``released_shares`` counts the shares that honest sites opened to the attacker.
What is stopped, what is not, and which test shows it: ``docs/threat-model.md``.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.table import Table

from common.terminal import JsonOption, output, print_json, run
from simulation.attacks.arena import Attack, Outcome, play
from simulation.attacks.fakes import FAKES
from simulation.attacks.framing import FRAMING
from simulation.attacks.lists import LISTS
from simulation.attacks.network import NETWORK
from simulation.attacks.orders import ORDERS
from simulation.attacks.poisoning import POISONING
from simulation.attacks.sites import SITES
from simulation.attacks.two_truths import TWO_TRUTHS
from simulation.attacks.unmasking import UNMASKING
from simulation.attacks.whole_rounds import WHOLE_ROUNDS
from simulation.benchmarks.cpu_time import progress_for_people

ATTACKS: list[Attack] = [
    *ORDERS,
    *LISTS,
    *UNMASKING,
    *WHOLE_ROUNDS,
    *TWO_TRUTHS,
    *FAKES,
    *SITES,
    *POISONING,
    *FRAMING,
    *NETWORK,
]


def play_all(played: Callable[[], None] = lambda: None) -> list[Outcome]:
    """Play every attack; ``played`` is called after each."""
    outcomes = []
    with _quiet_halves():
        for attack in ATTACKS:
            outcomes.append(play(attack))
            played()
    return outcomes


@contextmanager
def _quiet_halves() -> Iterator[None]:
    # Both halves warn of each refusal; here hundreds are expected.
    log = logging.getLogger("fedward.secagg")
    before = log.disabled
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = before


def summary(outcomes: list[Outcome]) -> dict[str, object]:
    """Return what ``--json`` prints."""
    refused = sum(outcome.is_refused for outcome in outcomes)
    return {
        "cases": [outcome.to_json() for outcome in outcomes],
        "refused": refused,
        "accepted": len(outcomes) - refused,
    }


def print_table(outcomes: list[Outcome]) -> None:
    """Print each attack with the check that refused it."""
    table = Table("attack", "refused by", "shares released")
    for outcome in outcomes:
        verdict = str(outcome.check) if outcome.is_refused else "[bold red]accepted[/]"
        table.add_row(outcome.name, verdict, str(outcome.released_shares))
    output.print(table)
    refused = sum(outcome.is_refused for outcome in outcomes)
    output.print(f"{refused} refused, {len(outcomes) - refused} accepted")


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def attackers(*, json: JsonOption = False) -> None:
    """Attack secure aggregation in every way we know; exit 1 if anything is accepted."""
    with progress_for_people() as progress:
        task = progress.add_task("attacks", total=len(ATTACKS))

        def advance() -> None:
            progress.advance(task)
            progress.refresh()

        outcomes = play_all(advance)
    if json:
        print_json(summary(outcomes))
    else:
        print_table(outcomes)
    if not all(outcome.is_refused for outcome in outcomes):
        raise typer.Exit(1)


if __name__ == "__main__":
    run(app)
