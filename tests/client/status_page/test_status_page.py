"""The hospital's status page: real process, real socket, a real control plane, and a browser where there is one."""

import http.client
import re
import subprocess
import sys
import time
import urllib.parse
from types import SimpleNamespace

import numpy as np
import pytest

from client.agent.control import ControlServer, SiteControl
from client.agent.progress import ProgressFeed
from client.consent.approval import approve
from client.dicom.ingest import ingest
from client.dicom.settings import IngestSettings
from client.installation.audit_log import audit_links
from client.installation.config import default_site_config
from client.installation.outbox import HELLO, Outbox
from client.ledger.budget import Stratum
from client.ledger.errors import LedgerInvalidError
from client.ledger.ledger import Ledger, charge
from client.status_page.background import Background
from client.status_page.facts import SiteReader
from client.status_page.metrics import site_metrics
from client.status_page.page import site_page
from common.control.site_control_pb2 import Connection, Step
from common.trust.identity import read_secret_file
from common.web.door import page_address
from common.web.page_token import page_token, read_page_token
from common.web.prometheus import exposition
from simulation.hospitals.dicom_writer import Form, Names, Template, uid_for
from tests.browser import CHROMIUM, as_browsed

OFFICER = "Dr Mina <Rao>"


@pytest.fixture
def site(north, signed_plan):
    """A hospital with an approved plan, one charged attempt and one message sent."""
    north.config.write_text(default_site_config("north"))
    digest = approve(north, signed_plan, approver=OFFICER).plan.digest()
    with Ledger.create(north.ledger, ceiling=8.0) as ledger:
        costs = [charge(Stratum.LABELLED, sampling_rate=0.1, noise_multiplier=2.0, steps=5)]
        ledger.spend(ledger.reserve(digest, 1, costs, delta=1e-5))
    packet = SimpleNamespace(message=b"m" * 1500, payload=memoryview(b""))
    Outbox(north.outbox).release(HELLO, packet, study="")
    return north


class PageProcess:
    """``python -m client.status_page`` on a free port."""

    def __init__(self, folder) -> None:
        command = [sys.executable, "-m", "client.status_page", "--site-folder", str(folder.path), "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = int(re.search(r":(\d+)/", self.process.stdout.readline()).group(1))
        self.token = read_page_token(folder.path / "page.token")

    def ask(self, method: str, path: str, form: dict[str, str] | None = None, **headers: str | None):
        """Ask as the page's own browser does, but for what ``headers`` change."""
        own = {"Cookie": f"fedward_{self.port}={self.token.cookie}", "Origin": f"http://127.0.0.1:{self.port}"}
        sent = {name.replace("_", "-"): value for name, value in (own | headers).items() if value is not None}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, urllib.parse.urlencode(form or {}) if method == "POST" else None, sent)
        answer = connection.getresponse()
        is_picture = (answer.getheader("Content-Type") or "").startswith("image/png")
        return answer.status, answer.read().decode("latin-1" if is_picture else "utf-8")


@pytest.fixture
def page(site):
    process = PageProcess(site)
    yield process
    process.process.terminate()
    assert process.process.wait(30) in {0, -15}


def test_every_image_stands_on_the_hospitals_page_and_nobody_else_sees_it(site, page, tmp_path):
    assert "No scans have been read" in page.ask("GET", "/sheet/1")[1]
    template = Template(Form(modality="CT", rows=32, columns=32))
    (tmp_path / "scans").mkdir()
    for number in range(3):
        names = Names("P1", uid_for("study"), uid_for("series"), uid_for(number))
        template.write(tmp_path / "scans" / f"{number}.dcm", names, np.full((32, 32), 100 * number, np.uint16))
    settings = IngestSettings(kind="classification", classes=("normal", "lesion"), modalities=("CT",), dimensions=2,
                              size_px=(32, 32), intensity="ct_window", window_hu=(0.0, 400.0))  # fmt: skip
    ingest(tmp_path / "scans", site.cache, settings=settings, secret=read_secret_file(site.secret))
    while "being put in order" in (shown := page.ask("GET", "/sheet/1")[1]):
        time.sleep(0.1)
    assert "3 images" in shown
    assert page.ask("GET", "/sheet/1.png")[1].startswith("\x89PNG")
    assert page.ask("GET", "/sheet/2.png")[0] == 404
    assert page.ask("GET", "/sheet/1.png", Cookie=None) == (401, "")


def decisions(site) -> list[tuple[str, str]]:
    return [(link.entry["what"], link.entry.get("person", "")) for link in audit_links(site)]


REFUSED = {
    "a form of another site": ({"Origin": "https://evil.example", "Sec_Fetch_Site": "cross-site"}, {}, 403),
    "a form without an origin": ({"Origin": None}, {}, 403),
    "a form without the page's token": ({}, {"form": "0" * 64}, 403),
    "a form without the cookie": ({"Cookie": None}, {}, 401),
    "a foreign host name": ({"Host": "evil.example"}, {}, 421),
    "a form without a name": ({}, {"person": "  "}, 400),
    "a name that would hide in the log": ({}, {"person": "Rao\x1b[2K"}, 400),
}


def test_the_pause_button_pauses_and_nobody_elses_form_does(site, page, tmp_path):
    good = {"form": page.token.form, "person": "Dr Rao"}
    for case, (headers, changed, status) in REFUSED.items():
        answered, content = page.ask("POST", "/pause", good | changed, **headers)
        assert answered == status, case
        assert status == 400 or content == "", case
    assert page.ask("GET", "/pause")[0] == 405
    assert not site.paused.exists()
    assert page.ask("POST", "/pause", good)[0] == 303
    assert site.paused.exists()
    shown = page.ask("GET", "/")[1]
    assert "Paused by Dr Rao" in shown
    assert "Take part again" in shown
    assert page.ask("GET", "/readyz", Cookie=None) == (503, "not ready\n")
    assert page.ask("GET", "/healthz", Cookie=None) == (200, "ok\n")
    assert page.ask("POST", "/resume", good)[0] == 303
    assert not site.paused.exists()
    assert decisions(site)[1:] == [("paused", "Dr Rao"), ("resumed", "Dr Rao")]
    for path in ("/", "/metrics", "/page.css"):
        assert page.ask("GET", path, Cookie=None) == (401, "")
    if CHROMIUM is None:
        pytest.skip("all but the browser's part passed: no Chromium on this machine")
    built = as_browsed(page_address(page.port, page.token), tmp_path / "browser", "--virtual-time-budget=5000")
    assert "<h1>north</h1>" in built
    assert "What left this building" in built


ANY_SIZE = {
    "a form of a thousand fields": ("POST", "/pause", "&".join(f"f{n}=1" for n in range(1000)), 400),
    "a form of five fields": ("POST", "/pause", "form=a&person=b&c=1&d=2&e=3", 400),
    "a name of eight thousand characters": ("POST", "/pause", "form={form}&person=" + "R" * 8000, 400),
    "a name that is no text": ("POST", "/pause", "form={form}&person=%FF%00%C3", 400),
    "a form that is no form": ("POST", "/pause", "%%%&&&===;;;", 403),
    "a page number of five thousand digits": ("GET", "/sheet/" + "9" * 5000, None, 404),
    "a picture of five thousand digits": ("GET", f"/sheet/{'9' * 5000}.png", None, 404),
    "a number below all": ("GET", "/sheet/-1", None, 404),
    "a slice where no score was kept": ("GET", "/model/1.png", None, 404),
    "digits of another script": ("GET", "/sheet/%D9%A1", None, 404),
    "a page number of nine digits": ("GET", "/sheet/999999999", None, 200),
}


def test_form_fields_and_numbers_of_any_size_are_answered_by_a_sentence(site, page):
    for case, (method, path, body, status) in ANY_SIZE.items():
        connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=60)
        own = {"Cookie": f"fedward_{page.port}={page.token.cookie}", "Origin": f"http://127.0.0.1:{page.port}"}
        connection.request(method, path, body and body.replace("{form}", page.token.form), own)
        answer = connection.getresponse()
        content = answer.read().decode()
        assert answer.status == status, case
        assert "Internal Server Error" not in content, case
        assert not site.paused.exists(), case
        if status == 400:
            assert content.count("\n") == 1, case
    assert page.ask("GET", "/")[0] == 200


def test_the_page_shows_what_the_agent_does_and_pauses_through_it(site):
    feed = ProgressFeed()
    loop = SimpleNamespace(connection=Connection.CONNECTION_UP, tasks=7, rejected=1)
    server = ControlServer(site, SiteControl(site, "north", feed, loop))
    digest = next(site.plans.iterdir()).name
    try:
        feed.publish(Step.STEP_TRAINING, plan_digest=digest, round_number=3)
        reader = SiteReader(site, "north")
        reader.read()
        reader.wait(120)
        shown = site_page(reader.read(), form_token="f" * 64)
        assert "xray-study, round 3: checking the order and training on this hospital&#x27;s scans" in shown
        assert "7 tasks taken since the start, 1 rejected" in shown
        assert "connected" in shown
        metrics = exposition(site_metrics(reader.read()))
        assert "fedward_site_connected 1\n" in metrics
        assert "fedward_site_tasks_rejected_total 1\n" in metrics
    finally:
        feed.close()
        server.close()
    assert reader.read().agent is None


def test_ledger_outbox_approvals_and_audit_log_are_on_the_page_without_an_agent(site):
    reader = SiteReader(site, "north")
    assert "Being added up" in site_page(reader.read(), form_token="f" * 64)
    reader.wait(120)
    facts = reader.read()
    shown = site_page(facts, form_token="f" * 64)
    assert facts.troubles == ()
    spent = facts.ledger.strata[0].epsilon
    assert f"<title>{spent:.2f} of 8; the plan ends below 8</title>" in shown
    assert "with a label (trained on)" in shown
    assert "1.5 kB</b><span>left this building, in 1 message" in shown
    assert "Dr Mina &lt;Rao&gt;" in shown
    assert "<Rao>" not in shown
    assert "east, south, west" in shown
    assert "agent not running" in shown
    metrics = exposition(site_metrics(facts))
    assert f"fedward_ledger_epsilon {spent!r}\n" in metrics
    assert 'fedward_outbox_bytes_total{kind="hello"} 1500\n' in metrics
    for secret in (str(site.path), "Rao", next(site.plans.iterdir()).name):
        assert secret not in metrics


def test_a_record_that_was_changed_is_said_and_the_rest_still_shows(site):
    site.outbox.write_bytes(site.outbox.read_bytes().replace(b"1500", b"0015"))
    site.ledger.unlink()
    reader = SiteReader(site, "north")
    reader.read()
    reader.wait(120)
    facts = reader.read()
    shown = site_page(facts, form_token="f" * 64)
    assert [trouble.partition(":")[0] for trouble in facts.troubles] == ["privacy ledger", "outbox"]
    assert "Needs attention" in shown
    assert "The record cannot be trusted" in shown
    assert "Dr Mina" in shown
    assert "fedward_site_troubles 2\n" in exposition(site_metrics(facts))


def test_a_new_site_without_records_has_a_page(north):
    reader = SiteReader(north, "north")
    reader.read()
    reader.wait(120)
    shown = site_page(reader.read(), form_token="f" * 64)
    for words in ("Nothing has left yet", "None: every order is refused", "Empty."):
        assert words in shown
    assert not north.outbox.exists()


def test_a_slow_value_is_computed_once_for_each_change_and_the_old_one_shown_meanwhile():
    computed = []

    def compute() -> int:
        computed.append(len(computed))
        return computed[-1]

    slow = Background(compute)
    assert slow.look((1,)).value is None
    slow.wait(20)
    assert slow.look((1,)).value == 0
    assert slow.look((2,)).value == 0
    slow.wait(20)
    assert slow.look((2,)).value == 1
    assert computed == [0, 1]


@pytest.mark.parametrize(
    ("error", "trouble"), [(LedgerInvalidError("it is old"), "it is old"), (KeyError("x"), "KeyError")]
)
def test_a_slow_value_that_fails_says_why_and_is_tried_again_after_a_change(error, trouble):
    failures = [error]

    def compute() -> int:
        if failures:
            raise failures.pop()
        return 3

    slow = Background(compute)
    slow.look((1,))
    slow.wait(20)
    assert slow.look((1,)).trouble == trouble
    slow.look((2,))
    slow.wait(20)
    assert slow.look((2,)).value == 3


def test_the_printed_address_opens_the_page(site, capsys):
    from client.commands.page import page as print_address  # noqa: PLC0415

    site.config.write_text(site.config.read_text().replace("port = 0", "port = 8765"))
    print_address(site_folder=site.path)
    assert capsys.readouterr().out.strip() == page_address(8765, page_token(site.path / "page.token"))
