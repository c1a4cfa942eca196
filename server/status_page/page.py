"""The page of one study, from facts to HTML: for the coordinator's staff, and for whoever of a hospital is shown it."""

import math
import time
from typing import Any, Final

from common.plan.plan import StudyPlan
from common.plan.task import TaskKind
from common.secagg.refusals import CHECK_OF_CODE, TABLE
from common.terminal import fedward_version
from common.web.charts import Measured, progress, score_chart
from common.web.markup import Child, Markup, element, join
from common.web.shell import facts, page, paragraph, pill, section, table, tiles
from common.web.words import ago, amount, duration, moment, plural
from server.status_page.facts import StudyFacts, UnreadableStudy
from server.status_page.participation import participation
from server.status_page.suspicions import suspicions
from server.status_page.waiting import waiting_words
from server.study.status import reason

STAGES: Final = {
    "order": "hospitals are training",
    "keylist": "hospitals are exchanging keys",
    "forward": "hospitals are sending masked updates",
    "survivors": "hospitals confirm who is in the sum",
    "certificate": "the sum is being unmasked",
    "result": "the new model is announced",
}
_NOBODY: Final = "–"


def overview(federation: str, studies: list[StudyFacts | UnreadableStudy], below: Child = None) -> str:
    """Return the page that lists all studies. ``below``: what stands under them."""
    rows: list[list[Child]] = []
    for study in studies:
        if isinstance(study, UnreadableStudy):
            rows.append([study.name, pill("cannot be read", "bad"), study.sentence, "", ""])
        else:
            name = study.study.folder.path.name
            status = study.status
            rounds = f"{status['rounds_applied']} of {status['rounds_planned']}"
            link = element("a", study.plan.study.title, href=f"/study/{name}")
            rows.append([link, state(study), doing(study), rounds, _score_words(study)])
    listed = table(["study", "state", "now", "rounds", _score_name(None)], rows)
    empty = paragraph("No study lies in this folder yet.")
    return page(
        "Fedward coordinator",
        top=_top(federation, "Studies"),
        main=join(section("Studies of this federation", listed if rows else empty), below),
        footer=_footer(),
    )


def study_page(federation: str, study: StudyFacts, epsilon: dict[str, float] | None, *, alone: bool) -> str:
    """Return the page of one study. ``epsilon``: towards each observer. ``alone``: there is no list to go back to."""
    status, plan = study.status, study.plan
    rounds = f"{status['rounds_applied']} of {plural(status['rounds_planned'], 'round')}"
    back = None if alone else element("nav", element("a", "All studies", href="/"))
    main = join(
        element("p", state(study), " ", doing(study), class_="state"),
        _tiles(study),
        section("Rounds", progress(status["rounds_applied"], status["rounds_planned"], rounds), _round_words(study)),
        section("How good the model is", _scores(study)),
        section("Hospitals", _sites(study)),
        participation(study),
        suspicions(study),
        section("Attempts that were given up", _aborted(study)),
        section("What the coordinator can and cannot see", _privacy(plan, epsilon)),
        section("The signed plan", _plan(plan)),
    )
    top = join(_top(federation, plan.study.title), back)
    return page(f"{rounds} · {plan.study.title}", top=top, main=main, footer=_footer())


def state(study: StudyFacts) -> Markup:
    """Return the study's state in one word or two."""
    if study.is_finished:
        return pill("finished", "good")
    if study.running:
        waits = study.waiting is not None
        return pill("waiting for hospitals", "warn") if waits else pill("running", "main")
    if study.wanted:
        return pill("starting", "warn")
    if study.running is None:
        return pill("unknown", "soft")
    return pill("not started" if study.status["state"] == "not started" else "stopped", "soft")


def doing(study: StudyFacts) -> str:
    """Return what happens at the moment, as a sentence without its full stop."""
    live, status = study.live, study.status
    if study.is_finished:
        return "every round was applied; `fedward-server export` writes it"
    if study.waiting and study.waiting["for"] and not study.waiting["for"][0]["site"]:
        return str(study.waiting["for"][0]["sentence"])  # of this machine
    if not study.running:
        ended = study.ending.sentence if study.ending else live.sentence if live else ""
        return ended or ("it starts as soon as `up` runs" if study.wanted else "nothing runs")
    if live is None:
        return "the server has started"
    if live.doing in {"waiting", "pausing"}:
        return waiting_words(live)
    where = f"phase {status['phase']}, round {status['round_number']}, attempt {live.attempt}"
    stage = STAGES.get(live.asked, "between two stages")
    answered = f" ({len(live.outcomes)} of {len(live.sites)} have answered)" if live.asked else ""
    return f"{where}: {stage}{answered}"


def _top(federation: str, title: str) -> Markup:
    return join(element("p", f"Fedward coordinator · federation {federation}", class_="kind"), element("h1", title))


def _footer() -> str:
    return (
        f"Fedward {fedward_version()}, {moment(time.time())}. Read from plan and journal; nothing can be changed here."
    )


def _tiles(study: StudyFacts) -> Markup:
    status, plan = study.status, study.plan
    left = study.seconds_left()
    knows = study.running or study.connected is not None
    online = f"{len(study.sites_online())} of {len(plan.sites)}" if knows else _NOBODY
    promise = f"ε ≤ {plan.privacy.epsilon:g}" if plan.privacy.epsilon is not None else "none"
    return tiles(
        (f"{status['rounds_applied']} of {status['rounds_planned']}", "rounds applied, the closing one included"),
        (online, "hospitals are there now"),
        _score_tile(study),
        (promise, "promised to each patient, whole study"),
        (duration(left) if left is not None else _NOBODY, "left, judged by the last rounds"),
        (f"{status['attempts']} of {status['attempts_allowed']}", "attempts used; each may cost privacy"),
    )


def _round_words(study: StudyFacts) -> Markup:
    status = study.status
    if status["started_unix_s"] is None:
        return paragraph("This study was never started.")
    started, last = moment(status["started_unix_s"]), moment(status["last_unix_s"])
    return paragraph(f"Started {started}; the last attempt began {last}.", small=True)


def _score_name(plan: StudyPlan | None) -> str:
    if plan is None:
        return "score"
    return "mean Dice" if plan.task.kind is TaskKind.SEGMENTATION else "AUC"


def _score_words(study: StudyFacts) -> str:
    known = [score for score in study.status["scores"].values() if score["score"] is not None]
    if not known:
        return _NOBODY
    low, high = known[-1]["interval"]
    return f"{known[-1]['score']:.3f} ({low:.2f}–{high:.2f})"


def _score_tile(study: StudyFacts) -> tuple[Child, Child]:
    value, _, interval = _score_words(study).partition(" ")
    what = f"{_score_name(study.plan)} of the last scored model"
    return value, f"{what}; 95 % interval {interval.strip('()')}" if interval else what


def _scores(study: StudyFacts) -> Markup:
    name = _score_name(study.plan)
    points = [
        Measured(
            int(version), score["score"], score["interval"][0], score["interval"][1], _tip(name, int(version), score)
        )
        for version, score in study.status["scores"].items()
        if score["score"] is not None
    ]
    void = [score["void"] for score in study.status["scores"].values() if score["void"]]
    if not points and void:
        return paragraph(f"The last score is {void[-1]}.")
    if not points:
        reason_ = "no model has been scored yet" if study.plan.evaluation.held_out else "the plan asks for no scores"
        return paragraph(f"Nothing to show: {reason_}.")
    hint = 0.5 if name == "AUC" else None
    most = study.status["rounds_planned"]
    words = "The dotted line is guessing. " if hint else ""
    return join(
        score_chart(points, x_most=most, x_title="rounds the model has been trained for", y_title=name, hint=hint),
        paragraph(
            f"{name} on the held-out patients of all hospitals together, from noised sums of counts: no score of one "
            f"hospital exists here. The band is the 95 % interval, privacy noise included. {words}",
            small=True,
        ),
        _score_table(name, study),
    )


def _tip(name: str, version: int, score: dict[str, Any]) -> str:
    low, high = score["interval"]
    return f"after {plural(version, 'round')}: {name} {score['score']:.3f} ({low:.3f} to {high:.3f})"


def _score_table(name: str, study: StudyFacts) -> Markup:
    rows: list[list[Child]] = []
    for version, score in list(study.status["scores"].items())[-5:]:
        low, high = score["interval"]
        known = score["score"] is not None
        shown = [f"{score['score']:.3f}", f"{low:.3f} – {high:.3f}"] if known else [_NOBODY, score["void"] or _NOBODY]
        rows.append([version, *shown, _share(score["specificity"]), _share(score["calibration_error"])])
    headings = ["after rounds", name, "95 % interval", "specificity", "calibration error"]
    return table(headings, rows, numbers=frozenset({1, 2, 3, 4}))


def _share(value: float | None) -> str:
    return _NOBODY if value is None or math.isnan(value) else f"{value:.3f}"


def _sites(study: StudyFacts) -> Markup:
    online, heard = study.sites_online(), study.last_heard_unix_s()
    rows: list[list[Child]] = []
    for name, site in study.status["sites"].items():
        now: Child = pill("there", "good") if name in online else pill("away", "warn")
        if not study.running and study.connected is None:
            now = element("span", _NOBODY, class_="soft")
        numbers: list[Child] = [site[key] for key in ("in_cohort", "in_sum", "dropped_out", "timeouts")]
        refused = "; ".join(f"{_refusal(why)} ({count})" for why, count in site["refused"].items())
        received = amount(site["bytes_from_site"])
        rows.append([name, now, ago(heard.get(name)), *numbers, received, refused or _NOBODY])
    headings = [
        "hospital",
        "now",
        "last answer",
        "asked",
        "in the sum",
        "dropped out",
        "too late",
        "received",
        "refused",
    ]
    return join(
        table(headings, rows, numbers=frozenset({3, 4, 5, 6, 7})),
        paragraph("Numbers count attempts. A refusal is a hospital's right, and is signed by it.", small=True),
    )


def _refusal(why: str) -> str:
    rows = {str(check): TABLE[check].stops for check in CHECK_OF_CODE.values()}
    return f"{why}: {rows[why]}" if why in rows else why


def _aborted(study: StudyFacts) -> Markup:
    rows: list[list[Child]] = [
        [record.abort.attempt, moment(record.abort.unix_s), reason(record.abort.code), record.abort.sentence,
         ", ".join(record.abort.suspects) or _NOBODY]
        for record in study.attempts[::-1]
        if record.abort
    ]  # fmt: skip
    if not rows:
        return paragraph("None.")
    shown = table(["attempt", "when", "check", "what happened", "names"], rows[:20])
    more = paragraph(f"and {len(rows) - 20} earlier ones", small=True) if len(rows) > 20 else None
    return join(shown, more)


def _privacy(plan: StudyPlan, epsilon: dict[str, float] | None) -> Markup:
    rules = plan.secure_aggregation
    words = paragraph(
        "Scans, labels and patients' names stay in the hospitals. Each hospital sends one vector a round, which is "
        f"random numbers to everybody until the vectors of at least {rules.minimum_survivors} hospitals are added. "
        "The coordinator sees that sum, with noise that hides any one patient, and the facts on this page: who took "
        "part, when, and how many bytes."
    )
    if epsilon is None:
        return join(words, paragraph("This plan adds no noise: it promises nothing to a patient."))
    names = {
        "guarantee": f"coordinator, together with up to {plural(rules.assumed_colluders, 'hospital')}",
        "outsider": "somebody who sees only the models",
        "hospital": "another hospital of the study, alone",
        "hospital_with_colluders": "another hospital that works with the coordinator",
        "all_others": "coordinator, if every other hospital belonged to it",
    }
    rows: list[list[Child]] = [
        [who, f"{epsilon[name]:.2f}" if math.isfinite(epsilon[name]) else "no bound"] for name, who in names.items()
    ]
    return join(words, table(["who looks", f"most ε about one patient (δ = {plan.privacy.delta:g})"], rows))


def _plan(plan: StudyPlan) -> Markup:
    rules, size = plan.secure_aggregation, " × ".join(str(side) for side in plan.image.size_px)
    in_colour = ", in colour" if plan.image.channels == 3 else ""
    groups = f", in random groups of at most {rules.cohort_size}" if plan.aggregation.takes_median else ""
    return facts(
        {
            "digest": element("code", plan.digest()),
            "task": f"{plan.task.kind.value}: {', '.join(plan.task.classes)}",
            "images": f"{', '.join(modality.value for modality in plan.task.modalities)}, {size} pixels{in_colour}",
            "network": plan.network.name,
            "phases": "; ".join(f"{phase.name}: {plural(phase.rounds, 'round')}" for phase in plan.phases),
            "noise": plan.privacy.noise.value,
            "hospitals in a round": f"up to {plan.round_size}{groups}; a sum needs {rules.minimum_survivors}",
            "assumed colluding": plural(rules.assumed_colluders, "hospital"),
        }
    )
