"""The first thing on the page: what it comes to, once for a radiologist, once for a data protection officer."""

from html import escape

from simulation.report.facts import RunFacts
from simulation.report.figures import Figures
from simulation.report.words import amount, figure, section

Points = list[str]


def summary(facts: RunFacts, numbers: Figures) -> str:
    """Say in a few sentences what the model can do and what it cost the patients in privacy."""
    cards = [
        ("For the radiologist", _medical(facts, numbers)),
        ("For the data protection officer", _legal(facts, numbers)),
    ]
    shown = "".join(
        f'<div class="card"><h3>{title}</h3><ul>{"".join(f"<li>{point}</li>" for point in points)}</ul></div>'
        for title, points in cards
    )
    return section("summary", "In short", f'<div class="pair">{shown}</div>')


def _medical(facts: RunFacts, numbers: Figures) -> Points:
    points = []
    if facts.test:
        between = f"{figure(numbers, 'test.low')} to {figure(numbers, 'test.high')}"
        points.append(
            f"{facts.test.measure} {figure(numbers, 'test')} (95 % interval {between}) on "
            f"{figure(numbers, 'test.images', '{:.0f}')} public images that no hospital holds."
        )
        points += [_found(facts, numbers, name) for name in facts.test.shares]
    done, planned = figure(numbers, "rounds.applied", "{:.0f}"), figure(numbers, "plan.rounds", "{:.0f}")
    points.append(f"{done} of {planned} planned rounds were completed.")
    if facts.is_simulation:
        points.append("A simulated study: it says how the method works, nothing about a patient.")
    return points


def _found(facts: RunFacts, numbers: Figures, name: str) -> str:
    key, form = f"test.sensitivity.{name}", "{:.0%}"
    between = f"{figure(numbers, key + '.low', form)} to {figure(numbers, key + '.high', form)}"
    verb = "Leaves in peace" if name == facts.plan.task.classes[facts.plan.task.normal_index] else "Recognises"
    return f"{verb} {figure(numbers, key, form)} of the images of class <i>{escape(name)}</i> ({between})."


def _legal(facts: RunFacts, numbers: Figures) -> Points:
    most = max((numbers[f"sent.{site}.bytes"] for site in facts.sites), default=0.0)
    kinds = {kind for site in facts.sites.values() for kind in site.sent}
    points = [
        (
            "No scan, label or file name left a hospital. What it computed left only masked: random numbers to "
            "everybody, until those of all hospitals are added up."
        ),
        f"At most {amount(most)} left a hospital, in {len(kinds)} kinds of message, each on its own record first.",
    ]
    if "plan.epsilon" in numbers:
        spent = [name for name in numbers if name.startswith("spent.")]
        most_spent = max(spent, key=lambda name: numbers[name], default=None)
        so_far = f"; {figure(numbers, most_spent)} is spent" if most_spent else ""
        points.append(
            f"Promised to every patient: epsilon at most {figure(numbers, 'plan.epsilon', '{:g}')} at delta "
            f"{figure(numbers, 'plan.delta', '{:.2g}')}{so_far}."
        )
    else:
        points.append("No privacy was promised: no noise was added. Only public images may be used like this.")
    refused = sum(int(numbers[f"site.{site}.refused"]) for site in facts.sites)
    missed = sum(int(numbers[f"site.{site}.missed"]) for site in facts.sites)
    points.append(
        f"Each hospital approved plan <code>{facts.plan.digest()[:12]}</code> by name and could stop at any time: "
        f"{refused} refusals, {missed} absences, {figure(numbers, 'attempts.aborted', '{:.0f}')} attempts given up."
    )
    return points
