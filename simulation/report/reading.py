"""From the files of a run to the facts of its report. The journal is only read; nothing here saw a site's update."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

import numpy as np

from client.installation.folder import SiteFolder
from client.installation.outbox import Outbox
from common.encoders.card import EncoderCard
from common.encoders.errors import EncoderInvalidError
from common.encoders.shelf import EncoderShelf
from common.plan.plan import StudyPlan
from common.plan.schedule import is_closing, is_evaluated, version_before
from common.privacy.metrics import UNITS_PER_PATIENT
from common.secagg.refusals import CHECK_OF_CODE
from common.terminal import fedward_version
from common.trust.identity import fingerprint
from common.trust.roster import read_roster
from server.model.evaluation import count_noise_stddev
from server.model.group_median import summed_counts
from server.study.folder import StudyFolder
from server.study.journal import Journal
from server.study.journal_rows import AbortRow, AnswerRow, AttemptRow, OpenedRow, RefusalRow
from simulation.report.facts import Attempt, Compared, Outcome, PublicScore, RunFacts, SentKind, SiteFacts

Row = TypeVar("Row", AnswerRow, RefusalRow)

TAKEN = "taken"
NOT_REACHED = frozenset({"failed:offline", "failed:push"})
CUT_OFF = "the server stopped before the sum was opened"


def read_attempts(plan: StudyPlan, journal: Journal) -> tuple[Attempt, ...]:
    """Return every attempt of the journal, in order."""
    opened = {row.attempt: row for row in journal.opened()}
    aborts = {row.attempt: row for row in journal.aborts()}
    groups = {row.attempt: row.applied for row in journal.medians()}
    applied = {row.attempt for row in journal.applied()} | set(groups)
    answers = _by_attempt(journal.answers())
    refusals = _by_attempt(journal.refusals())
    found = []
    for row in journal.attempts():
        attempt = _attempt(row, answers.get(row.attempt, ()), refusals.get(row.attempt, ()))
        if row.attempt in applied:
            others = [opened[each] for each, round_of in groups.items() if round_of == row.attempt]
            is_counted = groups.get(row.attempt, row.attempt) == row.attempt
            counted = (others or [opened[row.attempt]]) if is_counted else []
            attempt = _with_sum(plan, attempt, row, opened[row.attempt], counted)
        else:
            attempt = _given_up(attempt, row, aborts.get(row.attempt))
        found.append(attempt)
    return tuple(found)


def read_facts(
    folder: StudyFolder,
    plan: StudyPlan,
    site_folders: Mapping[str, SiteFolder],
    *,
    test: PublicScore | None = None,
    test_by_round: Mapping[int, PublicScore] | None = None,
    compared: tuple[Compared, ...] = (),
    seconds: float = 0.0,
    is_finished: bool = True,
) -> RunFacts:
    """Read journal, roster and outboxes. Raises: StudyFolderInvalidError, ChainBrokenError, and what files raise."""
    journal = Journal(folder.journal, bytes.fromhex(plan.digest()))
    try:
        attempts = read_attempts(plan, journal)
    finally:
        journal.close()
    keys = read_roster(folder.roster).sites
    sites = {
        site.name: SiteFacts(fingerprint(keys[site.name]), _sent(site_folders.get(site.name))) for site in plan.sites
    }
    return RunFacts(
        plan=plan,
        attempts=attempts,
        sites=sites,
        test=test,
        compared=compared,
        seconds=seconds,
        is_finished=is_finished,
        version=fedward_version(),
        test_by_round=tuple(sorted((test_by_round or {}).items())),
        encoder=_card(plan, site_folders),
    )


def _card(plan: StudyPlan, sites: Mapping[str, SiteFolder]) -> EncoderCard | None:
    """Return the card of the plan's public encoder, as the first site that has it here does; None without one."""
    named = plan.network.encoder
    if named is not None:
        for site in sites.values():
            with suppress(EncoderInvalidError):
                return EncoderShelf(site.encoders).named(card=named.card, file=named.file)
    return None


def _attempt(row: AttemptRow, answers: Iterable[AnswerRow], refusals: Iterable[RefusalRow]) -> Attempt:
    """Say who was asked, lost, charged and who refused.

    Charged: every site that was sent FORWARD, because SPENT is written before the masked vector leaves and the server
    cannot know more. Absent: the first stage in which a site's answer was not taken.
    """
    absent: dict[str, str] = {}
    charged = []
    for answer in answers:
        if answer.asked == "forward" and answer.outcome not in NOT_REACHED:
            charged.append(answer.site)
        if answer.outcome != TAKEN and answer.asked != "result":
            absent.setdefault(answer.site, answer.asked)
    refused = {refusal.site: str(CHECK_OF_CODE.get(refusal.code, refusal.code)) for refusal in refusals}
    return Attempt(
        number=row.attempt,
        phase=row.phase,
        round_number=row.round_number,
        outcome=Outcome.ABORTED,
        charged=tuple(charged),
        absent={site: stage for site, stage in absent.items() if site not in refused},
        refused=refused,
    )


def _with_sum(
    plan: StudyPlan, attempt: Attempt, row: AttemptRow, opened: OpenedRow, counted: Sequence[OpenedRow]
) -> Attempt:
    """Say who was in the sum, and what ``counted`` scored: all groups of a round together, at the last of them."""
    version = version_before(plan, row.phase, row.round_number)
    counts: tuple[float, ...] = ()
    sites = sum(len(each.participants) for each in counted)
    if counted and is_evaluated(plan, version):
        counts = tuple((summed_counts([each.meta for each in counted]).view(np.int64) / UNITS_PER_PATIENT).tolist())
    closing = is_closing(plan, row.phase, row.round_number)
    return replace(
        attempt,
        outcome=Outcome.EVALUATED if closing else Outcome.APPLIED,
        participants=opened.participants,
        seconds=opened.unix_s - row.unix_s,
        scored_round=version,
        counts=counts,
        counts_noise_stddev=count_noise_stddev(plan, sites) if counts else 0.0,
    )


def _given_up(attempt: Attempt, row: AttemptRow, abort: AbortRow | None) -> Attempt:
    if abort is None:
        return replace(attempt, reason=CUT_OFF)
    return replace(attempt, reason=abort.sentence, seconds=max(0.0, abort.unix_s - row.unix_s))


def _by_attempt(rows: Iterable[Row]) -> dict[int, list[Row]]:
    grouped: dict[int, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.attempt, []).append(row)
    return grouped


def _sent(folder: SiteFolder | None) -> dict[str, SentKind]:
    """Add up a site's outbox; empty where this machine does not have it (a real coordinator never does)."""
    if folder is None or not folder.outbox.exists():
        return {}
    totals = Outbox(folder.outbox).totals()
    return {kind: SentKind(totals.messages[kind], totals.bytes[kind]) for kind in sorted(totals.messages)}
