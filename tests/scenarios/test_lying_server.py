import pytest

from client.installation.folder import SiteFolder
from client.installation.outbox import Outbox
from common.secagg.refusals import TABLE, Check
from common.secagg.stages import SITE_RECEIVES, Kind
from server.study.events import RunState
from simulation.errors import ScenarioInvalidError
from simulation.runtime.lying_server import LIES
from simulation.study.scenario_reading import parse_scenario

SITES = ("hospital-1", "hospital-2", "hospital-3", "hospital-4")


def lying(bare_run, lie, stops_after=1):
    """The same run with a coordinator that cheats; it stops after a few attempts."""
    document = bare_run.scenario.model_dump(mode="json")
    document["running"]["lie"] = lie
    bare_run.scenario = parse_scenario(document, "lying")
    return bare_run.run(should_stop=lambda: bare_run.journal().last_attempt() >= stops_after)


def left(bare_run, site):
    return Outbox(SiteFolder(bare_run.folder.site(site)).outbox).totals().messages


BEFORE_THE_SUM = [name for name, lie in LIES.items() if lie.kind is not Kind.RESULT]


def test_there_is_a_lie_for_every_message_that_a_server_sends():
    assert {lie.kind for lie in LIES.values()} == set(SITE_RECEIVES)


@pytest.mark.parametrize("lie", BEFORE_THE_SUM)
def test_no_site_opens_a_share_for_a_server_that_lies(bare_run, lie):
    assert lying(bare_run, lie).state is RunState.STOPPED
    assert bare_run.journal().opened() == []
    assert [row.attempt for row in bare_run.journal().aborts()] == [1]
    for site in SITES:
        assert left(bare_run, site)[Kind.UNMASK] == 0
    # Two lists cannot be seen by one site alone: there the signed answers do not fit together, and nothing goes on.
    refusals = sum(left(bare_run, site)[Kind.REFUSAL] for site in SITES)
    assert refusals >= 1 or LIES[lie].what.startswith("two lists")


def test_a_server_that_announces_another_model_is_left_alone_with_its_next_order(bare_run):
    lying(bare_run, "other_result", stops_after=2)
    assert [row.attempt for row in bare_run.journal().opened()] == [1]  # an honest sum, which is released
    assert [row.attempt for row in bare_run.journal().aborts()] == [2]
    refused = bare_run.journal().refusals()
    assert {row.site for row in refused if row.attempt == 2} == set(SITES)
    assert {row.code for row in refused} == {TABLE[Check.R0_RESULT].code}


def test_the_same_run_with_an_honest_server_opens_its_sum(bare_run):
    lying(bare_run, "")
    assert len(bare_run.journal().opened()) == 1
    assert all(left(bare_run, site)[Kind.UNMASK] == 1 for site in SITES)


def test_an_unknown_lie_is_named_with_those_there_are(bare_run):
    with pytest.raises(ScenarioInvalidError, match="lower_threshold"):
        lying(bare_run, "flattery")
