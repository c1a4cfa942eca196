"""Who took part in which attempt, as a picture: one row a hospital, one column an attempt."""

from typing import Final

from common.web.charts import Cell, legend, matrix
from common.web.markup import Markup
from common.web.shell import paragraph, section
from server.status_page.facts import ATTEMPTS_SHOWN, StudyFacts
from server.study.history import AttemptRecord

_COLOURS: Final = (
    ("fill-good", "in the sum"),
    ("fill-warn", "asked, then dropped out"),
    ("fill-bad", "refused"),
    ("fill-soft", "asked, the attempt was given up"),
    ("fill-run", "under way"),
    ("fill-none", "not asked"),
)


def participation(study: StudyFacts) -> Markup | None:
    """Return the section; None before the first attempt."""
    records = study.attempts[-ATTEMPTS_SHOWN:]
    if not records:
        return None
    refused = {(a.attempt, a.site) for a in study.answers if a.outcome.startswith("refused")}
    rows = [
        (site.name, [_cell(record, site.name, refused, running=bool(study.running)) for record in records])
        for site in study.plan.sites
    ]
    columns = [str(record.ordered.attempt) for record in records]
    shown = f"the last {ATTEMPTS_SHOWN} attempts" if len(study.attempts) > ATTEMPTS_SHOWN else "attempts"
    return section(
        "Who took part",
        legend(_COLOURS),
        matrix(rows, columns, title=shown),
        paragraph(
            "An attempt is one try at a round; a round that failed is tried again under a new number.", small=True
        ),
    )


def _cell(record: AttemptRecord, site: str, refused: set[tuple[int, str]], *, running: bool) -> Cell:
    number = record.ordered.attempt
    if site not in record.ordered.cohort:
        colour = "fill-none"
    elif (number, site) in refused:
        colour = "fill-bad"
    elif record.opened:
        colour = "fill-good" if site in record.opened.participants else "fill-warn"
    elif record.abort or not running:
        colour = "fill-soft"
    else:
        colour = "fill-run"
    return Cell(colour, f"{site}, attempt {number}, round {record.ordered.round_number}: {dict(_COLOURS)[colour]}")
