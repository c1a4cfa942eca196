"""The hospital's page as a web application; who gets in is decided before it (``common.web.door``)."""

from collections.abc import Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from client.agent.control_client import ControlClient
from client.agent.errors import AgentUnavailableError
from client.consent.approval import MAX_NAME_CHARACTERS
from client.consent.pausing import pause, resume
from client.installation.config import read_site_config
from client.installation.folder import SiteFolder
from client.status_page.facts import SiteReader
from client.status_page.metrics import site_metrics
from client.status_page.own_score import own_score_routes
from client.status_page.page import site_page
from client.status_page.sheet import SheetReader, sheet_html
from common.errors import FedwardError
from common.web.fields import number_in, read_form
from common.web.page_token import FILE_NAME, page_token, same
from common.web.prometheus import CONTENT_TYPE, exposition
from common.web.shell import asset_routes


def hospital_page(path: Path) -> Starlette:
    """Return the application for the site folder at ``path``."""
    folder = SiteFolder(path)
    reader = SiteReader(folder, _name(folder))
    sheets = SheetReader(folder)
    reader.read()  # begins to add up the ledger before somebody looks

    def home(_request: Request) -> Response:
        return HTMLResponse(site_page(reader.read(), form_token=page_token(path / FILE_NAME).form))

    def metrics(_request: Request) -> Response:
        return Response(exposition(site_metrics(reader.read())), media_type=CONTENT_TYPE)

    def ready(_request: Request) -> Response:
        facts = reader.read()
        is_ready = facts.agent is not None and not facts.paused and not facts.troubles
        return PlainTextResponse("ready\n" if is_ready else "not ready\n", status_code=200 if is_ready else 503)

    def sheet(request: Request) -> Response:
        number = number_in(request.path_params["number"])
        if number is None:
            return PlainTextResponse("there is no such page of images; go back\n", status_code=404)
        return HTMLResponse(sheet_html(reader.name, *sheets.look(), number))

    def sheet_image(request: Request) -> Response:
        number = number_in(request.path_params["number"])
        drawn = None if number is None else sheets.draw(number)
        return Response(drawn, media_type="image/png") if drawn else Response(status_code=404)

    return Starlette(
        routes=[
            Route("/", home),
            Route("/pause", _action(folder, _pause), methods=["POST"]),
            Route("/resume", _action(folder, _resume), methods=["POST"]),
            *own_score_routes(folder, reader.name),
            Route("/sheet/{number}.png", sheet_image),
            Route("/sheet/{number}", sheet),
            Route("/metrics", metrics),
            Route("/healthz", lambda _request: PlainTextResponse("ok\n")),
            Route("/readyz", ready),
            *asset_routes(),
        ]
    )


def _action(folder: SiteFolder, act: Callable[[SiteFolder, str], None]) -> Callable[[Request], object]:
    """Return the answer to a form that carries this page's own token and a person's name."""

    async def answer(request: Request) -> Response:
        form = read_form(await request.body())
        if form is None:
            return PlainTextResponse("this form has more fields than the page's own; go back\n", status_code=400)
        token, person = form.get("form", ""), form.get("person", "").strip()
        if not same(token, page_token(folder.path / FILE_NAME).form):
            return Response(status_code=403)
        if not 1 <= len(person) <= MAX_NAME_CHARACTERS or not person.isprintable():
            return PlainTextResponse("a name of 1 to 100 printable characters is needed; go back\n", status_code=400)
        try:
            await run_in_threadpool(act, folder, person)
        except FedwardError as error:
            return PlainTextResponse(f"{error}\n", status_code=500)
        return RedirectResponse("/", status_code=303)

    return answer


def _pause(folder: SiteFolder, person: str) -> None:
    """Pause by the agent, which then shows it at once; by the files where no agent answers."""
    try:
        with ControlClient(folder.control_socket) as agent:
            agent.pause(person=person)
    except AgentUnavailableError:
        pause(folder, person=person)


def _resume(folder: SiteFolder, person: str) -> None:
    try:
        with ControlClient(folder.control_socket) as agent:
            agent.resume(person=person)
    except AgentUnavailableError:
        resume(folder, person=person)


def _name(folder: SiteFolder) -> str:
    try:
        return read_site_config(folder.config).site.name
    except FedwardError:
        return folder.path.resolve().name
