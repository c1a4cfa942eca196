"""The coordinator's page as a web application; who gets in is decided before it (``common.web.door``)."""

from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from common.errors import FedwardError
from common.trust.roster import read_roster
from common.web.prometheus import CONTENT_TYPE, exposition
from common.web.shell import asset_routes
from server.status_page.facts import Studies, StudyFacts
from server.status_page.federation import federation_metrics, federation_section
from server.status_page.metrics import coordinator_metrics
from server.status_page.page import overview, study_page


def coordinator_page(folder: Path) -> Starlette:
    """Return the application for a federation folder, or for the folder of one study."""
    studies = Studies(folder)
    alone = (folder / "study.toml").exists()

    def home(_request: Request) -> Response:
        if alone:
            return RedirectResponse(f"/study/{studies.names()[0]}", status_code=303)
        return HTMLResponse(overview(_federation(folder), studies.all(), federation_section(folder)))

    def study(request: Request) -> Response:
        reader = studies.reader(request.path_params["name"])
        if reader is None:
            return PlainTextResponse("there is no such study here; go back\n", status_code=404)
        try:
            found = reader.read(studies.connected())
        except FedwardError as error:
            return PlainTextResponse(f"{error}\n", status_code=500)
        return HTMLResponse(study_page(_federation(folder), found, reader.epsilon_seen_by(found.plan), alone=alone))

    def metrics(_request: Request) -> Response:
        readable = [each for each in studies.all() if isinstance(each, StudyFacts)]
        found = coordinator_metrics(readable) + federation_metrics(folder)
        return Response(exposition(found), media_type=CONTENT_TYPE)

    def ready(_request: Request) -> Response:
        is_ready = all(isinstance(each, StudyFacts) for each in studies.all())
        return PlainTextResponse("ready\n" if is_ready else "not ready\n", status_code=200 if is_ready else 503)

    return Starlette(
        routes=[
            Route("/", home),
            Route("/study/{name}", study),
            Route("/metrics", metrics),
            Route("/healthz", lambda _request: PlainTextResponse("ok\n")),
            Route("/readyz", ready),
            *asset_routes(),
        ]
    )


def _federation(folder: Path) -> str:
    for roster in (folder / "roster.json", *folder.glob("studies/*/roster.json")):
        try:
            return read_roster(roster).federation
        except FedwardError:
            continue
    return folder.resolve().name
