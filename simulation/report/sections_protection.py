"""The parts of the page about protection: what was asked, who took part, what was spent, what left, who was missing."""

from html import escape

from common.plan.privacy import NoisePlacement
from common.plan.summary import MODELS
from simulation.report.charts import Frame, Line, Point, attendance_chart, line_chart, reference_line
from simulation.report.encoder_words import encoder_rows
from simulation.report.facts import Attempt, Outcome, RunFacts
from simulation.report.figures import Figures, curve_attempts
from simulation.report.sections_observers import PLACEMENTS
from simulation.report.words import byte_figure, drawing, figure, legend, pairs, section, table

MOST_LOSSES = 200
STRATA = {"labelled": "federation", "unlabelled": "variant"}

KIND_WORDS = {
    "hello": "who is there (name, program version)",
    "keys": "fresh public keys, signed",
    "shares": "sealed key shares for the other hospitals",
    "masked": "the masked update",
    "consistent": "signature under the list of participants",
    "unmask": "key shares that open the sum, and only the sum",
    "recorded": "receipt",
    "refusal": "a refusal: one fixed code",
}

METHODS = {
    "supervised": "learns from diagnoses",
    "teacher_student": "the model so far proposes answers for scans without a diagnosis, sure ones count",
    "fixmatch": "sure answers for scans without a diagnosis count as diagnoses",
    "mean_teacher": "answers must not change when a scan is moved or dimmed",
    "reconstruction": "learns to fill in hidden parts, without any diagnosis",
    "standardise": "measures mean and spread of what the network sees, without any diagnosis",
    "ridge": "solves for the last layer at once: how features go together, and how they go with diagnoses",
}
PARTS = {
    "head": "only the last layer learns",
    "all": "the whole network learns",
    "feature_norm": "only scale and shift of the features change",
}


def asked(facts: RunFacts, numbers: Figures) -> str:
    """Say what the study asks, in the plan's words."""
    plan, task = facts.plan, facts.plan.task
    size, in_colour = " x ".join(map(str, plan.image.size_px)), ", in colour" if plan.image.channels == 3 else ""
    rows = [
        ("Question", escape(f"{task.kind.value.replace('_', ' ')}: {', '.join(task.classes)}")),
        ("Scans", f"{', '.join(m.value for m in task.modalities)}, {size} pixels{in_colour}"),
        ("Model", f"{escape(plan.network.name.replace('_', ' '))}, {_start(facts)}"),
        *encoder_rows(facts),
        *((f"Phase {number}", _phase(facts, number - 1)) for number in range(1, len(plan.phases) + 1)),
        ("Rounds", f"{figure(numbers, 'plan.rounds', '{:.0f}')} planned"),
        ("Promise to each patient", _promise(numbers)),
        ("Noise", f"{PLACEMENTS[plan.privacy.noise]}"),
        ("Result", _result(facts)),
        ("Plan", f"<code>{plan.digest()}</code>"),
    ]
    return section("asked", "What was asked", pairs(rows))


def _start(facts: RunFacts) -> str:
    if facts.plan.network.initialisation == "seeded":
        return "started from random weights"
    return "started from public weights, learnt from images that belong to nobody"


def _phase(facts: RunFacts, index: int) -> str:
    phase = facts.plan.phases[index]
    part = PARTS.get(phase.trainable.value, phase.trainable.value)
    strata = {"labelled": phase.labelled_sampling_rate, "unlabelled": phase.unlabelled_sampling_rate}
    who = " and ".join(stratum for stratum, rate in strata.items() if rate > 0) + " patients"
    method = METHODS.get(phase.method.value, phase.method.value)
    return f"{escape(phase.name)}: {phase.rounds} rounds, {who}, {part}; {escape(method)}"


def _promise(numbers: Figures) -> str:
    if "plan.epsilon" not in numbers:
        return "none: this run adds no noise and may only be done with public images"
    epsilon = figure(numbers, "plan.epsilon", "{:g}")
    delta = figure(numbers, "plan.delta", "{:.2g}")
    kept = figure(numbers, f"bought.{_worst(numbers)}")
    return f"epsilon at most {epsilon} at delta {delta}, for the patient with all scans; the noise buys {kept}"


def _result(facts: RunFacts) -> str:
    rules = facts.plan.aggregation
    stops = ""
    if rules.stop_after_scores:
        stops = f"; a phase ends early after {rules.stop_after_scores} noised scores in a row without a gain"
    return MODELS[rules.model_selection] + stops


def _worst(numbers: Figures) -> str:
    return max(("labelled", "unlabelled", "validation"), key=lambda stratum: numbers[f"bought.{stratum}"])


def hospitals(facts: RunFacts, numbers: Figures) -> str:
    """List the sites as the plan declares them, and how they took part."""
    rows = []
    for site in facts.plan.sites:
        known = facts.sites.get(site.name)
        if known is None:
            continue
        rows.append(
            [
                escape(site.name),
                f"<code>{escape(known.fingerprint)}</code>",
                f"{site.labelled_patients}",
                f"{site.unlabelled_patients}",
                figure(numbers, f"site.{site.name}.rounds", "{:.0f}"),
                figure(numbers, f"site.{site.name}.missed", "{:.0f}"),
                figure(numbers, f"site.{site.name}.refused", "{:.0f}"),
            ]
        )
    head = ["hospital", "fingerprint of its key", "labelled", "unlabelled", "in the sum", "missing", "refused"]
    words = "Patients as declared and rounded by each hospital when it joined. True counts never leave a hospital."
    return section("hospitals", "Who took part", table(head, rows, numeric_from=2), f'<p class="small">{words}</p>')


def spending(facts: RunFacts, numbers: Figures) -> str:
    """Show how the promise was used up, and by whom."""
    if "plan.epsilon" not in numbers:
        return section("privacy", "Privacy", "<p>This run promises nothing: no noise was added.</p>")
    lines = []
    for stratum, style in STRATA.items():
        keys = {number: f"spent_by.{number}.{stratum}" for number in curve_attempts(facts)}
        points = [Point(key, n, numbers[key], f"attempt {n}: epsilon {numbers[key]:.2f}") for n, key in keys.items()]
        if any(point.y > 0 for point in points):
            lines.append(Line(f"{stratum} patients", style, points))
    promise = numbers["plan.epsilon"]
    most = max([promise, *(point.y for line in lines for point in line.points)])
    frame = Frame((0, max([1, *curve_attempts(facts)])), (0, most * 1.12), width=820, height=260)
    chart = line_chart(
        frame,
        lines,
        x_title="attempt",
        y_title="epsilon spent",
        label="epsilon spent",
        extra=reference_line(frame, promise, f"promise: {promise:g}"),
    )
    head = ["hospital", "labelled patients", "unlabelled patients"]
    rows = [
        [escape(site), figure(numbers, f"spent.{site}.labelled"), figure(numbers, f"spent.{site}.unlabelled")]
        for site in facts.sites
    ]
    caption = (
        "The most that any hospital's patients have spent so far. The noise was chosen before the study so that the "
        "line cannot cross the promise. Held-out patients have a budget of their own: "
        f"{figure(numbers, 'bought.validation')}."
    )
    details = f"<details><summary>Epsilon of each hospital at the end</summary>{table(head, rows)}</details>"
    key = legend([(line.style, line.title) for line in lines])
    return section(
        "privacy",
        "What privacy was spent",
        drawing(chart, caption),
        key,
        details,
        _course(facts, numbers),
        _trust(facts, numbers),
    )


def _course(facts: RunFacts, numbers: Figures) -> str:
    """Return epsilon of each hospital and stratum along the attempts, where there are few enough to read."""
    columns = curve_attempts(facts)
    rows = [
        [
            escape(site),
            stratum,
            *(figure(numbers, f"spent_at.{site}.{number}.{stratum}", "{:.2f}") for number in columns),
        ]
        for site in facts.sites
        for stratum in STRATA
        if f"spent_at.{site}.{columns[0]}.{stratum}" in numbers
    ]
    if not rows:
        return ""
    shown = table(["hospital", "patients", *map(str, columns)], rows, numeric_from=2)
    return f"<details><summary>Epsilon of each hospital, attempt by attempt</summary>{shown}</details>"


def _trust(facts: RunFacts, numbers: Figures) -> str:
    least = figure(numbers, "plan.minimum_survivors", "{:.0f}")
    colluders = figure(numbers, "plan.colluders", "{:.0f}")
    if facts.plan.privacy.noise is NoisePlacement.LOCAL:
        return "<p>Each hospital adds all the noise itself, so this holds whatever anybody else does.</p>"
    return (
        f"<p>Each hospital adds its share of the noise. The promise holds towards everybody who sees what leaves, and "
        f"towards the coordinator together with up to {colluders} of the hospitals, because no sum of fewer than "
        f"{least} hospitals can be opened. It rests on the encryption holding.</p>"
    )


def leaving(facts: RunFacts, numbers: Figures) -> str:
    """Show what each hospital's outbox recorded, by kind."""
    kinds = [kind for kind in KIND_WORDS if any(kind in site.sent for site in facts.sites.values())]
    rows = []
    for site, known in facts.sites.items():
        cells = [byte_figure(numbers, f"sent.{site}.{kind}.bytes") if kind in known.sent else "" for kind in kinds]
        rows.append([escape(site), *cells, f"<b>{byte_figure(numbers, f'sent.{site}.bytes')}</b>"])
    words = pairs((kind, KIND_WORDS[kind]) for kind in kinds)
    counts = [
        [
            escape(site),
            *(
                figure(numbers, f"sent.{site}.{kind}.messages", "{:.0f}") if kind in known.sent else ""
                for kind in kinds
            ),
        ]
        for site, known in facts.sites.items()
    ]
    return section(
        "leaving",
        "What left each hospital",
        "<p>Nothing else can leave: each message passes one door with a list of allowed kinds and sizes, and is "
        "recorded there before it goes. A masked update is a list of numbers that look random to everybody; only the "
        "sum over all hospitals has a meaning. Scans, labels and file names never leave; counts only inside that "
        "list.</p>",
        table(["hospital", *kinds, "in all"], rows),
        f"<details><summary>What these kinds are</summary>{words}</details>",
        f"<details><summary>Number of messages</summary>{table(['hospital', *kinds], counts)}</details>",
    )


def attendance(facts: RunFacts, numbers: Figures) -> str:
    """Show who was in each sum, who was missing, who refused."""
    sites = list(facts.sites)
    numbers_of = [attempt.number for attempt in facts.attempts]
    if not numbers_of:
        return ""
    cells = [(site, attempt.number, *_presence(site, attempt)) for attempt in facts.attempts for site in sites]
    present = {style for _, _, style, _ in cells}
    words = {
        "in": "in the sum",
        "missing": "not asked",
        "lost": "lost on the way",
        "refused": "refused",
        "aborted": "attempt given up, nothing was learnt",
    }
    sentence = (
        f"<p>{figure(numbers, 'rounds.applied', '{:.0f}')} rounds were completed in "
        f"{figure(numbers, 'attempts', '{:.0f}')} attempts; {figure(numbers, 'attempts.aborted', '{:.0f}')} attempts "
        f"were given up. A hospital that is missing does not stop the others, and loses nothing.{_early(facts)}</p>"
    )
    reasons = [
        (f"attempt {attempt.number}", escape(attempt.reason))
        for attempt in facts.attempts
        if attempt.outcome is Outcome.ABORTED
    ]
    details = f"<details><summary>Why attempts were given up</summary>{pairs(reasons)}</details>" if reasons else ""
    details += _losses(facts)
    chart = attendance_chart(sites, numbers_of, cells, "who took part in each attempt")
    key = legend((style, text) for style, text in words.items() if style in present)
    return section("attendance", "Who was there, round by round", sentence, f"<figure>{chart}</figure>", key, details)


def _early(facts: RunFacts) -> str:
    """Say which phases ended before their planned rounds: a later round was ordered without them."""
    words = ""
    for index, phase in enumerate(facts.plan.phases):
        done = [a.round_number for a in facts.attempts if a.phase == index and a.outcome is Outcome.APPLIED]
        went_on = any(a.phase > index or (a.phase == index and a.round_number > phase.rounds) for a in facts.attempts)
        if went_on and len(done) < phase.rounds:
            words += (
                f" Phase {escape(phase.name)} ended after {len(done)} of {phase.rounds} rounds, because its scores no "
                "longer rose: the plan says so."
            )
    return words


def _losses(facts: RunFacts) -> str:
    """List who was lost at which stage and who refused why, one by one."""
    rows = []
    for attempt in facts.attempts:
        rows += [[f"{attempt.number}", escape(site), f"lost at {stage}"] for site, stage in attempt.absent.items()]
        rows += [[f"{attempt.number}", escape(site), f"refused: {why}"] for site, why in attempt.refused.items()]
    if not rows:
        return ""
    more = f'<p class="small">and {len(rows) - MOST_LOSSES} more</p>' if len(rows) > MOST_LOSSES else ""
    shown = table(["attempt", "hospital", "what happened"], rows[:MOST_LOSSES], numeric_from=3)
    return f"<details><summary>Dropouts and refusals, one by one</summary>{shown}{more}</details>"


def _presence(site: str, attempt: Attempt) -> tuple[str, str]:
    where = f"{site}, attempt {attempt.number}"
    if site in attempt.refused:
        return "refused", f"{where}: refused ({attempt.refused[site]})"
    if site in attempt.absent:
        return "lost", f"{where}: lost at {attempt.absent[site]}"
    if attempt.outcome is Outcome.ABORTED:
        return "aborted", f"{where}: given up ({attempt.reason})"
    return ("in", f"{where}: in the sum") if site in attempt.participants else ("missing", f"{where}: not asked")
