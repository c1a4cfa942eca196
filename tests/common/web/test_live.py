"""The page keeps itself new, in a real browser, under its own content security policy."""

import re
import threading

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from common.web.door import Door, page_address
from common.web.markup import element
from common.web.page_token import PageToken
from common.web.serving import _listener
from common.web.shell import asset_routes, page
from tests.browser import CHROMIUM, as_browsed

TOKEN = PageToken("t" * 43)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: the script cannot be run")
def test_a_browser_takes_the_cookie_and_renews_what_changed(tmp_path):
    asked = []

    def home(_request) -> HTMLResponse:
        asked.append(len(asked) + 1)
        shown = page(f"visit {asked[-1]}", top="", main=element("p", f"visit {asked[-1]}"), footer="")
        return HTMLResponse(shown)

    listener = _listener(0)
    port = listener.getsockname()[1]
    door = Door(Starlette(routes=[Route("/", home), *asset_routes()]), lambda: TOKEN, port=port)
    server = uvicorn.Server(uvicorn.Config(door, log_level="error", lifespan="off", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    built = as_browsed(page_address(port, TOKEN), tmp_path / "browser", "--virtual-time-budget=9000")
    server.should_exit = True
    thread.join(10)
    visit = int(re.search(r"<main><p>visit (\d+)</p></main>", built).group(1))
    assert visit >= 3
    assert visit == asked[-1]
    assert f"<title>visit {visit}</title>" in built
    assert "is-stale" not in re.search(r"<body[^>]*>", built).group(0)
