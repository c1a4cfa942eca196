"""The option that says where a site's installation is; the environment may say it once for all commands."""

from pathlib import Path
from typing import Annotated

import typer

SiteFolderHere = Annotated[
    Path, typer.Option("--site-folder", envvar="FEDWARD_SITE", help="Folder of this site's installation.")
]
