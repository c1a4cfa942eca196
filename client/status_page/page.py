"""The hospital's page, from facts to HTML: for radiologists, IT and the data protection officer."""

import time
from collections import Counter
from typing import Any, Final

from client.consent.approval import CheckedPlan
from client.ledger.report import LedgerReport, StratumReport
from client.status_page.facts import SiteFacts
from common.control.site_control_pb2 import Connection, Step
from common.terminal import fedward_version
from common.web.charts import gauge, progress
from common.web.markup import Child, Markup, element, join
from common.web.shell import page, paragraph, pill, section, table, tiles
from common.web.words import amount, duration, moment, plural

SHORT_DIGEST: Final = 12
NONE: Final = "–"
STEPS: Final = {
    Step.STEP_WAITING: "no order has come yet",
    Step.STEP_GREETED: "said hello to the coordinator; waiting for an order",
    Step.STEP_TRAINING: "checking the order and training on this hospital's scans",
    Step.STEP_KEYED: "trained; sent fresh public keys",
    Step.STEP_SHARED: "sent sealed shares of this round's secrets",
    Step.STEP_MASKED: "sent the masked update: random numbers to everybody",
    Step.STEP_CONSISTENT: "signed which hospitals are in the sum",
    Step.STEP_UNMASKED: "helped to open the sum of all hospitals",
    Step.STEP_DONE: "round finished; waiting for the next order",
    Step.STEP_REFUSED: "refused a message of the coordinator",
    Step.STEP_REJECTED: "rejected a task before any work",
    Step.STEP_FAILED: "could not do a task; the agent's log says why",
    Step.STEP_PAUSED: "paused",
    Step.STEP_RESUMED: "resumed; waiting for an order",
    Step.STEP_MEASURING: "measuring: tries engines on made-up patients, before a study's first order",
    Step.STEP_MEASURED: "measured; waiting for an order",
}
CONNECTIONS: Final = {
    Connection.CONNECTION_UP: ("connected", "good"),
    Connection.CONNECTION_AWAY: ("no SuperNode", "bad"),
    Connection.CONNECTION_REFUSED: ("SuperNode of somebody else", "bad"),
    Connection.CONNECTION_UNSPECIFIED: ("connecting", "soft"),
}
KINDS: Final = {
    "hello": "this hospital's name and the digest of its software",
    "keys": "public keys for one round, signed",
    "shares": "sealed shares of the round's secrets, for the other hospitals",
    "masked": "the masked, noised update of one round",
    "consistent": "a signature: who is in the sum",
    "unmask": "shares that open the sum, and only the sum",
    "recorded": "a receipt",
    "refusal": "a signed refusal with a fixed code",
}
STRATA: Final = {
    "labelled": "with a label (trained on)",
    "unlabelled": "without a label (trained on)",
    "validation": "held out (model is scored on them)",
}


def site_page(facts: SiteFacts, *, form_token: str, message: str = "") -> str:
    """Return the whole page. ``form_token``: what its forms prove with; ``message``: the result of an action."""
    main = join(
        element("p", *_state(facts), class_="state"),
        paragraph(element("strong", message, role="status")) if message else None,
        _troubles(facts),
        _begun_again(facts),
        _tiles(facts),
        section("What this hospital is doing", _doing(facts), _pause(facts, form_token)),
        section("What patients have spent of their privacy", _ledger(facts)),
        section("What left this building", _outbox(facts)),
        section("Studies that your staff approved", _plans(facts)),
        section("Audit log", _audit(facts)),
        section(
            "Images",
            paragraph(element("a", "Look at every image", href="/sheet/1"), ", those most like text first."),
            paragraph(element("a", "The model here", href="/model"), ": outlines on slices, where a score was kept."),
        ),
    )
    top = join(element("p", "Fedward site", class_="kind"), element("h1", facts.name))
    footer = f"Fedward {fedward_version()}, {moment(time.time())}. This page is only on this machine."
    return page(f"{facts.name}: {_short_state(facts)[0]}", top=top, main=main, footer=footer)


def _short_state(facts: SiteFacts) -> tuple[str, str]:
    if facts.paused:
        return "paused", "warn"
    if facts.agent is None:
        return "agent not running", "bad"
    return CONNECTIONS.get(facts.agent.connection, CONNECTIONS[Connection.CONNECTION_UNSPECIFIED])


def _state(facts: SiteFacts) -> list[Child]:
    words = _step_words(facts) if facts.agent else "start it with `fedward-site up`"
    return [pill(*_short_state(facts)), " ", words]


def _troubles(facts: SiteFacts) -> Markup | None:
    sentences = (*facts.troubles, *facts.lost)
    if not sentences:
        return None
    items: list[Child] = [element("li", sentence) for sentence in sentences]
    return section("Needs attention", element("ul", items, class_="bad"))


def _begun_again(facts: SiteFacts) -> Markup | None:
    """For ever: which records are not the first ones of this hospital, by whose decision and why."""
    if not facts.begun_again:
        return None
    rows: list[list[Child]] = [[moment(each.time_s), each.file, each.person, each.reason] for each in facts.begun_again]
    return section("Records that began again", table(["when", "file", "decided by", "reason"], rows))


def _step_words(facts: SiteFacts) -> str:
    if facts.agent is None:
        return NONE
    last = facts.agent.last
    study = _study_name(facts, last.plan_digest)
    where = f"{study}, round {last.round_number}: " if last.round_number else f"{study}: " if study else ""
    code = f" (code {last.code})" if last.code else ""
    return f"{where}{STEPS.get(last.step, NONE)}{code} (for {duration(time.time() - last.time_s)})"


def _study_name(facts: SiteFacts, digest: str) -> str:
    known: dict[str, str] = {study.plan_digest: study.name for study in (facts.agent.studies if facts.agent else ())}
    known |= {approved: checked.plan.study.name for approved, checked in (facts.plans or {}).items()}
    return known.get(digest, digest[:SHORT_DIGEST])


def _tiles(facts: SiteFacts) -> Markup:
    ledger, entries = facts.ledger, facts.outbox.entries if facts.outbox else ()
    sent = sum(entry["message_bytes"] + entry["payload_bytes"] for entry in entries)
    spent = f"{ledger.epsilon:.2f} of {ledger.ceiling:g}" if ledger else "…"
    left = NONE if ledger is None or ledger.attempts_left is None else str(ledger.attempts_left)
    updates = sum(entry["kind"] == "masked" for entry in entries)
    since = duration(time.time() - facts.agent.started_at_s) if facts.agent else NONE
    return tiles(
        (spent, "ε: most any patient here has spent, of this hospital's ceiling"),
        (left, "more attempts like the last one fit under the ceiling"),
        (amount(sent), f"left this building, in {plural(len(entries), 'message')}"),
        (updates, "of these were masked updates, the only ones computed from scans"),
        (NONE if facts.plans is None else len(facts.plans), "studies approved by your staff"),
        (since, "the agent has been running"),
    )


def _doing(facts: SiteFacts) -> Markup:
    if facts.agent is None:
        return paragraph("The agent does not answer, so this hospital takes part in nothing.")
    last = facts.agent.last
    plan = (facts.plans or {}).get(last.plan_digest)
    words: list[Child] = [paragraph(_step_words(facts))]
    if plan and last.round_number:
        phase_rounds = sum(phase.rounds for phase in plan.plan.phases)
        label = f"round {last.round_number} of {phase_rounds}"
        if len(plan.plan.phases) == 1:
            words.append(progress(last.round_number - (last.step != Step.STEP_DONE), phase_rounds, label))
    handled = (
        f"{plural(facts.agent.tasks, 'task')} taken since the start, {facts.agent.rejected} rejected before any work"
    )
    words.append(paragraph(handled, small=True))
    return join(*words)


def _pause(facts: SiteFacts, form_token: str) -> Markup:
    """One button: pause, or resume. Both ask for a name, which goes into the audit log."""
    action, words, style = (
        ("resume", "Take part again", None) if facts.paused else ("pause", "Pause this hospital", None)
    )
    by = facts.paused_by() if facts.paused else None
    note = (
        f"Paused by {by[0]}, {moment(by[1])}: every order is refused until somebody resumes."
        if by
        else "A pause holds from the next message on. The round under way goes on without this hospital."
    )
    form = element(
        "form",
        element("input", type="hidden", name="form", value=form_token),
        element(
            "div",
            element("label", "Your name ", element("input", type="text", name="person", required=True, maxlength=100)),
            element("button", words, type="submit", class_=style),
            class_="row",
        ),
        method="post",
        action=f"/{action}",
    )
    return join(form, paragraph(note, " Your name is written into the audit log.", small=True))


def _ledger(facts: SiteFacts) -> Markup:
    if facts.ledger is None:
        has_trouble = any(trouble.startswith("privacy ledger") for trouble in facts.troubles)
        return paragraph("The ledger cannot be trusted: see above." if has_trouble else "Being added up …")
    ledger = facts.ledger
    if not ledger.strata:
        return paragraph(f"Nothing yet. This hospital's ceiling is ε = {ledger.ceiling:g} for each patient, ever.")
    rows = [_stratum_row(facts, ledger, stratum) for stratum in ledger.strata]
    outcomes = ", ".join(f"{count} {kind}" for kind, count in ledger.outcomes.items())
    label = f"{ledger.epsilon:.2f} of {ledger.ceiling:g}"
    return join(
        element(
            "p", gauge(ledger.epsilon, ledger.ceiling, label=label), f" the worst patient over all studies: {label}"
        ),
        table(["study", "patients", "attempts", "spent (ε)", "", "left (ε)"], rows, numbers=frozenset({2, 3, 5})),
        paragraph(
            "ε (epsilon) bounds how much anybody can learn of one patient from all that left: 0 is nothing, small is "
            "better. It is spent by each attempt, never comes back, and is counted before it is spent. Beyond the "
            f"ceiling in policy.toml this site refuses. Attempts: {outcomes}; reserved ones count as spent.",
            small=True,
        ),
    )


def _stratum_row(facts: SiteFacts, ledger: LedgerReport, stratum: StratumReport) -> list[Child]:
    plan = (facts.plans or {}).get(stratum.study)
    planned = plan.plan.privacy.epsilon if plan else None
    label = f"{stratum.epsilon:.2f} of {ledger.ceiling:g}"
    if planned:
        label += f"; the plan ends below {planned:g}"
    drawing = gauge(stratum.epsilon, ledger.ceiling, planned=planned, label=label)
    who = STRATA[stratum.stratum.value]
    name = _study_name(facts, stratum.study)
    return [name, who, stratum.attempts, f"{stratum.epsilon:.2f}", drawing, f"{stratum.remaining:.2f}"]


def _outbox(facts: SiteFacts) -> Markup:
    if facts.outbox is None:
        return paragraph("The record cannot be trusted, so this site sends nothing.")
    if not facts.outbox.entries:
        return paragraph("Nothing has left yet.")
    messages: Counter[str] = Counter(entry["kind"] for entry in facts.outbox.entries)
    sizes: Counter[str] = Counter()
    for entry in facts.outbox.entries:
        sizes[entry["kind"]] += _size(entry)
    rows: list[list[Child]] = [
        [kind, KINDS.get(kind, ""), messages[kind], amount(size)] for kind, size in sizes.most_common()
    ]
    last: list[list[Child]] = [
        [moment(entry["time"]), entry["kind"], _study_name(facts, entry["study"]) or NONE, amount(_size(entry))]
        for entry in facts.outbox.last(6)
    ]
    return join(
        table(["kind", "what it is", "messages", "bytes"], rows, numbers=frozenset({2, 3})),
        element("h3", "The last messages"),
        table(["when", "kind", "study", "bytes"], last, numbers=frozenset({3})),
        paragraph("Every message is in this record before it leaves. Head ", element("code", facts.outbox.head[:16]),
                  "…; `fedward-site outbox --verify` checks it offline.", small=True),
    )  # fmt: skip


def _size(entry: dict[str, Any]) -> int:
    return int(entry["message_bytes"]) + int(entry["payload_bytes"])


def _plans(facts: SiteFacts) -> Markup:
    if facts.plans is None:
        return paragraph("Being checked …")
    if not facts.plans:
        return paragraph("None: every order is refused. `fedward-site approve` shows a plan and what it asks.")
    rows = [_plan_row(facts, digest, checked) for digest, checked in facts.plans.items()]
    headings = ["study", "approved by", "rounds", "promise to a patient", "other hospitals", "digest"]
    return join(
        table(headings, rows, numbers=frozenset({2})),
        paragraph("To take an approval back: `fedward-site approve --withdraw DIGEST`.", small=True),
    )


def _plan_row(facts: SiteFacts, digest: str, checked: CheckedPlan) -> list[Child]:
    plan, by = checked.plan, facts.approved_by(digest)
    who = f"{by[0]}, {moment(by[1])}" if by else NONE
    others = ", ".join(site.name for site in plan.sites if site.name != checked.site_id)
    promise = f"ε ≤ {plan.privacy.epsilon:g}, δ = {plan.privacy.delta:g}" if plan.privacy.epsilon else "none"
    rounds = sum(phase.rounds for phase in plan.phases)
    return [plan.study.title, who, rounds, promise, others, element("code", digest[:SHORT_DIGEST])]


def _audit(facts: SiteFacts) -> Markup:
    if facts.audit is None:
        return paragraph("The log does not verify; `fedward-site audit --verify` says where. Keep the file as it is.")
    if not facts.audit.entries:
        return paragraph("Empty.")
    rows: list[list[Child]] = [
        [
            moment(entry.get("time")),
            str(entry.get("what", "")),
            str(entry.get("approver") or entry.get("person") or NONE),
            _study_name(facts, str(entry.get("plan", ""))) or NONE,
        ]
        for entry in facts.audit.last()
    ]
    return table(["when", "what", "who", "study"], rows)
