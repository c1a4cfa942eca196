"""confirm: one hospital at a time, after a call; what nobody confirmed counts as the coordinator's own."""

import math
import shutil

import pytest

from client.consent.approval import CheckedPlan, approved_plans, check_for_site
from client.consent.confirmation import confirmations, confirmed_sites, least_confirmed_in_study
from client.consent.errors import NotConfirmedError, PolicyRefusedError
from client.consent.open_studies import OpenStudies
from client.consent.policy import read_policy
from client.consent.session_policy import session_policy
from client.installation.audit_log import audit_links
from client.installation.errors import NotEnrolledError
from client.ledger.ledger import Ledger
from common.plan.errors import PlanInvalidError
from common.plan.guarantee import epsilon_if_real, guarantee
from common.plan.reading import read_plan
from common.plan.shapes_here import shapes_here
from common.trust.identity import fingerprint
from common.trust.roster import Roster, signed_roster


@pytest.fixture
def call(asked, north, roster):
    """Confirm a hospital under the fingerprint that it has in the roster, or another."""

    def confirm(name, *options, heard=None, by="Dr Rao"):
        heard = heard or (roster.fingerprints()[name] if name in roster.sites else "AAAA")
        return asked("confirm", name, "--fingerprint", heard, "--by", by, "--site-folder", north.path, *options)

    return confirm


@pytest.fixture
def alone(north, hospital):
    """A site whose scans were read and that called nobody."""
    north.secret.unlink()
    shutil.copy2(hospital.secret, north.secret)
    shutil.copytree(hospital.cache, north.cache)
    Ledger.create(north.ledger).close()
    return north


def test_a_confirmation_is_a_line_of_the_audit_log_with_name_fingerprint_and_person(call, north, roster):
    told = call("south")
    assert told == {
        "site": "south", "confirmed": True, "fingerprint": roster.fingerprints()["south"], "person": "Dr Rao",
    }  # fmt: skip
    entry = next(audit_links(north)).entry
    assert (entry["what"], entry["site"], entry["fingerprint"], entry["person"]) == (
        "confirmed", "south", roster.fingerprints()["south"], "Dr Rao",
    )  # fmt: skip
    assert confirmed_sites(north, roster, "north") == {"north", "south"}


def test_case_spaces_and_hyphens_of_what_was_heard_do_not_matter(call, north, roster):
    call("south", heard=roster.fingerprints()["south"].lower().replace("-", " "))
    assert set(confirmations(north, roster)) == {"south"}


@pytest.mark.parametrize(
    ("name", "changes", "refusal"),
    [
        ("south", {"heard": "AAAA-BBBB"}, NotConfirmedError),
        ("south", {"heard": " "}, NotConfirmedError),
        ("west", {"heard": "SOUTH'S"}, NotConfirmedError),
        ("north", {}, NotEnrolledError),
        ("nobody", {}, NotEnrolledError),
        ("south", {"by": " "}, PlanInvalidError),
        ("south", {"by": "Rao\u202e"}, PlanInvalidError),
        ("south", {"by": "x" * 101}, PlanInvalidError),
    ],
)
def test_what_is_not_a_confirmation_leaves_no_line(name, changes, refusal, call, north, roster):  # noqa: PLR0917
    if changes.get("heard") == "SOUTH'S":
        changes = {"heard": roster.fingerprints()["south"]}
    with pytest.raises(refusal) as refused:
        call(name, **changes)
    assert list(audit_links(north)) == []
    assert not any(text in str(refused.value) for text in roster.fingerprints().values()), "it is heard, not copied"


def test_without_a_fingerprint_and_a_terminal_there_is_nobody_to_ask(asked, north):
    with pytest.raises(NotConfirmedError, match="nobody to ask"):
        asked("confirm", "south", "--by", "Dr Rao", "--site-folder", north.path)


def test_a_confirmation_is_of_a_key_and_not_of_a_name(call, north, roster, coordinator_key, order_key):
    call("south")
    call("west")
    sites = roster.sites | {"south": order_key.public_key()}  # the next roster has another key for south
    newer = Roster(federation="lungs", epoch=2, coordinator=roster.coordinator, sites=sites)
    north.roster.write_bytes(signed_roster(newer, coordinator_key))
    assert set(confirmations(north, newer)) == {"west"}
    call("south", heard=fingerprint(order_key.public_key()))
    assert set(confirmations(north, newer)) == {"south", "west"}


def test_a_confirmation_is_taken_back_by_a_named_person(call, asked, north, roster):
    call("south")
    words = ("confirm", "south", "--withdraw", "--by", "Dr Kaya", "--site-folder", north.path)
    assert asked(*words) == {"site": "south", "confirmed": False, "person": "Dr Kaya"}
    assert confirmations(north, roster) == {}
    with pytest.raises(NotEnrolledError, match="not confirmed"):
        asked(*words)


def test_a_plan_is_not_approved_before_enough_hospitals_are_confirmed(call, asked, alone, plan_file):
    words = ("approve", plan_file, "--site-folder", alone.path, "--approver", "Dr Rao", "--yes")
    plan = read_plan(plan_file)
    needed = least_confirmed_in_study(read_policy(alone.policy), plan)
    for count, name in enumerate(("east", "south", "west"), start=1):
        if count < needed:
            with pytest.raises(NotConfirmedError, match=f"confirmed hospitals of this plan: {count} "):
                asked(*words)
            assert approved_plans(alone) == {}
        call(name)
    assert asked(*words)["approved"] is True


def test_approve_shows_who_is_not_confirmed_and_what_epsilon_is_if_they_are_not_real(
    call, asked, site_command, alone, plan_file
):
    plan = read_plan(plan_file)
    call("south")
    told = asked("approve", plan_file, "--site-folder", alone.path)["confirmed"]
    assert (told["count"], told["not_confirmed"], told["by"]) == (2, ["east", "west"], {"south": "Dr Rao"})
    assert told["epsilon_if_not_real"] == epsilon_if_real(plan, 2) > 1.2 * guarantee(plan).epsilon
    with pytest.raises(NotConfirmedError):
        site_command("approve", plan_file, "--site-folder", alone.path, "--approver", "Dr Rao", "--yes")


def test_epsilon_falls_to_what_the_plan_promises_when_all_are_confirmed(plan_file):
    plan = read_plan(plan_file)
    seen = [epsilon_if_real(plan, count) for count in (1, 2, 3, 4)]
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] == pytest.approx(max(guarantee(plan).labelled, guarantee(plan).unlabelled), rel=1e-3)
    assert math.isfinite(seen[0])
    assert seen[0] > seen[-1]


def opened(site, plan_file):
    """The plan as a site that works on it has it: checked, and its start weights built."""
    proposed = check_for_site(site, plan_file)
    shapes = shapes_here(proposed.plan)
    return CheckedPlan(proposed.plan, proposed.roster, proposed.site_id, proposed.guarantee, shapes, proposed.confirmed)


def test_the_rules_of_a_session_count_confirmed_hospitals_only(call, alone, plan_file):
    call("south")
    rules = session_policy(opened(alone, plan_file), read_policy(alone.policy))
    assert rules.confirmed == {"north", "south"}
    assert rules.least_confirmed == rules.minimum_survivors == 3


def test_a_running_site_notices_that_a_confirmation_was_taken_back(asked, stocked, plan_file):
    digest = bytes.fromhex(
        asked("approve", plan_file, "--site-folder", stocked.path, "--approver", "Dr Rao", "--yes")["digest"]
    )
    studies = OpenStudies(stocked)
    assert studies.current()[digest].rules.confirmed == {"east", "north", "south", "west"}
    asked("confirm", "south", "--withdraw", "--by", "Dr Rao", "--site-folder", stocked.path)
    assert studies.current()[digest].rules.confirmed == {"east", "north", "west"}


def test_a_policy_may_ask_for_fewer_but_not_for_so_few_that_two_updates_do_not_hide_each_other(alone, plan_file):
    alone.policy.write_text('format = "fedward-policy/1"\nminimum_confirmed = 3\n')
    rules = session_policy(opened(alone, plan_file), read_policy(alone.policy))
    assert rules.least_confirmed == 3
    alone.policy.write_text('format = "fedward-policy/1"\nminimum_confirmed = 3\nassumed_colluders = 2\n')
    with pytest.raises(PolicyRefusedError):
        check_for_site(alone, plan_file)
