"""Serve the coordinator's status page: ``python -m server.status_page --folder FOLDER --port 8090``."""

from pathlib import Path
from typing import Annotated

import typer

from common.processes.hardening import shut_service
from common.terminal import output, run
from common.web.serving import HOST, serve_page
from server.status_page.application import coordinator_page

app = typer.Typer(add_completion=False)


@app.command()
def serve(
    *,
    folder: Annotated[Path, typer.Option("--folder", help="The coordinator's folder, or the folder of one study.")],
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")],
) -> None:
    """Serve the page until told to end. `fedward-server page` prints its address with the token."""
    shut_service()

    def ready(taken: int) -> None:
        output.print(f"status page on http://{HOST}:{taken}/")

    serve_page(lambda: coordinator_page(folder), folder, port=port, on_ready=ready)


if __name__ == "__main__":
    run(app)
