"""The page as a whole: head, key figures, sections, definitions. Self-contained: no script, no font, no address."""

from html import escape
from importlib.resources import files
from pathlib import Path

from common.files import replace_atomically
from simulation.report.facts import RunFacts
from simulation.report.figures import Figures, figures
from simulation.report.sections_learning import bought, final, growth
from simulation.report.sections_observers import observers
from simulation.report.sections_protection import asked, attendance, hospitals, leaving, spending
from simulation.report.sections_segmentation import outlines
from simulation.report.sections_summary import summary
from simulation.report.words import amount, duration, figure, section, terms

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
DEFINITIONS = (
    (
        "AUC",
        (
            "Chance that the model gives a randomly chosen ill patient a higher score than a healthy one. 0.5 is "
            "guessing, 1 is perfect."
        ),
    ),
    ("Sensitivity", "Share of the ill patients whom the model recognises."),
    ("Specificity", "Share of the healthy patients whom the model leaves in peace."),
    ("Dice", "Overlap of the model's outline with the expert's: 0 none, 1 the same."),
    (
        "HD95, surface Dice",
        (
            "How far the model's boundary lies from the expert's: of all places of both, 95 % lie within the HD95; "
            "the surface Dice is the share within a tolerance."
        ),
    ),
    (
        "Calibration",
        (
            "Whether the model is right as often as it claims: of the answers given with 80 % confidence, about "
            "80 % should be right."
        ),
    ),
    ("95 % interval", "The range in which the true value plausibly lies, given how many patients were looked at."),
    (
        "Epsilon",
        (
            "How much anybody's guess about one patient can improve at most by seeing everything that left the "
            "hospitals: odds change at most by a factor of e to the epsilon. Smaller is stricter."
        ),
    ),
    ("Delta", "The small chance that is allowed to lie outside that promise; below one over the number of patients."),
    (
        "Labelled, unlabelled",
        (
            "Patients with and without a diagnosis by an expert. Unlabelled scans teach too: the model "
            "so far proposes an answer, and only sure answers count."
        ),
    ),
    (
        "Masked update",
        (
            "What a hospital computed from its patients, hidden under random numbers that cancel out only in "
            "the sum over all hospitals."
        ),
    ),
    (
        "Round, attempt",
        (
            "A round improves the shared model once. If too many hospitals are missing it is given up and "
            "tried again: another attempt, counted and paid for."
        ),
    ),
)


def report_page(facts: RunFacts) -> str:
    """Return the report as one HTML text."""
    numbers = figures(facts)
    parts = [
        summary(facts, numbers),
        bought(facts, numbers),
        asked(facts, numbers),
        hospitals(facts, numbers),
        growth(facts, numbers),
        final(facts, numbers),
        outlines(facts, numbers),
        spending(facts, numbers),
        observers(facts, numbers),
        leaving(facts, numbers),
        attendance(facts, numbers),
        section("words", "Words", terms(DEFINITIONS)),
    ]
    title = escape(facts.plan.study.title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{title} - Fedward report</title><style>{_style()}</style></head><body><main>"
        f"{_head(facts, numbers, parts)}{''.join(parts)}{_foot(facts, numbers)}</main></body></html>\n"
    )


def write_report(facts: RunFacts, path: Path) -> None:
    """Write the report, replacing an older one at once. Raises: FileUnreadableError."""
    replace_atomically(path, report_page(facts).encode())


def _head(facts: RunFacts, numbers: Figures, parts: list[str]) -> str:
    kind = "Report of a simulated study" if facts.is_simulation else "Report of a study"
    return (
        f'<header><p class="kind">{kind}</p><h1>{escape(facts.plan.study.title)}</h1>'
        f'<p class="lead">{_lead(numbers)}</p>{_warning(facts)}'
        f'<div class="tiles">{_tiles(facts, numbers)}</div><nav>{_links(parts)}</nav></header>'
    )


def _lead(numbers: Figures) -> str:
    patients = f"{numbers['plan.patients']:,.0f}".replace(",", " ")
    sites = f"{numbers['plan.sites']:.0f} hospitals with {patients} patients"
    share = numbers["plan.labelled"] / max(numbers["plan.patients"], 1)
    labels = f"{100 * share:.0f} % of them with a diagnosis"
    return (
        f"{sites}, {labels}, trained one model together. The scans stayed where they were; only encrypted sums left "
        "each hospital."
    )


def _warning(facts: RunFacts) -> str:
    notes = []
    if not facts.is_finished:
        notes.append("The study is not finished: this is how far it came.")
    if facts.plan.privacy.delta is None:
        notes.append("This run adds no noise and promises no privacy: for public images only.")
    return f'<div class="banner">{" ".join(notes)}</div>' if notes else ""


def _tiles(facts: RunFacts, numbers: Figures) -> str:
    tiles = []
    if facts.test:
        between = f"95 % interval {figure(numbers, 'test.low')} to {figure(numbers, 'test.high')}"
        tiles.append(("main", figure(numbers, "test"), f"{facts.test.measure} on public test images<br>{between}"))
    if "plan.epsilon" in numbers:
        delta = figure(numbers, "plan.delta", "{:.2g}")
        tiles.append(
            ("", figure(numbers, "plan.epsilon", "{:g}"), f"epsilon promised to each patient<br>delta {delta}")
        )
    tiles.append(("", figure(numbers, "plan.sites", "{:.0f}"), "hospitals"))
    done, planned = figure(numbers, "rounds.applied", "{:.0f}"), figure(numbers, "plan.rounds", "{:.0f}")
    tiles.append(("", done, f"rounds, of {planned} planned<br>in {duration(facts.seconds)}"))
    most = max((numbers[f"sent.{site}.bytes"] for site in facts.sites), default=0.0)
    tiles.append(("", amount(most), "sent by a hospital at most,<br>all of it masked or protocol"))
    return "".join(f'<div class="tile {style}"><b>{value}</b><span>{text}</span></div>' for style, value, text in tiles)


def _links(parts: list[str]) -> str:
    links = []
    for part in filter(None, parts):
        anchor = part.split('id="', 1)[1].split('"', 1)[0]
        title = part.split("<h2>", 1)[1].split("</h2>", 1)[0]
        links.append(f'<a href="#{anchor}">{title}</a>')
    return "".join(links)


def _foot(facts: RunFacts, numbers: Figures) -> str:
    return (
        f"<footer>Fedward {escape(facts.version)}. Training and protocol took "
        f"{figure(numbers, 'seconds', '{:.0f}')} s. Every number of this page is recomputed from the study's journal "
        "and plan by a test. Results on generated images say nothing about medicine.</footer>"
    )


def _style() -> str:
    return (files("simulation.report") / "page.css").read_text(encoding="utf-8")
