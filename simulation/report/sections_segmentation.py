"""The part of the page about a segmentation: structures in the measures of the field, and outlines on slices."""

from base64 import b64encode

from simulation.report.facts import RunFacts
from simulation.report.figures import Figures
from simulation.report.words import figure, interval, section, table

COLUMNS = ("hd95_mm", "surface_dice", "volume_error_ml", "volume_bias_ml", "volume_error_share")
LESION_COLUMNS = ("lesion_sensitivity", "false_lesions_per_scan")


def outlines(facts: RunFacts, numbers: Figures) -> str:
    """Show each structure of the test images, the Dice that needs no scan beside it, and some slices with outlines."""
    score = facts.test
    if score is None or not score.structures:
        return ""
    atlas = "compared.atlas" if "compared.atlas" in numbers else ""
    words = (
        f"<p>Mean Dice {interval(numbers, 'test')}; "
        + (f"the mean label map, which looks at no scan, reaches {interval(numbers, atlas)}." if atlas else "")
        + "</p>"
    )
    return section("outlines", "Structures and outlines", words, _table(facts, numbers), _pictures(facts, numbers))


def _table(facts: RunFacts, numbers: Figures) -> str:
    assert facts.test is not None  # noqa: S101 (for the types)
    structures = facts.test.structures
    tolerance = next(iter(structures.values())).tolerance_mm
    lesions = any(found.false_lesions_per_scan is not None for found in structures.values())
    head = ["structure", "Dice", "HD95, mm", f"surface Dice at {tolerance:g} mm", "volume off, ml"]
    head += ["on average, ml", "share of volume", *(["lesions found", "false lesions a scan"] * lesions)]
    rows = []
    for name in structures:
        names = [f"test.structure.{name}.{key}" for key in (*COLUMNS, *(LESION_COLUMNS * lesions))]
        dice = figure(numbers, f"test.dice.{name}") if f"test.dice.{name}" in numbers else "-"
        rows.append([name, dice, *(figure(numbers, key) if key in numbers else "-" for key in names)])
    note = "<p class=small>HD95 only of images in which expert and model both drew the structure; in 2-D pixels.</p>"
    return table(head, rows) + note


def _pictures(facts: RunFacts, numbers: Figures) -> str:
    assert facts.test is not None  # noqa: S101 (for the types)
    shown = "".join(
        f'<figure class="slice"><img alt="slice with outlines" src="data:image/png;base64,'
        f'{b64encode(picture.png).decode()}"><figcaption>Dice {figure(numbers, f"test.picture.{place}")}</figcaption>'
        "</figure>"
        for place, picture in enumerate(facts.test.pictures)
    )
    note = "Test images from the worst to the best: the expert's outline is light blue, the model's orange."
    return f'<div class="slices">{shown}</div><p class="small">{note}</p>' if shown else ""
