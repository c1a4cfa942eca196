"""Who gets in to a status page: numbered checks on every request, before any of the page's code runs.

1. the Host header names this loopback address and port      else 421   a foreign name that resolves to 127.0.0.1
2. the request comes from this page, or from the address bar  else 403   another site's script, form, frame or picture
3. the method is GET, HEAD or POST                           else 405
4. ``/healthz`` and ``/readyz`` are open: they say one word
5. the token: in the address once, then as cookie, or as ``Authorization: Bearer``   else 401 (none) or 403 (wrong)
6. what a POST carries is small                              else 413

A refusal has no body. Every answer carries headers that forbid scripts, frames, pictures and addresses of others.
Limit: browsers send a cookie of 127.0.0.1 to every port of it, so another person's web server on the same machine,
opened in the same browser, would receive it. Open the page from a machine, or a browser profile, of your own.
Sources: OWASP Cross-Site Request Forgery Prevention; W3C Fetch Metadata; DNS rebinding, Jackson et al., CCS 2007.
"""

from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Final

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.web.page_token import PageToken, same

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
MAX_BODY_BYTES: Final = 8192
MAX_TOKEN_CHARACTERS: Final = 128
TOKEN_KEY: Final = "token"  # noqa: S105 (the name of a part of the address)
SECURITY_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


class Door:
    """ASGI application that lets through to ``app`` what passes the checks. ``port``: where the page listens."""

    def __init__(self, app: ASGIApp, token: Callable[[], PageToken], *, port: int) -> None:
        self._app, self._token = app, token
        self._hosts = frozenset({f"127.0.0.1:{port}", f"localhost:{port}"})
        self._cookie = f"fedward_{port}"  # cookies know no ports: each page needs a name of its own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return  # no web socket is spoken here, and nothing is to be done at start and end
        refused = self._refusal(scope)
        guarded = _with_headers(send)
        await (refused or self._app)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return the answer to a request that does not reach the page; None for one that does."""
        headers, method, path = Headers(scope=scope), scope["method"], scope["path"]
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:  # (1)
            return Response(status_code=421)
        if not _comes_from_here(headers, hosts[0], method):  # (2)
            return Response(status_code=403)
        if method not in {"GET", "HEAD", "POST"}:  # (3)
            return Response(status_code=405)
        if path in OPEN_PATHS and method != "POST":  # (4)
            return None
        refused = self._entry(scope, headers)  # (5)
        if refused is None and method == "POST" and not _is_small(headers):  # (6)
            return Response(status_code=413)
        return refused

    def _entry(self, scope: Scope, headers: Headers) -> Response | None:
        token = self._token()
        offered = QueryParams(scope["query_string"]).get(TOKEN_KEY)
        if offered is not None and scope["method"] == "GET":
            return self._first_visit(token) if _fits(offered, token.text) else Response(status_code=403)
        bearer = headers.get("authorization", "")
        if bearer:
            return None if _fits(bearer.removeprefix("Bearer "), token.text) else Response(status_code=403)
        cookie = _cookie_value(headers, self._cookie)
        if not cookie:
            return Response(status_code=401)
        return None if _fits(cookie, token.cookie) else Response(status_code=403)

    def _first_visit(self, token: PageToken) -> Response:
        """Take the token out of the address, so that it stays in no history entry, and put the cookie in its place."""
        answer = Response(status_code=303, headers={"Location": "/"})
        answer.set_cookie(self._cookie, token.cookie, httponly=True, samesite="strict", path="/")
        return answer


def page_address(port: int, token: PageToken) -> str:
    """Return the address to open in a browser, token included: show it to nobody."""
    return f"http://127.0.0.1:{port}/?{TOKEN_KEY}={token.text}"


def _comes_from_here(headers: Headers, host: str, method: str) -> bool:
    """Tell whether the page itself, the address bar or a program asks, by what browsers say and pages cannot forge.

    A POST must name its origin: every browser does.
    """
    origin = headers.get("origin")
    if origin is None and method == "POST" and "authorization" not in headers:
        return False
    if origin is not None and origin.lower() != f"http://{host.lower()}":
        return False
    return headers.get("sec-fetch-site", "none") in {"none", "same-origin"}


def _fits(offered: str, expected: str) -> bool:
    return len(offered) <= MAX_TOKEN_CHARACTERS and same(offered, expected)


def _cookie_value(headers: Headers, name: str) -> str:
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return ""
    return cookies[name].value if name in cookies else ""


def _is_small(headers: Headers) -> bool:
    length = headers.get("content-length", "")
    return length.isascii() and length.isdigit() and len(length) < 8 and int(length) <= MAX_BODY_BYTES


def _with_headers(send: Send) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers[name] = value
        await send(message)

    return guarded
