from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

from client.ledger.budget import EntryKind
from server.model.sums import sum_name
from server.study.events import RunState
from simulation.report.reading import read_attempts
from simulation.runtime.faults import Fault, Trouble
from simulation.runtime.made_up_work import numbered_update

SITES = ("hospital-1", "hospital-2", "hospital-3", "hospital-4")
STAGES = ("order", "keylist", "forward", "survivors", "certificate", "result")


def check_sums(run):
    """Every opened sum is exactly the sum of its participants' vectors; returns participants by round."""
    journal = run.journal()
    ordered = {row.attempt: row for row in journal.attempts()}
    found = {}
    for row in journal.opened():
        body = load_file(run.folder.study.sums / sum_name(row.attempt))["body_sum"]
        order = ordered[row.attempt]
        asked = SimpleNamespace(
            phase=order.phase, round_number=order.round_number, attempt=order.attempt, body_length=len(body)
        )
        expected = sum(numbered_update(site, asked) for site in row.participants)
        assert np.array_equal(body, expected)
        found[order.round_number] = set(row.participants)
    return found


def check_ledgers(run):
    """Attempts whose sum holds a site's vector are SPENT in its ledger; the report charges no less than ledgers do."""
    attempts = read_attempts(run.plan, run.journal())
    for site in SITES:
        (study,) = run.spending(site)
        for attempt in attempts:
            if site in attempt.participants:
                assert study.attempts[attempt.number] is EntryKind.SPENT
        counted = {number for number, kind in study.attempts.items() if kind is EntryKind.SPENT}
        assert counted <= {attempt.number for attempt in attempts if site in attempt.charged}


@pytest.mark.parametrize("trouble", [Trouble.DROP, Trouble.DROP_AFTER, Trouble.GARBAGE])
def test_a_site_lost_at_any_stage_costs_the_others_nothing(bare_run, trouble):
    # Round k loses hospital-2 at stage k: one run shows all stages.
    faults = [
        Fault(trouble, sites=("hospital-2",), actions=(stage,), rounds=(number,))
        for number, stage in enumerate(STAGES, start=1)
    ]
    end = bare_run.run(faults)
    assert end.state is RunState.FINISHED
    participants = check_sums(bare_run)
    others = {"hospital-1", "hospital-3", "hospital-4"}
    # Lost before the masked vector has come: not in the sum. Lost later: its vector is in, and can be unmasked.
    assert [participants[number] for number in (1, 2, 3)] == [others] * 3
    assert [participants[number] for number in (4, 5, 6)] == [others | {"hospital-2"}] * 3
    check_ledgers(bare_run)
