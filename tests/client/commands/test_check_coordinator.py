"""check: the way to the coordinator, against real TLS servers, clocks and a real proxy."""

import contextlib
import email.utils
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from client.__main__ import app
from client.commands.errors import CheckFailedError
from client.doctor.connection import clock
from client.doctor.probe import Answer
from client.installation.errors import NotEnrolledError
from common.errors import ExitCode
from server.federation.certificates import issue, new_authority

PROXY_VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch):
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def serve(answer) -> Iterator[int]:
    """Listen on 127.0.0.1 and hand each connection to ``answer`` in a thread of its own; yields the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept():
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

    def handle(connection):
        with contextlib.suppress(OSError), connection:
            answer(connection)

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


@pytest.fixture
def gateway(authority, tmp_path):
    """A TLS server on loopback; ``ahead_s``: how far ahead its clock is; ``by`` and ``hosts``: of its certificate."""
    with contextlib.ExitStack() as stack:

        def start(*, ahead_s=0.0, by=authority, hosts=("localhost", "127.0.0.1"), says_date=True, days=30) -> int:
            made = issue(by, hosts, days=days)
            (tmp_path / "server.crt").write_bytes(made.pem)
            (tmp_path / "server.key").write_bytes(made.key_pem)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")

            def answer(connection):
                with context.wrap_socket(connection, server_side=True) as secure:
                    assert secure.recv(4096).startswith(b"GET / HTTP/1.1\r\n")
                    date = email.utils.formatdate(time.time() + ahead_s, usegmt=True)
                    said = f"Date: {date}\r\n" if says_date else ""
                    secure.sendall(f"HTTP/1.1 404 Not Found\r\n{said}Content-Length: 0\r\n\r\n".encode())

            return stack.enter_context(contextlib.contextmanager(serve)(answer))

        yield start


@pytest.fixture
def proxy():
    """A CONNECT proxy on loopback (RFC 9110 section 9.3.6); ``refuses``: the code it answers instead."""
    with contextlib.ExitStack() as stack:

        def start(refuses: str = "") -> tuple[int, list[str]]:
            asked: list[str] = []

            def answer(connection):
                head = b""
                while b"\r\n\r\n" not in head:
                    head += connection.recv(4096)
                asked.append(head.decode())
                method, target, _ = head.split(b"\r\n")[0].decode().split()
                assert method == "CONNECT"
                if refuses:
                    connection.sendall(f"HTTP/1.1 {refuses} No\r\n\r\n".encode())
                    return
                host, _, port = target.rpartition(":")
                with socket.create_connection((host, int(port))) as onward:
                    connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    back = threading.Thread(target=pour, args=(onward, connection), daemon=True)
                    back.start()
                    pour(connection, onward)
                    back.join(5)

            return stack.enter_context(contextlib.contextmanager(serve)(answer)), asked

        yield start


def pour(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65_536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)


def test_a_site_in_order_has_nothing_that_stops_it(joined, gateway, look):
    found = look(joined(gateway()))
    assert {name: level for name, (level, _, _) in found.items() if level != "ok"} == {
        "scans": "advice", "cache": "advice", "plans": "advice", "agent": "advice",
    }  # fmt: skip
    assert set(found) >= {"folder", "policy", "keys", "ledger", "audit", "outbox", "kit", "roster", "flwr", "clock"}


def test_every_finding_that_is_not_in_order_says_what_to_do(joined, gateway, look):
    assert all(bool(remedy) == (level != "ok") for level, _, remedy in look(joined(gateway())).values())


def test_a_person_reads_one_line_for_each_and_a_sentence_at_the_end(joined, gateway):
    site = joined(gateway())
    site.path.chmod(0o750)
    done = CliRunner().invoke(app, ["check", "--site-folder", str(site.path)])
    assert "STOP  folder" in done.stdout
    assert f"chmod 700 {site.path}" in " ".join(done.stdout.split())
    assert "ok    clock" in done.stdout
    assert isinstance(done.exception, CheckFailedError)
    assert done.exception.exit_code == ExitCode.CHECK_FAILED


def test_where_there_is_no_site_there_is_nothing_to_check(tmp_path):
    done = CliRunner().invoke(app, ["check", "--site-folder", str(tmp_path)])
    assert isinstance(done.exception, NotEnrolledError)


@pytest.mark.parametrize(
    ("ahead_s", "level"), [(-10, "stop"), (-4.8, "stop"), (0, "ok"), (200, "advice"), (400, "stop"), (86_400, "stop")]
)
def test_a_clock_that_flower_would_refuse_is_found(ahead_s, level, joined, gateway, look):
    """``ahead_s`` is the coordinator's: -10 is a site whose clock is 10 s ahead."""
    found = look(joined(gateway(ahead_s=ahead_s)))["clock"]
    assert found[0] == level
    if level == "stop":
        assert ("ahead of" if ahead_s < 0 else "behind") in found[1]
        assert "NTP" in found[2]


def test_a_clock_ten_seconds_ahead_is_told_to_the_second(joined, gateway, look):
    level, text, _ = look(joined(gateway(ahead_s=-10)))["clock"]
    assert level == "stop"
    assert text.startswith(("9 s ahead", "10 s ahead", "11 s ahead"))


def test_a_coordinator_without_a_clock_cannot_be_compared_with(joined, gateway, look):
    assert look(joined(gateway(says_date=False)))["clock"][0] == "advice"


def test_an_answer_that_took_long_says_nothing_about_clocks():
    assert clock(Answer(clock_ahead_s=0.0, uncertainty_s=6.0)).level == "advice"


def test_a_certificate_for_another_name_is_found(joined, gateway, look):
    level, text, remedy = look(joined(gateway(hosts=("fl.example",))))["coordinator"]
    assert (level, "another name than localhost" in text, "must agree" in remedy) == ("stop", True, True)


def test_a_certificate_of_another_authority_is_found(joined, gateway, look):
    level, text, remedy = look(joined(gateway(by=new_authority("somebody else"))))["coordinator"]
    assert (level, "authority in the kit" in text, "inspects TLS" in remedy) == ("stop", True, True)


def test_an_expired_certificate_is_found(joined, gateway, look):
    level, text, _ = look(joined(gateway(days=0)))["coordinator"]
    assert (level, "expired" in text) == ("stop", True)


def test_a_port_where_nobody_listens_is_found(joined, look):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    level, text, remedy = look(joined(port))["coordinator"]
    assert (level, "cannot be reached" in text, "is the coordinator up" in remedy) == ("stop", True, True)


def test_a_server_without_tls_is_found(joined, look):
    with contextlib.contextmanager(serve)(lambda connection: connection.sendall(b"SSH-2.0-hello\r\n" * 9)) as port:
        level, text, _ = look(joined(port))["coordinator"]
    assert (level, "does not speak TLS" in text) == ("stop", True)


def test_a_name_that_nobody_knows_is_found(joined, look):
    level, text, _ = look(joined(443, address="nobody.invalid:443"))["coordinator"]
    assert (level, "is not known here" in text) == ("stop", True)


def test_offline_the_coordinator_is_left_out(joined, look):
    assert "coordinator" not in look(joined(443), "--offline")


@pytest.fixture
def behind(proxy, monkeypatch):
    """Put this machine behind a proxy (HTTPS_PROXY); returns its port and what it is asked for."""

    def start(refuses: str = "", user: str = "", *, variable: bool = True) -> tuple[int, list[str]]:
        port, asked = proxy(refuses=refuses)
        if variable:
            monkeypatch.setenv("HTTPS_PROXY", f"http://{user}127.0.0.1:{port}")
        return port, asked

    return start


@pytest.mark.parametrize("in_environment", [True, False], ids=["of the environment", "of site.toml"])
def test_a_site_behind_a_proxy_reaches_its_coordinator(in_environment, joined, gateway, behind, look):
    site, (port, asked) = joined(gateway()), behind(variable=in_environment)
    if not in_environment:
        text = site.config.read_text().replace('https_proxy = ""', f'https_proxy = "http://127.0.0.1:{port}"')
        site.config.write_text(text)
    found = look(site)
    assert (found["coordinator"][0], found["clock"][0]) == ("ok", "ok")
    assert str(port) in found["proxy"][1]
    assert [head.split()[1] for head in asked] == [json.loads(site.kit.read_text())["address"]]


def test_no_proxy_is_honoured(joined, gateway, behind, look, monkeypatch):
    site, (_, asked) = joined(gateway()), behind()
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    found = look(site)
    assert (found["coordinator"][0], found["proxy"][1], asked) == ("ok", "none: straight to the coordinator", [])


def test_a_proxy_without_an_exception_for_loopback_is_found(joined, gateway, behind, look):
    site, _ = joined(gateway()), behind()
    level, _, remedy = look(site)["proxy"]
    assert (level, "127.0.0.1,localhost to NO_PROXY" in remedy) == ("advice", True)


REFUSALS = {"403": "ask IT to allow CONNECT", "407": "without one"}


@pytest.mark.parametrize("code", REFUSALS)
def test_a_proxy_that_refuses_is_found(code, joined, gateway, behind, look):
    site, _ = joined(gateway()), behind(refuses=code)
    level, _, remedy = look(site)["coordinator"]
    assert (level, REFUSALS[code] in remedy) == ("stop", True)


def test_a_password_for_the_proxy_is_sent_to_it_and_never_shown(joined, gateway, behind, look):
    site, (_, asked) = joined(gateway()), behind(user="me:s3cret@")
    found = look(site)
    assert found["coordinator"][0] == "ok"
    assert "Proxy-Authorization: Basic bWU6czNjcmV0" in asked[0]
    assert "s3cret" not in str(found)


def test_a_proxy_that_inspects_tls_is_found(joined, gateway, look):
    """It answers with a certificate for the right name, signed by itself."""
    assert "inspects TLS" in look(joined(gateway(by=new_authority("hospital proxy"))))["coordinator"][2]


def test_looking_changes_nothing(joined, gateway, look):
    site = joined(gateway())
    before = {file: file.read_bytes() for file in site.path.rglob("*") if file.is_file()}
    look(site)
    assert {file: file.read_bytes() for file in site.path.rglob("*") if file.is_file()} == before
