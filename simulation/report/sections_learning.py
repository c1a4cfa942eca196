"""The parts of the page about the model: what it bought, how it grew, how good the final one is."""

from html import escape

from simulation.report.charts import Frame, Line, Point, Row, interval_chart, line_chart, square_chart
from simulation.report.facts import Attempt, Role, RunFacts
from simulation.report.figures import (
    Figures,
    calibration_points,
    readable,
    roc_points,
    scored,
    scored_classes,
    tables_of,
)
from simulation.report.words import drawing, figure, interval, legend, pairs, section

STYLES = ("variant", "ceiling", "alone", "federation")
MOST_LINES = 3


def bought(facts: RunFacts, numbers: Figures) -> str:
    """Compare the federation with every other way to train, on the same test images."""
    if len(facts.compared) < 2 or facts.test is None:
        return ""
    rows = [Row(f"compared.{row.key}", row.label, row.role.value, row.estimate) for row in facts.compared]
    measure = facts.test.measure
    chart = interval_chart(rows, x_title=f"{measure} on the test images", label=f"{measure} of each way to train")
    caption = (
        f"Each dot is one trained model, judged on the same {figure(numbers, 'test.images', '{:.0f}')} test images "
        "that no hospital holds. The line through it is the 95 % interval. The shaded band is the federation's."
    )
    return section(
        "bought",
        "What working together bought",
        f"<p>{_verdict(facts)}</p>",
        drawing(chart, caption),
        legend(_roles(facts)),
        _notes(facts),
    )


def _verdict(facts: RunFacts) -> str:
    federation = facts.compared[0].estimate
    alone = [row for row in facts.compared if row.role is Role.ALONE]
    if not alone:
        return ""
    best = max(alone, key=lambda row: row.estimate.value)
    if federation.low > best.estimate.value:
        return (
            f"The shared model is better than every hospital alone: the lower end of its interval "
            f"({federation.low:.3f}) lies above the best single hospital ({best.estimate.value:.3f}, "
            f"{escape(best.label)})."
        )
    if federation.value > best.estimate.value:
        return (
            f"The shared model scores higher than every hospital alone, but the intervals overlap: the best single "
            f"hospital ({escape(best.label)}) reaches {best.estimate.value:.3f}."
        )
    return f"In this run the shared model is not better than the best single hospital ({escape(best.label)})."


def _roles(facts: RunFacts) -> list[tuple[str, str]]:
    words = {
        Role.FEDERATION: "all hospitals together, this run",
        Role.ALONE: "one hospital alone, the same privacy",
        Role.VARIANT: "all hospitals, one thing changed",
        Role.CEILING: "all scans in one place: not allowed in reality, shown as the ceiling",
    }
    present = {row.role for row in facts.compared}
    return [(role.value, text) for role, text in words.items() if role in present]


def _notes(facts: RunFacts) -> str:
    noted = [(row.label, escape(row.note)) for row in facts.compared if row.note]
    return f"<details><summary>How each model was trained</summary>{pairs(noted)}</details>" if noted else ""


def growth(facts: RunFacts, numbers: Figures) -> str:
    """Show the scores of each released model, from the hospitals' own held-out patients."""
    attempts = scored(facts) if readable(facts, numbers) else []
    lines = [_test_line(facts, numbers), *_test_dice_lines(facts, numbers)]
    lines += [*_area_lines(facts, numbers, attempts), *_dice_lines(facts, numbers, attempts)]
    lines = [line for line in lines if line.points]
    if not lines:
        return ""
    values = [bound for line in lines for point in line.points for bound in (point.interval or (point.y, point.y))]
    last = max(point.x for line in lines for point in line.points)
    frame = Frame((0, max(last, 1)), (max(0.0, min(values) - 0.05), 1.0), width=820)
    title = "Dice" if facts.plan.task.kind.value == "segmentation" else "AUC"
    parts = [
        drawing(
            line_chart(frame, lines, x_title="round", y_title=title, label=f"{title} by round"),
            f"On public test images the score is computed outside the study. {_held_out_words(facts, attempts)} Shaded "
            "bands are 95 % intervals.",
        ),
        legend([(line.style, line.title) for line in lines]),
    ]
    lines = _test_share_lines(facts, numbers) or _sensitivity_lines(facts, numbers, attempts)
    if lines:
        below = Frame((0, max(last, 1)), (0, 1), width=820, height=240)
        chart = line_chart(below, lines, x_title="round", y_title="share found", label="sensitivity by round")
        caption = (
            "Of each class, the share that the model answers correctly (sensitivity, and for normal: specificity). "
            "Shaded bands are 95 % intervals."
        )
        parts += [drawing(chart, caption), legend([(line.style, line.title) for line in lines])]
    return section("growth", "How the model grew", *parts)


def _held_out_words(facts: RunFacts, attempts: list[Attempt]) -> str:
    if attempts:
        return (
            "On patients whom the hospitals held back from training, the hospitals sent only sums of counts, with "
            "noise, inside the encrypted update: nobody sees one hospital's score."
        )
    if scored(facts):
        return (
            "The hospitals also scored the model on patients whom they held back, and sent sums of counts with noise; "
            "there are too few of these patients for the noise that protects them, so that score says nothing here and "
            "is not drawn."
        )
    return "No patient was held back for scoring in this study."


def _test_dice_lines(facts: RunFacts, numbers: Figures) -> list[Line]:
    lines = []
    for style, name in zip(STYLES, facts.plan.task.classes[1:][:MOST_LINES], strict=False):
        keys = {number: f"test_round.{number}.dice.{name}" for number, _ in facts.test_by_round}
        points = [_point(numbers, key, number) for number, key in keys.items() if key in numbers]
        lines.append(Line(f"Dice of {name}, public test images", style, points))
    return [line for line in lines if line.points]


def _test_share_lines(facts: RunFacts, numbers: Figures) -> list[Line]:
    lines = []
    for style, name in zip(("alone", "federation", "variant", "ceiling"), facts.plan.task.classes[:4], strict=False):
        keys = {number: f"test_round.{number}.sensitivity.{name}" for number, _ in facts.test_by_round}
        points = [_point(numbers, key, number) for number, key in keys.items() if key in numbers]
        lines.append(Line(f"{name} recognised, public test images", style, points))
    return [line for line in lines if line.points]


def _test_line(facts: RunFacts, numbers: Figures) -> Line:
    points = [_point(numbers, f"test_round.{number}", number) for number, _ in facts.test_by_round]
    return Line("public test images", "federation", points)


def _point(numbers: Figures, key: str, number: int) -> Point:
    """Return the point of a named number after a round, with its interval where it has one."""
    tip = f"after round {number}: {numbers[key]:.3f}"
    if f"{key}.low" not in numbers:
        return Point(key, number, numbers[key], tip)
    between = (numbers[f"{key}.low"], numbers[f"{key}.high"])
    return Point(key, number, numbers[key], f"{tip} ({between[0]:.3f} to {between[1]:.3f})", between)


def _area_lines(facts: RunFacts, numbers: Figures, attempts: list[Attempt]) -> list[Line]:
    if facts.plan.task.kind.value == "segmentation":
        return []
    lines = []
    for style, name in zip(STYLES, scored_classes(facts.plan)[:MOST_LINES], strict=False):
        keys = {attempt.scored_round: f"round.{attempt.scored_round}.auc.{name}" for attempt in attempts}
        points = [_point(numbers, key, number) for number, key in keys.items() if key in numbers]
        lines.append(Line(f"held-out patients, {name}", style, points))
    return lines


def _dice_lines(facts: RunFacts, numbers: Figures, attempts: list[Attempt]) -> list[Line]:
    return _plain_lines(facts.plan.task.classes[1:], "dice", "held-out patients, Dice of", numbers, attempts)


def _sensitivity_lines(facts: RunFacts, numbers: Figures, attempts: list[Attempt]) -> list[Line]:
    classes = facts.plan.task.classes
    lines = _plain_lines(classes, "sensitivity", "found among", numbers, attempts)
    return [line for line in lines if line.points]


def _plain_lines(
    names: tuple[str, ...], score: str, words: str, numbers: Figures, attempts: list[Attempt]
) -> list[Line]:
    lines = []
    for style, name in zip(STYLES, names[:MOST_LINES], strict=False):
        keys = {attempt.scored_round: f"round.{attempt.scored_round}.{score}.{name}" for attempt in attempts}
        points = [_point(numbers, key, number) for number, key in keys.items() if key in numbers]
        lines.append(Line(f"{words} {name}", style, points))
    return [line for line in lines if line.points]


def final(facts: RunFacts, numbers: Figures) -> str:
    """Show the last scored model in detail."""
    attempts = scored(facts) if readable(facts, numbers) else []
    rows = _final_rows(facts, numbers, held_out=bool(attempts))
    if not rows:
        return ""
    tables = tables_of(facts.plan, attempts[-1]) if attempts else {}
    charts = []
    held_out = roc_points(tables["histograms"][0]) if "histograms" in tables else []
    if held_out or (facts.test and facts.test.curve):
        charts.append(_roc(facts, held_out))
    calibration = calibration_points(tables["confidence"]) if "confidence" in tables else []
    if calibration or (facts.test and facts.test.calibration):
        charts.append(_calibration(facts, calibration))
    shown = f'<div class="pair">{"".join(charts)}</div>' if charts else ""
    return section("final", "The final model", pairs(rows), shown)


def _final_rows(facts: RunFacts, numbers: Figures, *, held_out: bool) -> list[tuple[str, str]]:
    rows = []
    if facts.test:
        rows.append((f"{facts.test.measure}, public test images", interval(numbers, "test")))
        rows += [
            (f"{_recognised(facts, name)}, public test images", interval(numbers, f"test.sensitivity.{name}"))
            for name in facts.test.shares
        ]
    if not held_out:
        return rows
    rows += [
        (f"AUC for {name}, held-out patients", interval(numbers, f"final.auc.{name}"))
        for name in facts.plan.task.classes
        if f"final.auc.{name}" in numbers
    ]
    for name in facts.plan.task.classes:
        if f"final.dice.{name}" in numbers:
            rows.append((f"Dice of {name}, held-out patients", figure(numbers, f"final.dice.{name}")))
        if f"final.sensitivity.{name}" in numbers:
            rows.append((f"{_recognised(facts, name)}, held-out", interval(numbers, f"final.sensitivity.{name}")))
    if "final.calibration_error" in numbers:
        rows.append(("Calibration error", figure(numbers, "final.calibration_error")))
    return rows


def _recognised(facts: RunFacts, name: str) -> str:
    task = facts.plan.task
    is_normal = len(task.classes) == 2 and name == task.classes[task.normal_index]
    return f"{'Specificity' if is_normal else 'Sensitivity'} ({name} recognised)"


def _roc(facts: RunFacts, held_out: list[tuple[float, float]]) -> str:
    title = f"ROC for {scored_classes(facts.plan)[0]}"
    public = list(facts.test.curve) if facts.test else []
    lines = [
        Line(title, style, [Point(f"{name}.{i}", x, y, f"{x:.3f} / {y:.3f}") for i, (x, y) in enumerate(points)])
        for name, style, points in (("roc", "variant", held_out), ("test_roc", "federation", public))
        if points
    ]
    chart = square_chart(lines, x_title="false alarms", y_title="sensitivity", label=title)
    caption = (
        "Each point is a threshold: how many ill patients are found, and how many healthy ones raise a false alarm."
    )
    return drawing(chart, caption + _sources(public=bool(public), held_out=bool(held_out)))


def _calibration(facts: RunFacts, held_out: list[tuple[float, float, float]]) -> str:
    public = list(facts.test.calibration) if facts.test else []
    lines, radii = [], []
    for prefix, style, points in (("calibration", "variant", held_out), ("test_calibration", "federation", public)):
        most = max((count for _, _, count in points), default=1.0)
        marks = [
            Point(f"{prefix}.{i}", x, y, f"says {x:.2f}, right in {y:.2f} of {count:.0f}")
            for i, (x, y, count) in enumerate(points)
        ]
        if marks:
            lines.append(Line("calibration", style, marks))
            radii.append([2 + 7 * (count / most) ** 0.5 for _, _, count in points])
    chart = square_chart(
        lines,
        x_title="how sure the model says it is",
        y_title="how often it is right",
        label="calibration",
        sizes=radii,
    )
    caption = "A model that knows what it knows lies on the dashed line. Larger dots stand for more images."
    return drawing(chart, caption + _sources(public=bool(public), held_out=bool(held_out)))


def _sources(*, public: bool, held_out: bool) -> str:
    rows = [("federation", "public test images")] * public + [("variant", "held-out patients, noised")] * held_out
    return legend(rows)
