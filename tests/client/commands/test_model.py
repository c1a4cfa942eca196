"""The final model at a hospital: whose it is, how it does on patients who were held out, what it says of new scans."""

import csv
import hashlib
import io
import json
import os
import re
import shutil
import zipfile

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.torch import save

from client.consent.approval import approve, withdraw_approval
from client.dicom.cache import Cache
from client.dicom.errors import NothingUsableError
from client.final_model.receiving import open_model
from client.installation.errors import NotEnrolledError
from client.installation.policy_template import POLICY_TEMPLATE
from client.learning.cached_patients import CachedPatients
from client.learning.evaluation import count_patients
from common.errors import FileTooLargeError, FileUnreadableError, OutputExistsError
from common.networks.errors import WeightsInvalidError
from common.plan.reading import read_plan
from common.plan.schedule import count_layout
from common.plan.signing import sign_plan
from common.plan.start import start_network
from common.privacy.metrics import UNITS_PER_PATIENT, area_under_curve, sensitivities
from common.trust.errors import ReleaseInvalidError
from common.trust.hash_chain import HashChain
from common.trust.identity import read_secret_file
from common.trust.release import CARD, READABLE, SIGNATURE, WEIGHTS, sign_card
from common.trust.roster import Roster, signed_roster

OUTPUT = "predictions.csv"


@pytest.fixture(scope="session")
def weights(plan_file, hospital):
    """Weights that know something: the start, trained for a moment on the hospital's labelled training patients."""
    plan = read_plan(plan_file)
    network = start_network(plan)
    cache = Cache.open(hospital.cache, read_secret_file(hospital.secret))
    known = [record for record in cache.records if record.label is not None and record.split == "training"]
    images = torch.stack([torch.from_numpy(cache.read(record.record_id))[None] for record in known])
    labels = torch.tensor([record.label for record in known])
    torch.manual_seed(0)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(12):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimiser.step()
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


@pytest.fixture
def release(plan_file, weights, coordinator_key, tmp_path):
    """Write a release of the plan as the coordinator exports it, changed as a test needs it."""

    def make(*, key=coordinator_key, content=None, **changes):
        folder = tmp_path / f"release-{len(list(tmp_path.glob('release-*')))}"
        folder.mkdir()
        weights_file = save(weights) if content is None else content
        readable = b"# A model\n"
        files = {
            name: hashlib.sha256(data).hexdigest() for name, data in ((WEIGHTS, weights_file), (READABLE, readable))
        }
        card = {"plan_digest": read_plan(plan_file).digest(), "finished": True, "files": files} | changes
        card_bytes = json.dumps(card).encode()
        for name, data in (
            (WEIGHTS, weights_file), (READABLE, readable), (CARD, card_bytes), (SIGNATURE, sign_card(card_bytes, key)),
        ):  # fmt: skip
            (folder / name).write_bytes(data)
        return folder

    return make


@pytest.fixture
def site(stocked, plan_file):
    """A site whose staff approved the plan."""
    approve(stocked, plan_file, approver="Dr A. Meyer")
    return stocked


@pytest.fixture
def received(site, release, asked):
    """The same site with the final model."""
    asked("model", "receive", release(), "--site-folder", site.path)
    return site


def zipped(folder, target, *, inside="", extra=()):
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, inside + file.name)
        for name, content in extra:
            archive.writestr(name, content)
    return target


def test_a_release_is_kept_under_the_digest_of_its_weights(site, release, asked, weights):
    told = asked("model", "receive", release(), "--site-folder", site.path)
    digest = hashlib.sha256(save(weights)).hexdigest()
    assert (told["model"], told["study"]) == (digest, "xray-study")
    assert sorted(file.name for file in (site.models / digest).iterdir()) == sorted(
        [CARD, READABLE, SIGNATURE, WEIGHTS]
    )
    network = open_model(site).network
    assert all(torch.equal(parameter, weights[name]) for name, parameter in network.named_parameters())


def test_receiving_is_written_down_once(site, release, asked):
    for _ in range(2):
        told = asked("model", "receive", release(), "--site-folder", site.path)
    lines = [link.entry for link in HashChain(site.audit, "audit").links() if link.entry["what"] == "model received"]
    assert [(line["weights"], line["plan"]) for line in lines] == [(told["model"], told["plan"])]
    assert len(list(site.models.iterdir())) == 1


@pytest.mark.parametrize("inside", ["", "released/"])
def test_a_zip_file_does_as_well(inside, site, release, asked, tmp_path):
    told = asked("model", "receive", zipped(release(), tmp_path / "r.zip", inside=inside), "--site-folder", site.path)
    assert (site.models / told["model"] / WEIGHTS).exists()


def test_an_unfinished_study_is_said_to_be_unfinished_with_what_that_means(site, release, site_command):
    unfinished = release(finished=False, rounds_applied=3, rounds_planned=4)
    said = " ".join(site_command("model", "receive", unfinished, "--site-folder", site.path).split())
    assert "not finished when it was exported (3 of 4 rounds)" in said
    assert "it may answer the same to every scan" in said
    assert "not finished when it was exported: " in " ".join(
        site_command("model", "receive", release(finished=False, rounds_applied="\x1b[2J"), "--site-folder", site.path)
        .split()
    )  # fmt: skip


def test_a_model_whose_plan_held_nobody_out_is_not_sent_to_be_scored(
    stocked, plan_file, release, site_command, coordinator_key
):
    text, replaced = re.subn(
        r"(?ms)^\[evaluation\].*?(?=^\[|\Z)", "[evaluation]\nheld_out = false\n\n", plan_file.read_text()
    )
    assert replaced == 1
    file = stocked.path.parent / "nobody.toml"
    file.write_text(text)
    plan = read_plan(file)
    sign_plan(plan, file, coordinator_key)
    approve(stocked, file, approver="Dr A. Meyer")
    theirs = release(plan_digest=plan.digest())
    said = " ".join(site_command("model", "receive", theirs, "--site-folder", stocked.path).split())
    assert "model predict" in said
    assert "model score" not in said
    with pytest.raises(NothingUsableError, match="held nobody out"):
        site_command("model", "score", "--site-folder", stocked.path)


def other_network(weights):
    return {"elsewhere." + name: tensor for name, tensor in weights.items()}


def one_less(weights):
    return dict(list(weights.items())[1:])


def other_shape(weights):
    return {name: tensor.reshape(-1) for name, tensor in weights.items()}


def other_type(weights):
    return {name: tensor.double() for name, tensor in weights.items()}


def not_finite(weights):
    return {name: tensor.clone().fill_(torch.nan) for name, tensor in weights.items()}


MISFITS = {
    "tensors of another network": other_network,
    "a tensor too few": one_less,
    "other shapes": other_shape,
    "double precision": other_type,
    "a value that is not finite": not_finite,
}


@pytest.mark.parametrize("case", MISFITS)
def test_weights_that_do_not_fit_the_plan_are_refused_even_when_signed(case, site, release, asked, weights):
    content = save(MISFITS[case](weights))
    with pytest.raises((WeightsInvalidError, FileTooLargeError)):
        asked("model", "receive", release(content=content), "--site-folder", site.path)
    assert list(site.models.iterdir()) == [] if site.models.exists() else True


NO_WEIGHTS = {
    "nothing": b"",
    "a header that claims more than there is": (1 << 40).to_bytes(8, "little") + b"{}",
    "a header of the largest number": b"\xff" * 8 + b"{}",
    "no JSON": (5).to_bytes(8, "little") + b"hello",
    "offsets beyond the end": (80).to_bytes(8, "little")
    + b'{"head.bias":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'.ljust(80)
    + b"1234",
    "a pickle": b"\x80\x04K\x01.",
}


@pytest.mark.parametrize("case", NO_WEIGHTS)
def test_a_file_that_holds_no_weights_is_refused_even_when_signed(case, site, release, asked):
    with pytest.raises(WeightsInvalidError):
        asked("model", "receive", release(content=NO_WEIGHTS[case]), "--site-folder", site.path)


def test_weights_larger_than_the_network_are_not_read(site, release, asked, weights):
    with pytest.raises(FileTooLargeError):
        asked("model", "receive", release(content=save(weights) + bytes(2 << 20)), "--site-folder", site.path)


def test_a_zip_bomb_is_not_unpacked(site, release, asked, tmp_path):
    folder = release()
    (folder / WEIGHTS).write_bytes(bytes(16 << 20))
    bomb = zipped(folder, tmp_path / "bomb.zip")
    assert bomb.stat().st_size < 1 << 20
    with pytest.raises(ReleaseInvalidError, match="the limit for this file"):
        asked("model", "receive", bomb, "--site-folder", site.path)


BAD_ZIPS = {
    "two files of one name": [("other/" + WEIGHTS, b"x")],
    "many files": [(f"{number}.txt", b"x") for number in range(20)],
}


@pytest.mark.parametrize("case", BAD_ZIPS)
def test_a_zip_that_is_no_release_is_refused(case, site, release, asked, tmp_path):
    file = zipped(release(), tmp_path / "bad.zip", extra=BAD_ZIPS[case])
    with pytest.raises(ReleaseInvalidError):
        asked("model", "receive", file, "--site-folder", site.path)


def test_a_zip_never_chooses_where_something_is_written(site, release, asked, tmp_path):
    before = set(tmp_path.rglob("*"))
    file = zipped(release(), tmp_path / "bad.zip", extra=[("../../evil.txt", b"x"), ("/tmp/evil-fedward", b"x")])
    asked("model", "receive", file, "--site-folder", site.path)
    new = set(tmp_path.rglob("*")) - before
    assert not [path for path in new if "evil" in path.name]
    assert not os.path.exists("/tmp/evil-fedward")  # noqa: PTH110


@pytest.mark.parametrize("name", [CARD, SIGNATURE, WEIGHTS])
def test_a_damaged_zip_is_refused_whichever_file_is_hit(name, site, release, asked, tmp_path):
    file = zipped(release(), tmp_path / "r.zip")
    content = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        place = archive.getinfo(name).header_offset + 60 + len(name)
    content[place] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(ReleaseInvalidError):
        asked("model", "receive", file, "--site-folder", site.path)


def test_a_model_that_another_coordinator_signed_is_refused(site, release, asked):
    with pytest.raises(ReleaseInvalidError, match="another coordinator"):
        asked("model", "receive", release(key=Ed25519PrivateKey.generate()), "--site-folder", site.path)


def test_a_model_that_nobody_signed_is_refused(site, release, asked):
    folder = release()
    (folder / SIGNATURE).unlink()
    with pytest.raises(ReleaseInvalidError, match="nobody signed"):
        asked("model", "receive", folder, "--site-folder", site.path)


@pytest.mark.parametrize("name", [CARD, SIGNATURE, WEIGHTS, READABLE])
def test_a_file_changed_after_signing_is_refused(name, site, release, asked):
    folder = release()
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises((ReleaseInvalidError, WeightsInvalidError)):
        asked("model", "receive", folder, "--site-folder", site.path)


@pytest.mark.parametrize("digest", ["00" * 32, "", "../plans", None])
def test_a_model_of_a_plan_that_nobody_approved_is_refused(digest, site, release, asked):
    with pytest.raises(NotEnrolledError, match="nobody approved"):
        asked("model", "receive", release(plan_digest=digest), "--site-folder", site.path)


def test_a_model_of_a_withdrawn_plan_is_refused(site, release, asked, plan_file):
    withdraw_approval(site, read_plan(plan_file).digest(), approver="Dr A. Meyer")
    with pytest.raises(NotEnrolledError, match="nobody approved"):
        asked("model", "receive", release(), "--site-folder", site.path)


def test_a_model_still_arrives_when_roster_and_policy_have_moved_on(site, release, asked, roster, coordinator_key):
    newer = Roster(federation="lungs", epoch=2, coordinator=roster.coordinator, sites=roster.sites)
    site.roster.write_bytes(signed_roster(newer, coordinator_key))
    site.policy.write_text(POLICY_TEMPLATE.replace("maximum_epsilon = 8.0", "maximum_epsilon = 1.0"))
    assert asked("model", "receive", release(), "--site-folder", site.path)["study"] == "xray-study"


def test_a_received_model_changed_on_the_disk_is_not_used(received, asked):
    (file,) = received.models.glob(f"*/{WEIGHTS}")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.chmod(0o600)
    file.write_bytes(content)
    with pytest.raises(ReleaseInvalidError, match="not the file that the model card names"):
        asked("model", "score", "--site-folder", received.path)


def test_without_a_model_there_is_nothing_to_score(site, asked):
    with pytest.raises(NotEnrolledError, match="fedward-site model receive"):
        asked("model", "score", "--site-folder", site.path)


def test_a_model_is_chosen_by_the_first_digits_of_its_digest(received, asked, release, weights):
    other = {name: tensor * 0 for name, tensor in weights.items()}
    second = asked("model", "receive", release(content=save(other)), "--site-folder", received.path)["model"]
    first = hashlib.sha256(save(weights)).hexdigest()
    assert asked("model", "score", "--model", first[:10], "--site-folder", received.path)["model"] == first
    assert asked("model", "score", "--site-folder", received.path)["model"] == second


def test_the_score_is_that_of_the_held_out_patients_alone(received, asked, plan_file, weights):
    told = asked("model", "score", "--site-folder", received.path)
    plan = read_plan(plan_file)
    cache = Cache.open(received.cache, read_secret_file(received.secret)).frozen(plan.digest())
    patients = CachedPatients(cache, plan)
    network = open_model(received).network
    layout = count_layout(plan)
    units = count_patients(network, map(patients.read, patients.held_out()), layout)
    counts = layout.tables(units / UNITS_PER_PATIENT)
    (row,) = told["classes"]
    assert row["name"] == "abnormal"
    assert told["patients"] == len(patients.held_out()) >= 10
    exact = area_under_curve(counts["histograms"][0])
    assert row["auc"]["value"] == pytest.approx(exact.value, abs=exact.binning_error + 1e-9)
    specificity, sensitivity = sensitivities(counts["confusion"])
    assert row["sensitivity"]["value"] == pytest.approx(sensitivity)
    assert row["specificity"]["value"] == pytest.approx(specificity)
    assert told["left_the_site"] == "nothing"


def test_scoring_leaves_no_trace_outside(received, asked):
    before = {file: file.read_bytes() for file in received.path.rglob("*") if file.is_file()}
    asked("model", "score", "--site-folder", received.path)
    assert {file: file.read_bytes() for file in received.path.rglob("*") if file.is_file()} == before


def test_a_person_is_told_that_the_figures_are_exact_and_stay_here(received, site_command):
    said = " ".join(site_command("model", "score", "--site-folder", received.path).split())
    assert "abnormal" in said
    assert "looking cost no privacy" in said
    assert "do not send them out" in said


@pytest.fixture
def new_scans(hospital, tmp_path):
    """Four studies from the scanner, with a file that is no scan, a link, and one without an image."""
    folder = tmp_path / "new"
    folder.mkdir()
    for study in sorted(hospital.scans.iterdir())[:4]:
        shutil.copytree(study, folder / study.name)
    (folder / "a-note.txt").write_text("call the ward " * 20)
    (folder / "z-link.dcm").symlink_to(hospital.scans)
    return folder


def rows_of(file):
    lines = file.read_text().splitlines()
    assert lines[0].startswith("# Research use only")
    return list(csv.DictReader(io.StringIO("\n".join(lines[1:]))))


def test_each_study_has_its_figures_and_each_refused_file_its_code(received, asked, new_scans, tmp_path):
    before, inside = sorted(new_scans.rglob("*")), set(received.path.rglob("*"))
    told = asked("model", "predict", new_scans, "--output", tmp_path / OUTPUT, "--site-folder", received.path)
    assert (told["studies"], told["refused"]) == (4, {"not_part10": 1, "symlink": 1})
    rows = rows_of(tmp_path / OUTPUT)
    assert [row["first_file"] for row in rows if not row["refused"]] == ["1", "2", "3", "4"]
    assert [(row["first_file"], row["refused"]) for row in rows if row["refused"]] == [
        ("5", "not_part10"), ("6", "symlink"),
    ]  # fmt: skip
    model, cache = open_model(received), Cache.open(received.cache, read_secret_file(received.secret))
    every = torch.stack([torch.from_numpy(cache.read(record.record_id))[None] for record in cache.records])
    with torch.no_grad():
        possible = torch.softmax(model.network(every), 1)[:, 1].numpy()
    for row in rows[:4]:
        figures = (float(row["p_normal"]), float(row["p_abnormal"]))
        assert sum(figures) == pytest.approx(1, abs=1e-5)
        assert np.abs(possible - figures[1]).min() < 1e-5
        assert row["answer"] == ("abnormal" if figures[1] > figures[0] else "normal")
    written = (tmp_path / OUTPUT).read_text() + json.dumps({**told, "output": ""})
    for path in before:  # no name or identifier of a scan is written, nothing beside the scans, and no cache stays
        assert path.name not in written
        assert path.stem not in written
    assert (sorted(new_scans.rglob("*")), set(received.path.rglob("*"))) == (before, inside)
    assert (tmp_path / OUTPUT).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("place", ["", "deeper"])
def test_an_output_beside_the_scans_is_refused(place, received, asked, new_scans):
    (new_scans / "deeper").mkdir()
    with pytest.raises(FileUnreadableError, match="only read"):
        asked("model", "predict", new_scans, "--output", new_scans / place / OUTPUT, "--site-folder", received.path)
    assert not list(new_scans.rglob(OUTPUT))


def test_an_existing_output_is_left_alone(received, asked, new_scans, tmp_path):
    (tmp_path / OUTPUT).write_text("mine")
    with pytest.raises(OutputExistsError):
        asked("model", "predict", new_scans, "--output", tmp_path / OUTPUT, "--site-folder", received.path)
    assert (tmp_path / OUTPUT).read_text() == "mine"


def test_a_folder_without_a_usable_scan_says_so(received, site_command, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/note.txt").write_text("nothing here " * 20)
    with pytest.raises(NothingUsableError, match="none of 1 files"):
        site_command(
            "model", "predict", tmp_path / "empty", "--output", tmp_path / OUTPUT, "--site-folder", received.path
        )
    assert [row["refused"] for row in rows_of(tmp_path / OUTPUT)] == ["not_part10"]


def test_a_person_reads_what_the_figures_must_not_be_used_for(received, site_command, new_scans, tmp_path):
    said = site_command("model", "predict", new_scans, "--output", tmp_path / OUTPUT, "--site-folder", received.path)
    assert "not a medical device" in said
    assert "not used: 1 files, symlink" in said
