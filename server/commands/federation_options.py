"""What the coordinator's commands share: the option for the federation folder, and finding a study in it."""

from pathlib import Path
from typing import Annotated

import typer

from server.federation.config import CoordinatorConfig, read_coordinator_config
from server.federation.folder import PLAN, FederationFolder

FolderOption = Annotated[Path, typer.Option("--folder", envvar="FEDWARD_FEDERATION", help="The federation folder.")]
StudyArgument = Annotated[str, typer.Argument(help="Name of the study.")]
HERE = Path()


def federation_at(path: Path) -> tuple[FederationFolder, CoordinatorConfig]:
    """Return a federation folder and its settings. Raises: FederationInvalidError, NotTomlError."""
    folder = FederationFolder(path.resolve())
    folder.require()
    return folder, read_coordinator_config(folder.config)


def study_at(study: str, path: Path) -> Path:
    """Return the folder of a study: a folder with a plan in it, or the name of one in the federation at ``path``.

    Raises: FederationInvalidError.
    """
    if (Path(study) / PLAN).is_file():
        return Path(study)
    folder, _ = federation_at(path)
    return folder.existing_study(study)
