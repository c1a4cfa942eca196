"""A small picture of the ledger: epsilon against attempts, for each study and stratum, under the site's ceiling."""

from collections.abc import Sequence
from io import BytesIO

from matplotlib.figure import Figure

from client.ledger.budget import Spending, Stratum
from client.ledger.report import curve

COLOURS = ("#1f5c99", "#b35900", "#2d7d46")  # labelled, unlabelled, validation: apart for colour-blind eyes too
STYLES = ("-", "--", ":", "-.")


def chart(spending: Sequence[Spending], *, ceiling: float) -> bytes:
    """Return a PNG (6.4 by 3.6 inches). Studies differ by line style, strata by colour."""
    figure = Figure(figsize=(6.4, 3.6), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for number, study in enumerate(spending):
        for stratum, colour in zip(Stratum, COLOURS, strict=True):
            if not study.events.get(stratum):
                continue
            points = curve(study, stratum)
            label = f"{study.study[:8]} {stratum.value}"
            axes.plot(*zip(*points, strict=True), color=colour, linestyle=STYLES[number % len(STYLES)], label=label)
    axes.axhline(ceiling, color="#a01c1c", linewidth=1, label="ceiling of this site")
    axes.set_xlabel("attempts charged")
    axes.set_ylabel("epsilon spent in the study")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.grid(visible=True, alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    picture = BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()
