"""The commands that set up a federation: `init`, `admit`, `roster sign`, `kit`, `study`, `certificate`, `status`."""

import json
import ssl
import stat
import tomllib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from typer.testing import CliRunner

from common.encoders.shelf import EncoderShelf
from common.errors import FedwardError, OutputExistsError
from common.flower.pointer import pointer_digest
from common.plan.errors import PlanInvalidError
from common.plan.reading import read_plan
from common.plan.signing import verify_plan
from common.trust.enrolment import Enrolment, signed_enrolment
from common.trust.errors import EnrolmentInvalidError, RosterInvalidError
from common.trust.hash_chain import HashChain
from common.trust.identity import create_signing_key, fingerprint, read_public_key
from common.trust.kit import read_kit
from common.trust.roster import read_roster
from server.__main__ import app
from server.deployment.endings import write_ending
from server.errors import StudyFolderInvalidError, StudyStoppedError
from server.federation.admission import AUDIT_NAME, node_keys
from server.federation.certificates import issue, new_authority, read_authority, read_certificate
from server.federation.config import read_coordinator_config
from server.federation.errors import FederationInvalidError, NobodyToAskError
from server.federation.folder import FederationFolder
from server.study.events import RunState
from server.study.folder import open_study, read_order_key
from simulation.drawing.made_up_encoder import made_up_encoder

NAMES = ("east", "north", "west")
ANYWAY = ("--anyway", "--reason", "a plain plan of few patients, for its commands")
PATIENTS = [word for name in NAMES for word in ("--patients", f"{name}=100,100")]


def call(*arguments, **settings):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], **settings)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


@pytest.fixture
def folder(tmp_path):
    made = FederationFolder(tmp_path / "federation")
    call("init", made.path, "--federation", "lungs", "--address", "fl.example.org:8443")
    return made


def enrolment_of(place, name, *, site_key=None, node_key=None):
    site_key = site_key or Ed25519PrivateKey.generate()
    node_key = node_key or ec.generate_private_key(ec.SECP384R1())
    line = node_key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    enrolment = Enrolment(name, site_key.public_key(), line)
    file = place / f"{name}.enrolment"
    file.write_bytes(signed_enrolment(enrolment, site_key))
    return file, enrolment.fingerprint()


def admit(folder, place, name, **keys):
    file, spoken = enrolment_of(place, name, **keys)
    return call("admit", file, "--fingerprint", spoken, "--folder", folder.path)


@pytest.fixture
def signed(folder, tmp_path):
    for name in NAMES:
        admit(folder, tmp_path, name)
    call("roster", "sign", "--folder", folder.path)
    return folder


def audited(folder):
    return [link.entry["what"] for link in HashChain(folder.audit, AUDIT_NAME).links()]


def test_init_makes_a_folder_that_only_its_owner_can_read(folder):
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    secrets = [folder.key, folder.ca_key, folder.server_key, folder.executor_secret]
    assert {stat.S_IMODE(file.stat().st_mode) for file in secrets} == {0o600}
    config = read_coordinator_config(folder.config)
    assert (config.federation, config.gateway.gateway_port, config.gateway.bind_host) == ("lungs", 8443, "0.0.0.0")
    assert audited(folder) == ["created"]


def test_init_leaves_a_folder_with_things_in_it_alone(folder):
    before = folder.key.read_bytes()
    with pytest.raises(OutputExistsError):
        call("init", folder.path, "--federation", "lungs", "--address", "localhost:1")
    assert folder.key.read_bytes() == before


def test_a_loopback_address_is_listened_to_on_loopback_only(tmp_path):
    call("init", tmp_path / "f", "--federation", "lungs", "--address", "localhost:9000", "--gateway-port", 9001)
    config = read_coordinator_config(tmp_path / "f" / "coordinator.toml")
    assert (config.gateway.bind_host, config.gateway.gateway_port) == ("127.0.0.1", 9001)


@pytest.mark.parametrize(
    ("case", "arguments"),
    {
        "no port": ["--federation", "lungs", "--address", "example.org"],
        "a name with a slash": ["--federation", "a/b", "--address", "example.org:1"],
        "a certificate without its key": [
            "--federation", "lungs", "--address", "example.org:1", "--certificate", "x.crt",
        ],
        "a port that is none": ["--federation", "lungs", "--address", "example.org:99999"],
    }.items(),
)  # fmt: skip
def test_init_refuses(tmp_path, case, arguments):
    with pytest.raises(FederationInvalidError):
        call("init", tmp_path / "f", *arguments)


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ('bind_host = "0.0.0.0"', "bind_hosts = 1", "gateway"),
        ("gateway_port = 8443", "gateway_port = 0", "gateway_port"),
        ("superlink_port = 18000", 'superlink_port = "x"', "superlink_port"),
        ('format = "fedward-coordinator/1"', 'format = "fedward-coordinator/2"', "format"),
    ],
)
def test_settings_with_a_mistake_are_refused_by_name(folder, before, after, complaint):
    text = folder.config.read_text()
    assert before in text
    folder.config.write_text(text.replace(before, after))
    with pytest.raises(FederationInvalidError, match=complaint):
        call("status", "--folder", folder.path)


def test_every_setting_of_the_file_is_one_the_program_knows(folder):
    assert read_coordinator_config(folder.config).model_dump() == tomllib.loads(folder.config.read_text())


def test_commands_outside_of_a_federation_folder_say_what_is_missing(tmp_path):
    with pytest.raises(FederationInvalidError, match="fedward-server init"):
        call("status", "--folder", tmp_path)


def test_the_gateways_certificate_is_of_the_own_authority_and_names_the_host(folder):
    certificate = read_certificate(folder.server_certificate)
    certificate.verify_directly_issued_by(read_certificate(folder.ca_certificate))
    context = ssl.create_default_context(cafile=str(folder.ca_certificate))
    assert context.cert_store_stats()["x509_ca"] == 1
    days = json.loads(call("certificate", "--folder", folder.path, "--json"))
    assert days["certificate_days"] >= 800


def test_a_renewed_certificate_is_another_one_of_the_same_authority(folder):
    before = folder.server_certificate.read_bytes(), folder.ca_certificate.read_bytes()
    call("certificate", "--renew", "--folder", folder.path)
    assert folder.server_certificate.read_bytes() != before[0]
    assert folder.ca_certificate.read_bytes() == before[1]
    read_certificate(folder.server_certificate).verify_directly_issued_by(read_certificate(folder.ca_certificate))


def test_a_certificate_from_elsewhere_is_taken_over(tmp_path):
    authority = new_authority("consortium")
    own = issue(authority, ["fl.example.org"])
    for name, content in (("a.crt", authority.pem), ("s.crt", own.pem), ("s.key", own.key_pem)):
        (tmp_path / name).write_bytes(content)
    made = FederationFolder(tmp_path / "f")
    call(
        "init", made.path, "--federation", "lungs", "--address", "fl.example.org:443", "--certificate",
        tmp_path / "s.crt", "--certificate-key", tmp_path / "s.key", "--authority", tmp_path / "a.crt",
    )  # fmt: skip
    assert (made.ca_certificate.read_bytes(), made.server_certificate.read_bytes()) == (authority.pem, own.pem)
    assert not made.ca_key.exists()


def test_an_authority_can_be_read_again_and_signs(folder):
    authority = read_authority(folder.ca_certificate, folder.ca_key)
    assert b"BEGIN CERTIFICATE" in issue(authority, ["a.example.org", "10.0.0.1"]).pem


def test_a_site_is_admitted_with_the_fingerprint_it_read_out_and_not_with_another(folder, tmp_path):
    file, spoken = enrolment_of(tmp_path, "north")
    _, other = enrolment_of(tmp_path / "..", "south")
    with pytest.raises(EnrolmentInvalidError, match="not the one given") as refused:
        call("admit", file, "--fingerprint", other, "--folder", folder.path)
    assert spoken not in str(refused.value), "or it would be copied, not heard"
    assert not folder.enrolment("north").exists()
    call("admit", file, "--fingerprint", spoken.lower().replace("-", " "), "--folder", folder.path)
    assert folder.enrolment("north").read_bytes() == file.read_bytes()
    assert audited(folder) == ["created", "admitted"]


def test_without_the_option_a_person_types_the_fingerprint(folder, tmp_path):
    file, spoken = enrolment_of(tmp_path, "north")
    with pytest.raises(NobodyToAskError, match="give --fingerprint, as north read it out"):
        call("admit", file, "--folder", folder.path)
    assert "Call north" in call("admit", file, "--folder", folder.path, input=f"{spoken}\n")
    assert folder.enrolment("north").exists()


def test_a_name_is_given_once_unless_the_site_has_new_keys(folder, tmp_path):
    admit(folder, tmp_path, "north")
    file, spoken = enrolment_of(tmp_path, "north")
    with pytest.raises(OutputExistsError, match="--replace"):
        call("admit", file, "--fingerprint", spoken, "--folder", folder.path)
    call("admit", file, "--fingerprint", spoken, "--replace", "--folder", folder.path)
    assert folder.enrolment("north").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("shared", ["site_key", "node_key"])
def test_two_sites_with_one_key_are_refused(folder, tmp_path, shared):
    keys = {"site_key": Ed25519PrivateKey.generate(), "node_key": ec.generate_private_key(ec.SECP384R1())}
    admit(folder, tmp_path, "north", **keys)
    with pytest.raises(EnrolmentInvalidError, match="has a key of north"):
        admit(folder, tmp_path, "south", **{shared: keys[shared]})


def test_the_roster_counts_epochs_and_keeps_every_one(folder, tmp_path):
    with pytest.raises(RosterInvalidError):
        call("roster", "sign", "--folder", folder.path)
    for epoch, name in enumerate(NAMES, start=1):
        admit(folder, tmp_path, name)
        facts = json.loads(call("roster", "sign", "--folder", folder.path, "--json"))
        assert (facts["epoch"], facts["new"], len(facts["sites"])) == (epoch, True, epoch)
    again = json.loads(call("roster", "sign", "--folder", folder.path, "--json"))
    assert (again["epoch"], again["new"]) == (3, False)
    kept = [read_roster(folder.rosters / f"epoch-{epoch}.json") for epoch in (1, 2, 3)]
    assert [set(roster.sites) for roster in kept] == [{"east"}, {"east", "north"}, set(NAMES)]


def test_only_admitted_sites_of_the_current_roster_may_knock(folder, tmp_path):
    admit(folder, tmp_path, "north")
    assert node_keys(folder) == []
    call("roster", "sign", "--folder", folder.path)
    admit(folder, tmp_path, "south")
    assert [key.site for key in node_keys(folder)] == ["north"]
    call("dismiss", "north", "--folder", folder.path)
    call("roster", "sign", "--folder", folder.path)
    assert [key.site for key in node_keys(folder)] == ["south"]


def test_a_site_with_new_keys_is_let_in_by_the_next_roster_only(signed, tmp_path):
    file, spoken = enrolment_of(tmp_path, "north")
    call("admit", file, "--fingerprint", spoken, "--replace", "--folder", signed.path)
    assert [key.site for key in node_keys(signed)] == ["east", "west"]
    call("roster", "sign", "--folder", signed.path)
    assert [key.site for key in node_keys(signed)] == list(NAMES)


def test_a_node_key_that_was_shut_out_is_not_admitted_again(signed, tmp_path):
    """The SuperLink would never take it: Flower keeps the keys that were unregistered."""
    keys = {"site_key": Ed25519PrivateKey.generate(), "node_key": ec.generate_private_key(ec.SECP384R1())}
    admit(signed, tmp_path, "south", **keys)
    call("dismiss", "south", "--folder", signed.path)
    with pytest.raises(EnrolmentInvalidError, match="node key"):
        admit(signed, tmp_path, "south", **keys)
    admit(signed, tmp_path, "south", site_key=keys["site_key"])


def test_dismissing_somebody_who_is_not_there_is_an_error(folder):
    with pytest.raises(FederationInvalidError):
        call("dismiss", "nobody", "--folder", folder.path)
    with pytest.raises(FederationInvalidError):
        call("dismiss", "../coordinator", "--folder", folder.path)


def test_the_kit_holds_what_a_site_needs(signed, tmp_path):
    facts = json.loads(call("kit", "--output", tmp_path / "kit.json", "--folder", signed.path, "--json"))
    kit = read_kit(tmp_path / "kit.json")
    assert facts["fingerprint"] == kit.fingerprint() == fingerprint(read_public_key(signed.public_key))
    assert (kit.address, kit.pointer_digest) == ("fl.example.org:8443", pointer_digest())
    assert kit.ca_certificate == signed.ca_certificate.read_text()
    assert kit.roster is not None
    assert facts["roster"] == kit.roster.digest() == read_roster(signed.roster).digest()


def test_no_kit_is_written_while_the_list_of_sites_is_not_the_signed_one(signed, tmp_path):
    kit = ("kit", "--output", tmp_path / "kit.json", "--folder", signed.path)
    call("dismiss", NAMES[0], "--folder", signed.path)
    with pytest.raises(RosterInvalidError, match=f"{NAMES[0]}.*roster sign` first"):
        call(*kit)
    assert not (tmp_path / "kit.json").exists()
    call("roster", "sign", "--folder", signed.path)
    call(*kit)
    assert NAMES[0] not in read_kit(tmp_path / "kit.json").roster.sites


def test_a_kit_before_the_first_roster_has_none_and_says_so(folder, tmp_path):
    said = call("kit", "--output", tmp_path / "kit.json", "--folder", folder.path)
    assert read_kit(tmp_path / "kit.json").roster is None
    assert "no roster is signed yet" in said


@pytest.fixture
def drafted(signed):
    call("study", "new", "lungs-2026", *PATIENTS, "--recipe", "plain", "--rounds", 3, "--folder", signed.path)
    return signed


def test_a_new_study_has_an_order_key_a_roster_and_a_plan_that_passes_its_checks(drafted):
    place = drafted.study("lungs-2026")
    plan = read_plan(place / "study.toml")
    assert plan.study.roster_digest == read_roster(place / "roster.json").digest()
    assert call("plan", "check", place / "study.toml", "--draft")
    with pytest.raises(OutputExistsError):
        call("study", "new", "lungs-2026", *PATIENTS, "--folder", drafted.path)


@pytest.mark.parametrize("name", ["c1", "Lungs", "9lungs", "l" * 64, "../lungs"])
def test_a_name_that_no_plan_may_have_is_refused_at_once_in_words(name, signed):
    with pytest.raises(FederationInvalidError, match="is no name of a study: it has 3 to 63 lower-case letters"):
        call("study", "new", name, *PATIENTS, "--folder", signed.path)
    assert signed.study_names() == []


def test_a_study_that_cannot_be_made_leaves_nothing_behind(signed):
    with pytest.raises(PlanInvalidError):
        call("study", "new", "lungs-2026", "--patients", "east=1,1", "--folder", signed.path)
    assert signed.study_names() == []
    assert not signed.study("lungs-2026").exists()


def test_a_signed_study_opens_and_the_coordinator_signed_it(drafted):
    facts = json.loads(call("study", "sign", "lungs-2026", *ANYWAY, "--folder", drafted.path, "--json"))
    study = open_study(drafted.study("lungs-2026"))
    assert facts["digest"] == study.plan.digest()
    verify_plan(study.plan, study.folder.plan, read_public_key(drafted.public_key))
    read_order_key(study)
    assert audited(drafted)[-1] == "plan signed"


def test_signing_again_says_that_hospitals_must_approve_again(drafted):
    once = call("study", "sign", "lungs-2026", *ANYWAY, "--folder", drafted.path)
    assert "signed before" not in once
    assert "every hospital must approve it again" in " ".join(
        call("study", "sign", "lungs-2026", *ANYWAY, "--folder", drafted.path).split()
    )


def test_a_plan_that_cannot_work_is_signed_only_with_a_reason_which_is_kept(drafted):
    sign = ("study", "sign", "lungs-2026", "--folder", drafted.path)
    with pytest.raises(PlanInvalidError, match=r"nearly nothing is learnt.*--anyway --reason TEXT"):
        call(*sign)
    with pytest.raises(PlanInvalidError, match="needs --reason"):
        call(*sign, "--anyway")
    call(*sign, *ANYWAY)
    entries = [link.entry for link in HashChain(drafted.audit, AUDIT_NAME).links()]
    assert (entries[-1]["what"], entries[-1]["anyway"]) == ("plan signed", ANYWAY[-1])


def test_a_reason_without_a_red_light_is_refused(signed):
    call("study", "new", "fine-2026", *PATIENTS, "--folder", signed.path)
    with pytest.raises(PlanInvalidError, match="no light of this plan is red"):
        call("study", "sign", "fine-2026", *ANYWAY, "--folder", signed.path)
    call("study", "sign", "fine-2026", "--folder", signed.path)


def test_a_plan_may_name_an_earlier_roster_but_no_unknown_one(drafted, tmp_path):
    admit(drafted, tmp_path, "south")
    call("roster", "sign", "--folder", drafted.path)
    call("study", "sign", "lungs-2026", *ANYWAY, "--folder", drafted.path)
    assert open_study(drafted.study("lungs-2026")).roster.epoch == 1
    plan = drafted.study("lungs-2026") / "study.toml"
    digest = read_plan(plan).study.roster_digest
    plan.write_text(plan.read_text().replace(digest, "0" * 64))
    with pytest.raises(FederationInvalidError, match="no roster has the digest"):
        call("study", "sign", "lungs-2026", *ANYWAY, "--folder", drafted.path)


def test_another_order_key_and_a_study_that_has_begun_are_not_signed(drafted):
    place = drafted.study("lungs-2026")
    own = (place / "orders.key").read_bytes()
    (place / "orders.key").unlink()
    create_signing_key(place / "orders.key")
    with pytest.raises(StudyFolderInvalidError, match="order_key"):
        call("study", "sign", "lungs-2026", *ANYWAY, "--folder", drafted.path)
    (place / "orders.key").write_bytes(own)
    (place / "journal.sqlite").touch()
    with pytest.raises(StudyFolderInvalidError, match="has begun"):
        call("study", "sign", "lungs-2026", *ANYWAY, "--folder", drafted.path)


def test_run_marks_a_signed_study_and_stop_takes_the_mark_away(drafted):
    with pytest.raises(Exception, match="not signed"):
        call("run", "lungs-2026", "--folder", drafted.path)
    call("study", "sign", "lungs-2026", *ANYWAY, "--folder", drafted.path)
    call("run", "lungs-2026", "--folder", drafted.path)
    assert drafted.wanted("lungs-2026").exists()
    call("stop", "lungs-2026", "--folder", drafted.path)
    assert not drafted.wanted("lungs-2026").exists()
    call("stop", "lungs-2026", "--folder", drafted.path)
    assert audited(drafted)[-2:] == ["wanted", "stopped"]


@pytest.mark.parametrize("state", [RunState.FINISHED, RunState.NOT_SCORED, RunState.NO_ATTEMPT_LEFT])
def test_a_study_with_nothing_left_to_run_is_not_started_again(drafted, state):
    call("study", "sign", "lungs-2026", *ANYWAY, "--folder", drafted.path)
    write_ending(drafted.study("lungs-2026"), state, "it is over")
    with pytest.raises(StudyStoppedError, match="it is over"):
        call("run", "lungs-2026", "--folder", drafted.path)
    facts = json.loads(call("status", "lungs-2026", "--folder", drafted.path, "--json"))
    assert (facts["wanted"], facts["running"], facts["ended"]["state"]) == (False, False, state.value)


def test_an_unknown_study_and_a_path_for_a_study_are_refused(signed):
    for name in ("other", "../coordinator", "/etc"):
        with pytest.raises(FederationInvalidError):
            call("run", name, "--folder", signed.path)


def test_the_status_of_a_federation_names_processes_sites_and_studies(drafted):
    facts = json.loads(call("status", "--folder", drafted.path, "--json"))
    assert (facts["federation"], facts["up"], facts["roster"]["epoch"]) == ("lungs", False, 1)
    assert facts["processes"] == dict.fromkeys(["supervisor", "superlink", "executor", "gateway", "page"])
    assert facts["sites"]["north"] == {"in_roster": True, "online": None}
    assert facts["studies"]["lungs-2026"]["state"] == "not signed or damaged"
    call("study", "sign", "lungs-2026", *ANYWAY, "--folder", drafted.path)
    assert "not started" in call("status", "--folder", drafted.path)


NEW = ("study", "new", "lungs-2026", *PATIENTS)
REFUSED_OPTIONS = {
    "rounds of a recipe that computes them": (("--rounds", 9), "--rounds belongs to --recipe plain"),
    "a task of the plain recipe": (("--recipe", "plain", "--task", "multi_label"), "--task has no effect"),
    "a size in words": (("--size", "large"), "write 64, or 64,64"),
    "a size that is no number": (("--size", "nan"), "write 64, or 64,64"),
    "a share of masks without masks": (("--mask-share", "0.1"), "--mask-share belongs to --task segmentation"),
    "a share of masks that is no number": (
        ("--task", "segmentation", "--classes", "background,organ", "--mask-share", "nan"),
        "--mask-share is nan",
    ),
    "a hospital named twice": (("--patients", "east=1,1"), "east is named twice"),
    "four sides": (("--size", "8,8,8,8"), "write 64, or 64,64"),
    "half a pixel": (("--size", "64.5"), "write 64, or 64,64"),
    "a modality that does not exist": (("--modality", "CR,XY"), "--modality has 'XY'; choose from"),
    "an encoder that is not here": (("--encoder", "0123456789"), "0 encoders in"),
    "a recipe of another task": (("--recipe", "prior-head"), "choose ridge or head, or auto"),
    "no epsilon that noise could buy": (("--epsilon", 0), "--epsilon is 0, it must be 0.001 to 50"),
}


@pytest.mark.parametrize(("options", "sentence"), REFUSED_OPTIONS.values(), ids=REFUSED_OPTIONS)
def test_options_that_make_no_plan_are_refused_and_leave_nothing_behind(options, sentence, signed):
    with pytest.raises(FedwardError, match=sentence):
        call(*NEW, *options, "--folder", signed.path)
    place = signed.study("lungs-2026").parent
    assert not place.exists() or list(place.iterdir()) == []


def test_a_new_study_has_the_recipe_of_its_task_whole_and_can_be_signed_as_it_is(signed):
    facts = json.loads(call(*NEW, "--classes", "normal, nodule", "--modality", "DX", "--folder", signed.path, "--json"))
    assert facts["recipe"] == "ridge"
    assert facts["rounds"] == {"standardise": 3, "ridge": 1}
    assert facts["standard_error_of_a_score"] is None
    plan = read_plan(signed.study("lungs-2026") / "study.toml")
    assert plan.task.classes == ("normal", "nodule")
    assert [phase.method.value for phase in plan.phases] == ["standardise", "ridge"]
    call("study", "sign", "lungs-2026", "--folder", signed.path)
    with pytest.raises(PlanInvalidError, match="is signed, so it stays as it is"):
        call("plan", "fix", signed.study("lungs-2026") / "study.toml")


def test_a_changed_plan_is_fixed_each_change_is_told_and_the_file_before_stays(signed):
    call(*NEW, "--folder", signed.path)
    file = signed.study("lungs-2026") / "study.toml"
    assert "nothing to change" in call("plan", "fix", file)
    written = file.read_text()
    file.write_text(written.replace("epsilon = 8.0", "epsilon = 2.0", 1))
    told = call("plan", "fix", file)
    assert "phases[1].noise_multiplier: " in told
    assert "epsilon = 2.0" in file.with_name("study.toml.before").read_text()
    file.write_text(file.read_text().replace("epsilon = 2.0", "epsilon = 4.0", 1))
    file.chmod(0o600)
    call("plan", "fix", file)
    assert "epsilon = 4.0" in file.with_name("study.toml.before-2").read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "wrote" in told
    assert call("plan", "check", file, "--draft")
    assert json.loads(call("plan", "fix", file, "--json"))["changes"] == []


@pytest.fixture
def with_encoder(signed, tmp_path):
    """A federation that took in one encoder for grey images of 32 x 32."""
    made = made_up_encoder(tmp_path, size_px=(32, 32), channels=1)
    EncoderShelf(signed.encoders).add(made.file, made.card, limit_bytes=1 << 30)
    return signed


def test_the_only_encoder_that_takes_such_images_is_built_on(with_encoder):
    said = call(*NEW, "--folder", with_encoder.path)
    assert "recipe ridge on a public encoder" in said
    plan = read_plan(with_encoder.study("lungs-2026") / "study.toml")
    assert plan.network.encoder is not None
    assert plan.image.size_px == (32, 32)


@pytest.mark.parametrize("size", ["32", "32,32", " 32, 32"])
def test_however_its_size_is_written(with_encoder, size):
    assert "on a public encoder" in call(*NEW, "--size", size, "--folder", with_encoder.path)


def test_an_encoder_that_is_passed_over_is_said(with_encoder):
    typed = [*NEW, "--size", "64", "--folder", str(with_encoder.path)]
    assert "1 public encoders here take other images" in CliRunner().invoke(app, typed).stderr


@pytest.mark.parametrize("options", [("--encoder", "none"), ("--size", "64"), ("--modality", "OP", "--channels", "3")])
def test_without_one_that_takes_them_our_own_network_is(with_encoder, options):
    call(*NEW, *options, "--folder", with_encoder.path)
    assert read_plan(with_encoder.study("lungs-2026") / "study.toml").network.name == "small_cnn"


def test_a_size_that_the_named_encoder_does_not_take_is_refused(with_encoder):
    (card,), _ = EncoderShelf(with_encoder.encoders).cards()
    with pytest.raises(PlanInvalidError, match=r"takes 32,32; leave --size out"):
        call(*NEW, "--encoder", card.file[:12], "--size", "64", "--folder", with_encoder.path)
