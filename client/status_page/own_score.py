"""How the model does on this hospital's own held-out patients, with outlines on slices: for eyes inside.

The figures and slices are those that `fedward-site model score --for-page` sealed last; nothing is computed here.
"""

from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from client.final_model.kept_score import KeptScore, load_score
from client.installation.folder import SiteFolder
from common.web.fields import number_in
from common.web.markup import element, join
from common.web.shell import page, paragraph, section

COLUMNS = (
    "structure",
    "Dice",
    "mean label map, no scan",
    "HD95, mm",
    "surface Dice",
    "volume off, ml",
    "lesions found",
)


def own_score_routes(folder: SiteFolder, name: str) -> list[Route]:
    """Return the routes of the page and its slices."""

    def shown(_request: Request) -> Response:
        return HTMLResponse(own_score_html(name, load_score(folder)))

    def own_slice(request: Request) -> Response:
        number, kept = number_in(request.path_params["number"]), load_score(folder)
        if kept is None or number is None or not 1 <= number <= len(kept.slices):
            return Response(status_code=404)
        return Response(kept.slices[number - 1][1], media_type="image/png")

    return [Route("/model", shown), Route("/model/{number}.png", own_slice)]


def own_score_html(name: str, kept: KeptScore | None) -> str:
    """Return the page."""
    top = join(element("p", "Fedward site", class_="kind"), element("h1", f"{name}: the model here"))
    back = element("p", element("a", "back", href="/"))
    if kept is None:
        words = paragraph("No score was kept. `fedward-site model score --for-page` keeps one of a segmentation.")
        return page(f"{name}: model", top=top, main=section("The model here", words, back), footer=FOOTER)
    head = element("tr", *(element("th", column) for column in COLUMNS))
    rows = [element("tr", *(element("td", cell) for cell in _cells(one))) for one in kept.structures]
    shown = [
        element(
            "figure",
            element("img", src=f"/model/{number}.png", alt="slice with outlines", width="240"),
            element("figcaption", f"Dice {dice:.2f}"),
        )
        for number, (dice, _) in enumerate(kept.slices, start=1)
    ]
    note = "Held-out patients from the worst to the best: the expert's outline is light blue, the model's orange."
    title = f"Study {kept.study}, weights {kept.model[:12]}"
    main = section(title, element("table", head, *rows), paragraph(note, small=True), *shown, back)
    return page(f"{name}: model", top=top, main=main, footer=FOOTER)


FOOTER = "For eyes inside this hospital only: exact figures and patients' images."


def _cells(row: dict[str, Any]) -> list[str]:
    found = row.get("structure") or {}
    dice = [row.get(name) for name in ("dice", "dice_atlas_only")]
    figures = [found.get(key) for key in ("hd95_mm", "surface_dice", "volume_error_ml", "lesion_sensitivity")]
    shown = ["-" if one is None else f"{one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f})" for one in dice]
    return [str(row["name"]), *shown, *("-" if figure is None else f"{figure:.3f}" for figure in figures)]
