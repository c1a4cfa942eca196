"""The rounds of a study, from the public start to the final model; read ``run_round`` from top to bottom.

What this page may not do: see one site's vector (``server.secagg.session`` holds sums only), let one site stop the
others (each answer stands alone, ``server.attempts.exchange``), or number an attempt twice (``server.study.journal``).

Memory: the state's vectors lie on disk (``server.study.progress.stored_state``), so a stage holds at most two vectors
of the model's size: the model and its message, the sum and the vector that is being added, or the sum and the next
model. Where the plan draws groups, ``server.attempts.group_round`` makes these steps with all of them together.
"""

from common.secagg.refusals import RoundAbortedError
from common.secagg.stages import Kind
from server.attempts.group_round import run_group_round
from server.attempts.study_run import StudyRun
from server.model.blocks import Weights
from server.model.state import StateOf
from server.study.events import RunEnd, RunState
from server.study.progress import resume


def run_rounds(run: StudyRun) -> RunEnd:
    """Run every round that is left, and say how it ended; a later call goes on where this one stopped.

    Raises: what a damaged folder or disk raises; never for anything a site does.
    """
    state = resume(run.study, run.journal)
    make_round = run_group_round if run.study.plan.aggregation.takes_median else run_round
    while not state.finished:
        after = make_round(run, state)
        if isinstance(after, RunState):
            return run.end(after)
        state = after
    return run.end(RunState.FINISHED)


def run_round(run: StudyRun, state: StateOf[Weights]) -> StateOf[Weights] | RunState:
    """Make one attempt at the state's round; return the next state (the same if it was given up), or why to end.

    Training comes before keys on purpose: it takes minutes, the other stages seconds, so nearly every real dropout
    happens before any key exists and releases nothing.
    """
    timing = run.study.plan.timing
    # (1) Who takes part? (2) The attempt's number is on disk before anything leaves.
    attempt = run.open_attempt(state)
    if isinstance(attempt, RunState):
        return attempt
    session, vector_bytes = attempt.session, run.study.network.phases[state.phase].vector.payload_bytes
    try:
        # (3) Order and model go out; sites check, score the model, train, and answer with fresh KEYS.
        attempt.ask(Kind.ORDER, session.start(), timing.training_timeout_s)
        # (4) Everybody's keys go out; each site deals sealed SHARES of its two secrets.
        attempt.ask(Kind.KEYLIST, session.advance(), timing.stage_timeout_s)
        # (5) The shares go to whom they are for; each site sends its MASKED vector, which is added and dropped.
        attempt.ask(Kind.FORWARD, session.advance(), timing.stage_timeout_s, reply_bytes=vector_bytes)
        # (6) Who is in the sum; each site signs that it saw this list and no other.
        attempt.ask(Kind.SURVIVORS, session.advance(), timing.stage_timeout_s)
        # (7) Enough such signatures; each site opens one share of each dealer, chosen by the list.
        attempt.ask(Kind.CERTIFICATE, session.advance(), timing.stage_timeout_s)
        # (8) The masks of the sum are rebuilt and removed, and the sum is checked.
        opened = session.finish()
    except RoundAbortedError as aborted:
        run.give_up(attempt, aborted)
        return state
    # (9) Sum, mean, optimiser step, score, checkpoint: each durable before the row that names it.
    after = run.apply(attempt, opened, state)
    if after is None:
        return state
    # (10) Every site that helped to unmask learns what came of it: the next order must bring this very model.
    run.announce(attempt)
    run.close_attempt(attempt, opened)
    return after
