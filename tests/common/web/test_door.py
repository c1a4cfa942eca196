"""Who gets in to a status page, over a real socket."""

import http.client
import threading
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route

from common.errors import FileUnreadableError
from common.trust.errors import KeyExposedError, KeyInvalidError
from common.web.door import MAX_BODY_BYTES, Door, page_address
from common.web.page_token import PageToken, page_token, read_page_token
from common.web.serving import _listener, serve_page

SECRET = "what only staff may read"
TOKEN = PageToken("t" * 43)


def small_app(seen: list[str]) -> Starlette:
    async def page(request: Request) -> HTMLResponse:
        seen.append(f"{request.method} {request.url.path} {(await request.body()).decode()}")
        return HTMLResponse(SECRET)

    paths = [Route(path, page, methods=["GET", "POST"]) for path in ("/", "/pause")]
    return Starlette(routes=[*paths, Route("/healthz", lambda _request: PlainTextResponse("ok\n"))])


class Page:
    """A page behind a door on a real port."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        listener = _listener(0)
        self.port = listener.getsockname()[1]
        self.cookie = f"fedward_{self.port}={TOKEN.cookie}"
        door = Door(small_app(self.seen), lambda: TOKEN, port=self.port)
        self.server = uvicorn.Server(uvicorn.Config(door, log_level="error", lifespan="off", ws="none"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [listener]}, daemon=True)
        self.thread.start()

    def ask(self, method: str = "GET", path: str = "/", body: bytes = b"", **headers: str | None):
        """Ask as the page's own browser does, but for what ``headers`` change; None leaves a header out."""
        own = {"Host": f"127.0.0.1:{self.port}", "Cookie": self.cookie, "Sec-Fetch-Site": "same-origin"}
        if method == "POST":
            own["Origin"] = f"http://127.0.0.1:{self.port}"
        changed = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in (own | changed).items():
            if value is not None:
                connection.putheader(name, value)
        if method == "POST":
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body or None)
        answer = connection.getresponse()
        return answer, answer.read()


@pytest.fixture(scope="module")
def running_page():
    page = Page()
    yield page
    page.server.should_exit = True
    page.thread.join(10)


@pytest.fixture
def page(running_page):
    running_page.seen.clear()
    return running_page


REFUSED = {
    "no token at all": ({"Cookie": None}, 401),
    "an empty cookie": ({"Cookie": "fedward_{port}="}, 401),
    "a wrong cookie": ({"Cookie": "fedward_{port}=" + "0" * 64}, 403),
    "the token itself as the cookie": ({"Cookie": "fedward_{port}=" + TOKEN.text}, 403),
    "the cookie of another page on this machine": ({"Cookie": "fedward_1=" + TOKEN.cookie}, 401),
    "a cookie that cannot be read": ({"Cookie": "[bad]=1; ;;="}, 401),
    "a wrong bearer token": ({"Authorization": "Bearer " + "x" * 43}, 403),
    "a bearer token that begins right": ({"Authorization": "Bearer " + "t" * 42}, 403),
    "a bearer token of a thousand characters": ({"Authorization": "Bearer " + "t" * 1000}, 403),
    "a foreign host name (DNS rebinding)": ({"Host": "evil.example"}, 421),
    "a foreign host name with the right port": ({"Host": "evil.example:{port}"}, 421),
    "the right host with another port": ({"Host": "127.0.0.1:1"}, 421),
    "no host": ({"Host": None}, 421),
    "a script of another site": ({"Sec_Fetch_Site": "cross-site"}, 403),
    "a script of another port of this machine": ({"Sec_Fetch_Site": "same-site"}, 403),
    "an origin elsewhere": ({"Origin": "https://evil.example"}, 403),
    "the origin of a sandboxed frame": ({"Origin": "null"}, 403),
}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("case", REFUSED)
def test_who_does_not_belong_here_gets_a_code_and_no_content(page, case, method):
    headers, status = REFUSED[case]
    headers = {name: value and value.replace("{port}", str(page.port)) for name, value in headers.items()}
    answer, content = page.ask(method, **headers)
    assert (answer.status, content, page.seen) == (status, b"", [])


def test_the_token_in_the_address_becomes_a_cookie_and_leaves_the_address(page):
    answer, content = page.ask(path=f"/?token={TOKEN.text}", Cookie=None, Sec_Fetch_Site="none")
    assert (answer.status, answer.getheader("Location"), content) == (303, "/", b"")
    cookie = answer.getheader("Set-Cookie")
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert TOKEN.text not in cookie
    answer, content = page.ask(Cookie=cookie.partition(";")[0], Sec_Fetch_Site="none")
    assert (answer.status, content.decode()) == (200, SECRET)


def test_a_wrong_token_in_the_address_is_refused_even_with_a_good_cookie(page):
    answer, content = page.ask(path="/?token=" + "x" * 43)
    assert (answer.status, content, page.seen) == (403, b"", [])


def test_a_program_shows_the_token_as_bearer(page):
    answer, content = page.ask(Cookie=None, Sec_Fetch_Site=None, Authorization=f"Bearer {TOKEN.text}")
    assert (answer.status, content.decode()) == (200, SECRET)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_other_methods_are_refused(page, method):
    assert page.ask(method)[0].status == 405
    assert page.seen == []


def test_a_post_needs_an_origin_even_with_the_cookie(page):
    assert page.ask("POST", "/pause", b"form=x", Origin=None, Sec_Fetch_Site=None)[0].status == 403
    assert page.ask("POST", "/pause", b"form=x")[0].status == 200
    assert page.seen == ["POST /pause form=x"]


def test_a_large_form_is_refused_before_it_is_read(page):
    assert page.ask("POST", "/pause", b"x" * (MAX_BODY_BYTES + 1))[0].status == 413
    assert page.seen == []


def test_health_is_open_to_this_machine_and_says_one_word(page):
    answer, content = page.ask(path="/healthz", Cookie=None, Sec_Fetch_Site=None)
    assert (answer.status, content) == (200, b"ok\n")
    assert page.ask(path="/healthz", Cookie=None, Host="evil.example")[0].status == 421
    assert page.ask("POST", "/healthz", Cookie=None)[0].status == 401


@pytest.mark.parametrize("headers", [{}, {"Cookie": None}, {"Host": "evil.example"}])
def test_every_answer_forbids_what_comes_from_elsewhere(page, headers):
    answer, _ = page.ask(**headers)
    policy = answer.getheader("Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert answer.getheader("X-Frame-Options") == "DENY"
    assert answer.getheader("Cache-Control") == "no-store"
    assert answer.getheader("Referrer-Policy") == "no-referrer"
    assert answer.getheader("Access-Control-Allow-Origin") is None


def test_a_token_is_made_once_and_only_its_owner_can_read_it(tmp_path):
    file = tmp_path / "page.token"
    made = page_token(file)
    assert len(made.text) >= 43
    assert file.stat().st_mode & 0o777 == 0o600
    assert page_token(file) == made
    assert len({made.text, made.cookie, made.form}) == 3
    assert page_address(8090, made) == f"http://127.0.0.1:8090/?token={made.text}"


def test_a_token_that_others_can_read_or_that_is_none_is_refused(tmp_path):
    file = tmp_path / "page.token"
    page_token(file)
    file.chmod(0o644)
    with pytest.raises(KeyExposedError):
        read_page_token(file)
    file.chmod(0o600)
    file.write_text("secret\n")
    with pytest.raises(KeyInvalidError):
        read_page_token(file)


def test_a_port_that_is_taken_is_said(tmp_path):
    listener = _listener(0)
    with pytest.raises(FileUnreadableError, match="cannot listen"):
        serve_page(lambda: small_app([]), tmp_path, port=listener.getsockname()[1], on_ready=lambda _port: None)
    listener.close()


def test_the_page_listens_on_loopback_only(page):
    state = "0A"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    rows += [line.split() for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]]
    ours = [row[1] for row in rows if row[3] == state and row[1].endswith(f":{page.port:04X}")]
    assert ours == [f"0100007F:{page.port:04X}"]
