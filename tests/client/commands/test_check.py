"""check: folder, keys, records, kit, plans, data and machine; each thing that can go wrong is found."""

import shutil
import socket

import pytest

from client.consent.approval import approve
from client.installation.config import default_site_config
from client.installation.folder import SiteFolder


def change(site, old: str, new: str) -> None:
    text = site.config.read_text()
    assert old in text
    site.config.write_text(text.replace(old, new))


def open_to_others(site):
    site.path.chmod(0o755)


def break_policy(site):
    site.policy.write_text('format = "fedward-policy/1"\nmaximum_epsilom = 1.0\n')


def expose_key(site):
    site.key.chmod(0o644)


def swap_node_key(site):
    (site.path / "node.pub").write_text("ecdsa-sha2-nistp384 AAAA\n")


def break_settings(site):
    change(site, 'device = "cpu"', 'device = "warp"')


def lose_ledger(site):
    site.ledger.unlink()


def change_audit(site):
    site.audit.write_bytes(site.audit.read_bytes().replace(b"joined", b"jumped"))


def change_outbox(site):
    site.outbox.write_bytes(b'{"entry":{},"hash":"00"}\n')


def change_kit(site):
    site.kit.write_bytes(site.kit.read_bytes().replace(b"lungs", b"lingo", 1))


def lose_roster(site):
    site.roster.unlink()


def absent_device(site):
    change(site, 'device = "cpu"', 'device = "cuda:99"')


BROKEN = {
    "a folder that others may enter": (open_to_others, "folder"),
    "a policy with an unknown key": (break_policy, "policy"),
    "a key that others can read": (expose_key, "keys"),
    "a node key without its public half": (swap_node_key, "keys"),
    "settings with a bad value": (break_settings, "settings"),
    "no ledger": (lose_ledger, "ledger"),
    "a changed audit log": (change_audit, "records"),
    "a changed outbox": (change_outbox, "records"),
    "a changed kit": (change_kit, "kit"),
    "no roster": (lose_roster, "roster"),
    "a device that is not there": (absent_device, "device"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_would_stop_the_site_is_found(case, joined, look):
    spoil, name = BROKEN[case]
    site = joined(443)
    assert look(site, "--offline").get(name, ("ok",))[0] == "ok"
    spoil(site)
    assert look(site, "--offline")[name][0] == "stop"


def test_another_flower_than_the_kit_asks_for_is_found(joined, look):
    level, text, remedy = look(joined(443, flwr="1.40.0"), "--offline")["flwr"]
    assert (level, "1.40.0" in text, "flwr==1.40.0" in remedy) == ("stop", True, True)


def test_another_release_of_fedward_than_the_coordinators_is_found(joined, look):
    assert look(joined(443, pointer_digest="ab" * 32), "--offline")["app"][0] == "stop"


def test_a_site_that_joined_nobody_is_told_to_join(fresh, look):
    level, _, remedy = look(fresh)["kit"]
    assert (level, "fedward-site join" in remedy) == ("stop", True)


def test_a_port_taken_by_another_program_is_found(joined, look):
    site = joined(443)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        site.config.write_text(site.config.read_text().replace("port = 0 ", f"port = {port} "))
        assert look(site, "--offline")["port"][0] == "stop"
        with socket.socket(socket.AF_UNIX) as running:
            running.bind(str(site.control_socket))
            running.listen()
            found = look(site, "--offline")
            assert (found["port"][0], found["agent"][0]) == ("ok", "ok")


def test_a_site_folder_with_a_long_path_is_found(tmp_path, asked, look):
    place = tmp_path / ("d" * 100)
    asked("init", "north", "--site-folder", place)
    assert look(SiteFolder(place), "--offline")["socket"][0] == "stop"


def test_a_paused_site_is_told_so(joined, look):
    site = joined(443)
    site.paused.touch()
    assert look(site, "--offline")["pause"][0] == "advice"


def test_scans_are_looked_at_and_must_not_hold_the_site(joined, look, hospital):
    site = joined(443)
    change(site, 'scans = ""', f'scans = "{hospital.scans}"')
    assert "read-only" in look(site, "--offline")["scans"][2]
    change(site, str(hospital.scans), str(site.path.parent))
    assert look(site, "--offline")["scans"][0] == "stop"
    change(site, f'"{site.path.parent}"', '"/nowhere"')
    assert look(site, "--offline")["scans"][0] == "advice"


def stock(site, hospital):
    site.secret.unlink()
    shutil.copy2(hospital.secret, site.secret)
    shutil.copytree(hospital.cache, site.cache)


def test_labels_are_counted_with_small_cells_suppressed(joined, look, hospital):
    site = joined(443)
    stock(site, hospital)
    change(site, 'labels = ""', f'labels = "{hospital.labels}"')
    found = look(site, "--offline")
    assert found["cache"] == ("ok", "90 patients", "")
    assert found["labels"][1] == "70 patients labelled, 20 not (abnormal 35, normal 35)"


def test_a_damaged_label_table_is_found_without_its_values(joined, look, hospital, tmp_path):
    site = joined(443)
    stock(site, hospital)
    (tmp_path / "labels.csv").write_text("key_type,key,label\nPatientID,1.2E+11,normal\n")
    change(site, 'labels = ""', f'labels = "{tmp_path / "labels.csv"}"')
    level, text, _ = look(site, "--offline")["labels"]
    assert (level, "spreadsheet" in text) == ("advice", True)


def test_an_approved_plan_without_patients_stops_the_site(stocked, plan_file, look, asked, tmp_path):
    (stocked.config).write_text(default_site_config("north"))
    approve(stocked, plan_file, approver="Dr A. Meyer")
    found = look(stocked, "--offline")
    assert (found["plans"], found["cache"][0]) == (("ok", "1 approved", ""), "ok")
    shutil.rmtree(stocked.cache)
    assert look(stocked, "--offline")["cache"][0] == "stop"


def test_an_approved_plan_that_no_longer_passes_is_found_with_the_reason(stocked, plan_file, look):
    stocked.config.write_text(default_site_config("north"))
    approve(stocked, plan_file, approver="Dr A. Meyer")
    stocked.policy.write_text('format = "fedward-policy/1"\nmaximum_epsilon = 1.0\n')
    level, text, remedy = look(stocked, "--offline")["plans"]
    assert (level, "policy rule 2" in text, "--withdraw" in remedy) == ("stop", True, True)
