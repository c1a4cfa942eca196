"""Approval: a site works only on plans that its staff approved, and that still pass everything it checks."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.consent.approval import approve, approved_plans, check_for_site, withdraw_approval
from client.consent.errors import PolicyInvalidError, PolicyRefusedError
from client.consent.open_studies import OpenStudies
from client.installation.errors import NotEnrolledError
from common.plan.errors import PlanBadSignatureError, PlanInvalidError
from common.plan.reading import read_plan
from common.plan.signing import sign_plan, signature_path
from common.trust.errors import ChainBrokenError
from common.trust.hash_chain import HashChain
from common.trust.identity import create_signing_key
from common.trust.roster import Roster, signed_roster


def policy(folder, text):
    folder.policy.write_text('format = "fedward-policy/1"\n' + text)


def test_an_approved_plan_is_kept_under_its_digest_with_its_signature(north, signed_plan):
    checked = approve(north, signed_plan, approver="Dr A. Meyer")
    assert checked.site_id == "north"
    assert list(approved_plans(north)) == [checked.plan.digest()]
    assert signature_path(north.plan(checked.plan.digest())).exists()


def test_the_audit_log_names_who_approved_what(north, signed_plan):
    digest = approve(north, signed_plan, approver="Dr A. Meyer").plan.digest()
    withdraw_approval(north, digest, approver="Dr B. Kaya")
    entries = [link.entry for link in HashChain(north.audit, "audit").links()]
    assert [(e["what"], e["approver"], e["plan"]) for e in entries] == [
        ("approved", "Dr A. Meyer", digest),
        ("withdrawn", "Dr B. Kaya", digest),
    ]


def test_a_withdrawn_plan_is_gone_even_if_its_files_are_put_back(north, signed_plan):
    digest = approve(north, signed_plan, approver="Dr A. Meyer").plan.digest()
    content, signature = north.plan(digest).read_bytes(), signature_path(north.plan(digest)).read_bytes()
    withdraw_approval(north, digest, approver="Dr A. Meyer")
    north.plan(digest).parent.mkdir()
    north.plan(digest).write_bytes(content)
    signature_path(north.plan(digest)).write_bytes(signature)
    assert approved_plans(north) == {}


@pytest.mark.parametrize("digest", ["..", ".", "", "00" * 32, "../plans"])
def test_what_is_not_approved_cannot_be_withdrawn_and_nothing_is_deleted(digest, north, signed_plan):
    approved = approve(north, signed_plan, approver="Dr A. Meyer").plan.digest()
    before = sorted(north.path.rglob("*"))
    with pytest.raises(NotEnrolledError, match="no such plan"):
        withdraw_approval(north, digest, approver="Dr A. Meyer")
    assert sorted(north.path.rglob("*")) == before
    assert list(approved_plans(north)) == [approved]


def test_files_put_into_the_folder_without_approval_are_no_approval(north, signed_plan):
    digest = read_plan(signed_plan).digest()
    north.plan(digest).parent.mkdir(parents=True)
    north.plan(digest).write_bytes(signed_plan.read_bytes())
    signature_path(north.plan(digest)).write_bytes(signature_path(signed_plan).read_bytes())
    assert approved_plans(north) == {}


def test_a_plan_changed_after_approval_is_left_out(north, signed_plan):
    digest = approve(north, signed_plan, approver="Dr A. Meyer").plan.digest()
    file = north.plan(digest)
    file.write_text(file.read_text().replace("every_rounds = 10", "every_rounds = 5"))
    assert approved_plans(north) == {}


def test_another_signed_plan_in_the_place_of_an_approved_one_is_left_out(north, signed_plan, coordinator_key, tmp_path):
    digest = approve(north, signed_plan, approver="Dr A. Meyer").plan.digest()
    other = tmp_path / "other.toml"
    other.write_text(signed_plan.read_text().replace("every_rounds = 10", "every_rounds = 5"))
    sign_plan(read_plan(other), other, coordinator_key)
    assert check_for_site(north, other).plan.digest() != digest
    north.plan(digest).write_bytes(other.read_bytes())
    signature_path(north.plan(digest)).write_bytes(signature_path(other).read_bytes())
    assert approved_plans(north) == {}


STRICTER = {
    "a lower epsilon": "maximum_epsilon = 2.0",
    "a lower delta": "maximum_delta = 1e-9",
    "a larger cohort": "minimum_cohort = 5",
    "more survivors": "minimum_survivors = 4",
    "more colluders": "assumed_colluders = 2",
    "fewer rounds": "maximum_rounds = 10",
}


@pytest.mark.parametrize("case", STRICTER)
def test_a_plan_looser_than_the_policy_is_refused_with_rule_value_and_limit(case, north, signed_plan):
    policy(north, STRICTER[case])
    with pytest.raises(PolicyRefusedError, match=r"policy rule \d: .* (limit|least) is"):
        approve(north, signed_plan, approver="Dr A. Meyer")
    assert not north.audit.exists()


@pytest.mark.parametrize("case", STRICTER)
def test_a_policy_tightened_later_stops_a_study_that_was_approved(case, north, signed_plan):
    approve(north, signed_plan, approver="Dr A. Meyer")
    policy(north, STRICTER[case])
    assert approved_plans(north) == {}


BAD_POLICIES = {
    "an unknown key": "epsilon_celing = 8.0",
    "a value as text": 'maximum_epsilon = "8"',
    "a negative ceiling": "epsilon_ceiling = -1.0",
    "no number": "epsilon_ceiling = nan",
    "two sites are enough": "minimum_cohort = 2",
}


@pytest.mark.parametrize("case", BAD_POLICIES)
def test_a_policy_that_is_half_understood_stops_everything(case, north, signed_plan):
    policy(north, BAD_POLICIES[case])
    with pytest.raises(PolicyInvalidError, match="nothing runs until it is right"):
        approve(north, signed_plan, approver="Dr A. Meyer")


def test_a_missing_policy_stops_everything(north, signed_plan):
    north.policy.unlink()
    with pytest.raises(NotEnrolledError, match=r"no policy\.toml here"):
        approve(north, signed_plan, approver="Dr A. Meyer")


def test_a_plan_without_privacy_needs_an_explicit_word(north, plan_text, coordinator_key, tmp_path):
    text = plan_text.replace('noise = "distributed"', 'noise = "none"')
    lines = [line for line in text.splitlines() if not line.startswith(("epsilon = 8", "delta ="))]
    lines = ["noise_multiplier = 0.0" if line.startswith("noise_multiplier") else line for line in lines]
    file = tmp_path / "open.toml"
    file.write_text("\n".join(lines))
    sign_plan(read_plan(file), file, coordinator_key)
    with pytest.raises(PolicyRefusedError, match="promises no privacy"):
        approve(north, file, approver="Dr A. Meyer")
    policy(north, "allow_without_privacy = true")
    assert approve(north, file, approver="Dr A. Meyer").guarantee is None


def test_a_plan_signed_by_somebody_else_is_refused(north, signed_plan):
    sign_plan(read_plan(signed_plan), signed_plan, Ed25519PrivateKey.generate())
    with pytest.raises(PlanBadSignatureError):
        approve(north, signed_plan, approver="Dr A. Meyer")


def test_a_plan_for_another_roster_is_refused(north, signed_plan, roster, coordinator_key):
    newer = Roster(federation="lungs", epoch=2, coordinator=roster.coordinator, sites=roster.sites)
    north.roster.write_bytes(signed_roster(newer, coordinator_key))
    with pytest.raises(PlanInvalidError, match="made for roster"):
        approve(north, signed_plan, approver="Dr A. Meyer")


def test_a_site_whose_key_is_not_in_the_roster_is_refused(north, signed_plan):
    north.key.unlink()
    create_signing_key(north.key)
    with pytest.raises(NotEnrolledError, match="not in the roster"):
        check_for_site(north, signed_plan)


@pytest.mark.parametrize("name", ["", "   ", "x" * 101, "Meyer\x1b[2J", "a\nb"])
def test_an_approver_has_a_printable_name(name, north, signed_plan):
    with pytest.raises(PlanInvalidError, match="approver's name"):
        approve(north, signed_plan, approver=name)


def test_a_changed_audit_log_stops_the_site(north, signed_plan):
    approve(north, signed_plan, approver="Dr A. Meyer")
    north.audit.write_bytes(north.audit.read_bytes().replace(b"Meyer", b"Mayer"))
    with pytest.raises(ChainBrokenError):
        approved_plans(north)


def test_open_studies_follow_the_files_and_are_checked_only_when_one_changes(north, signed_plan):
    studies = OpenStudies(north)
    assert studies.current() == {}
    digest = bytes.fromhex(approve(north, signed_plan, approver="Dr A. Meyer").plan.digest())
    first = studies.current()[digest]
    assert studies.current()[digest] is first
    policy(north, "maximum_epsilon = 2.0")
    assert studies.current() == {}
