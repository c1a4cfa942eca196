"""init and enrol: a folder nobody else can enter, keys of the right kinds, a policy that fails closed."""

import stat

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from client.consent.policy import SitePolicyFile, read_policy
from client.installation.config import read_site_config
from client.installation.errors import NotEnrolledError, SiteConfigInvalidError
from client.installation.folder import SiteFolder
from client.installation.policy_template import POLICY_TEMPLATE
from client.ledger.ledger import Ledger
from common.errors import OutputExistsError
from common.trust.enrolment import read_enrolment
from common.trust.errors import KeyExposedError, KeyInvalidError
from common.trust.identity import fingerprint, read_public_key, read_secret_file, read_signing_key

SECRETS = ("key", "secret", "node_key", "runtime_secret")


def mode_of(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_site_has_all_that_does_not_come_from_others(fresh):
    assert read_site_config(fresh.config).site.name == "north"
    assert len(read_secret_file(fresh.secret)) == len(read_secret_file(fresh.runtime_secret)) == 32
    assert Ledger.open(fresh.ledger, ceiling=1.0).spending() == []
    with pytest.raises(NotEnrolledError, match=r"no roster\.json here"):
        fresh.require()


def test_nobody_else_can_enter_a_new_site_or_read_a_secret_of_it(fresh):
    assert mode_of(fresh.path) == 0o700
    assert [mode_of(getattr(fresh, name)) for name in SECRETS] == [0o600] * len(SECRETS)


def test_the_node_key_is_of_the_kind_that_flower_takes(fresh):
    key = load_ssh_private_key(fresh.node_key.read_bytes(), password=None)
    assert isinstance(key, EllipticCurvePrivateKey)
    assert isinstance(key.curve, SECP384R1)


def test_two_sites_share_no_secret(fresh, tmp_path, site_command):
    site_command("init", "south", "--site-folder", tmp_path / "south")
    other = SiteFolder(tmp_path / "south")
    assert not any(getattr(fresh, name).read_bytes() == getattr(other, name).read_bytes() for name in SECRETS)


def test_the_policy_of_a_new_site_is_the_strictest_default_with_every_rule_written_out(fresh):
    assert read_policy(fresh.policy) == SitePolicyFile(format="fedward-policy/1")
    for rule, field in SitePolicyFile.model_fields.items():
        derived = "# " if field.default is None else ""  # TOML has no word for "what the plan's least sum needs"
        assert f"\n{derived}{rule} = " in POLICY_TEMPLATE, rule


def test_an_existing_site_is_left_alone(fresh, site_command):
    before = {file.name: file.read_bytes() for file in fresh.path.iterdir() if file.is_file()}
    with pytest.raises(OutputExistsError, match="left alone"):
        site_command("init", "north", "--site-folder", fresh.path)
    assert before == {file.name: file.read_bytes() for file in fresh.path.iterdir() if file.is_file()}


def test_an_empty_folder_is_taken_and_closed_to_others(tmp_path, site_command):
    (tmp_path / "open").mkdir(mode=0o755)
    site_command("init", "north", "--site-folder", tmp_path / "open")
    assert mode_of(tmp_path / "open") == 0o700


def test_without_a_folder_the_site_is_set_up_under_its_name(tmp_path, site_command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "What to do next" in site_command("init", "north")
    assert SiteFolder(tmp_path / "north").config.exists()


@pytest.mark.parametrize("name", ["North", "../north", "n", "-north", "north\n", "n" * 64])
def test_a_bad_name_makes_no_folder(name, tmp_path, site_command):
    with pytest.raises(SiteConfigInvalidError, match="lower-case letters"):
        site_command("init", "--site-folder", tmp_path / "bad", "--", name)
    assert not (tmp_path / "bad").exists()


def test_the_enrolment_names_the_site_and_its_two_keys(fresh, tmp_path, asked):
    told = asked("enrol", "--site-folder", fresh.path, "--output", tmp_path / "north.json")
    enrolment = read_enrolment(tmp_path / "north.json")
    own = read_signing_key(fresh.key).public_key()
    assert told["fingerprint"] == enrolment.fingerprint() == fingerprint(own)
    assert fingerprint(read_public_key(fresh.path / "site.pub")) == fingerprint(own)
    assert enrolment.site == "north"
    assert enrolment.node_key + "\n" == (fresh.path / "node.pub").read_text()


def test_the_fingerprint_is_shown_to_be_read_out(fresh, tmp_path, site_command):
    said = site_command("enrol", "--site-folder", fresh.path, "--output", tmp_path / "north.json")
    assert read_enrolment(tmp_path / "north.json").fingerprint() in said


def test_an_enrolment_holds_no_secret(fresh, tmp_path, site_command):
    site_command("enrol", "--site-folder", fresh.path, "--output", tmp_path / "north.json")
    content = (tmp_path / "north.json").read_bytes()
    assert not any(getattr(fresh, name).read_bytes()[-60:-30] in content for name in ("key", "node_key"))


@pytest.mark.parametrize("name", ["key", "node_key"])
def test_a_key_that_others_could_read_is_not_enrolled(name, fresh, tmp_path, site_command):
    getattr(fresh, name).chmod(0o640)
    with pytest.raises(KeyExposedError):
        site_command("enrol", "--site-folder", fresh.path, "--output", tmp_path / "north.json")


def test_a_damaged_node_key_is_not_enrolled(fresh, tmp_path, site_command):
    fresh.node_key.write_bytes(fresh.key.read_bytes())
    with pytest.raises(KeyInvalidError, match="OpenSSH"):
        site_command("enrol", "--site-folder", fresh.path, "--output", tmp_path / "north.json")
