"""Serve the hospital's status page: ``python -m client.status_page --site-folder FOLDER --port 8765``."""

from pathlib import Path
from typing import Annotated

import typer

from client.status_page.application import hospital_page
from common.processes.hardening import shut_service
from common.terminal import output, run
from common.web.serving import HOST, serve_page

app = typer.Typer(add_completion=False)


@app.command()
def serve(
    *,
    site_folder: Annotated[Path, typer.Option("--site-folder", help="The site folder.")],
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")],
) -> None:
    """Serve the page until told to end. `fedward-site page` prints its address with the token."""
    shut_service()

    def ready(taken: int) -> None:
        output.print(f"status page on http://{HOST}:{taken}/")

    serve_page(lambda: hospital_page(site_folder), site_folder, port=port, on_ready=ready)


if __name__ == "__main__":
    run(app)
