"""join: one coordinator, compared by fingerprint; a roster that only goes forward."""

import json
import os
import pty
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.consent.errors import NotConfirmedError
from client.installation.errors import NotEnrolledError
from common.errors import ExitCode
from common.trust.errors import KitInvalidError, RosterInvalidError
from common.trust.hash_chain import HashChain
from common.trust.identity import fingerprint
from common.trust.kit import read_kit
from common.trust.roster import read_roster


@pytest.fixture
def join(asked, fresh, coordinator_key):
    """Join with a kit, by default with the right fingerprint."""

    def run(kit, heard="right"):
        heard = fingerprint(coordinator_key.public_key()) if heard == "right" else heard
        return asked("join", kit, "--site-folder", fresh.path, *(["--fingerprint", heard] if heard else []))

    return run


def nothing_was_kept(fresh) -> bool:
    return not fresh.kit.exists() and not fresh.roster.exists()


def test_joining_keeps_kit_and_roster_and_names_the_other_hospitals(join, kit_file, fresh, roster):
    told = join(kit_file())
    assert (told["site"], told["epoch"], told["roster_changed"]) == ("north", 1, False)
    expected = {name: text for name, text in roster.fingerprints().items() if name != "north"}
    assert told["others"] == expected
    assert read_roster(fresh.roster).epoch == read_kit(fresh.kit).roster.epoch == 1
    assert fresh.require() is None


def test_a_person_is_told_to_confirm_the_others_with_themselves(site_command, kit_file, fresh, coordinator_key, roster):
    heard = fingerprint(coordinator_key.public_key())
    said = site_command("join", kit_file(), "--site-folder", fresh.path, "--fingerprint", heard)
    assert all(text in said for name, text in roster.fingerprints().items() if name != "north")
    assert "not with the coordinator" in said


def test_the_audit_log_says_whom_the_site_joined(join, kit_file, fresh, coordinator_key):
    join(kit_file())
    (entry,) = [link.entry for link in HashChain(fresh.audit, "audit").links()]
    assert (entry["what"], entry["epoch"]) == ("joined", 1)
    assert entry["coordinator"] == fingerprint(coordinator_key.public_key())


def test_a_fingerprint_may_be_typed_in_small_letters_and_with_spaces(join, kit_file, coordinator_key):
    heard = fingerprint(coordinator_key.public_key()).lower().replace("-", " ")
    assert join(kit_file(), heard)["site"] == "north"


def test_another_fingerprint_than_the_one_heard_is_refused_and_nothing_is_kept(join, kit_file, fresh, coordinator_key):
    with pytest.raises(KitInvalidError, match="may be forged") as refused:
        join(kit_file(), fingerprint(Ed25519PrivateKey.generate().public_key()))
    assert nothing_was_kept(fresh)
    assert fingerprint(coordinator_key.public_key()) not in str(refused.value), "or it would be copied, not heard"


def test_most_of_a_fingerprint_is_not_enough(join, kit_file, fresh, coordinator_key):
    with pytest.raises(KitInvalidError, match="may be forged"):
        join(kit_file(), fingerprint(coordinator_key.public_key())[:-1])
    assert nothing_was_kept(fresh)


def test_without_anybody_to_ask_nothing_is_kept(join, kit_file, fresh):
    with pytest.raises(NotConfirmedError, match="--fingerprint"):
        join(kit_file(), None)
    assert nothing_was_kept(fresh)


@pytest.mark.parametrize(("right", "code"), [(True, 0), (False, ExitCode.KIT_INVALID)])
def test_on_a_terminal_the_fingerprint_is_asked_for(right, code, kit_file, fresh, coordinator_key):
    heard = fingerprint(coordinator_key.public_key()) if right else "AAAA-" * 5 + "AAAA"
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "client", "join", str(kit_file()), "--site-folder", str(fresh.path)],
        stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    os.write(controller, heard.encode() + b"\n")
    _, said = process.communicate(timeout=300)
    os.close(controller)
    os.close(terminal)
    assert process.returncode == code, said
    assert b"Call the coordinator" in said
    assert fresh.kit.exists() == right


def test_a_newer_roster_is_installed_without_asking_again(join, kit_file, fresh):
    join(kit_file())
    told = join(kit_file(epoch=2), None)
    assert (told["epoch"], told["roster_changed"]) == (2, True)
    assert read_roster(fresh.roster).epoch == 2


def test_the_same_kit_again_changes_nothing(join, kit_file, fresh):
    kit = kit_file()
    join(kit)
    assert join(kit, None)["roster_changed"] is False


def test_an_older_roster_is_never_installed(join, kit_file, fresh):
    join(kit_file(epoch=3))
    before = fresh.kit.read_bytes()
    with pytest.raises(RosterInvalidError, match="of epoch 2, installed is 3"):
        join(kit_file(epoch=2))
    assert read_roster(fresh.roster).epoch == 3
    assert fresh.kit.read_bytes() == before


def test_another_roster_of_the_same_epoch_is_refused(join, kit_file, fresh):
    join(kit_file())
    smaller = dict(list(read_kit(fresh.kit).roster.sites.items())[1:3])
    assert "north" in smaller
    with pytest.raises(RosterInvalidError, match="needs a new epoch"):
        join(kit_file(sites=smaller))


def test_a_kit_of_another_coordinator_is_refused_whatever_fingerprint_is_given(join, kit_file, fresh):
    join(kit_file())
    before, other = fresh.kit.read_bytes(), Ed25519PrivateKey.generate()
    with pytest.raises(KitInvalidError, match="of another one"):
        join(kit_file(key=other, epoch=2), fingerprint(other.public_key()))
    assert fresh.kit.read_bytes() == before


def test_a_roster_without_this_site_is_refused(join, kit_file, fresh, roster):
    with pytest.raises(NotEnrolledError, match="send the enrolment file"):
        join(kit_file(sites=dict(roster.sites)))
    assert nothing_was_kept(fresh)


def test_a_kit_made_before_the_first_roster_is_kept_alone(join, kit_file, fresh):
    told = join(kit_file(epoch=None))
    assert (told["site"], told["epoch"], told["others"]) == (None, None, {})
    assert fresh.kit.exists()
    assert not fresh.roster.exists()
    assert join(kit_file(), None)["site"] == "north"


def test_a_changed_kit_is_refused(join, kit_file, fresh):
    kit = kit_file()
    document = json.loads(kit.read_bytes())
    document["address"] = "elsewhere:443"
    kit.write_text(json.dumps(document))
    with pytest.raises(KitInvalidError):
        join(kit)
    assert nothing_was_kept(fresh)
