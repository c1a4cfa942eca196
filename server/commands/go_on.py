"""fedward-server study go-on: a study that waits asks every hospital at once."""

from common.terminal import output
from server.commands.federation_options import HERE, FolderOption, StudyArgument, federation_at
from server.deployment.study_wanting import want


def go_on(study: StudyArgument, *, folder: FolderOption = HERE) -> None:
    """Have a study that waits ask every hospital at once, also those that refused; one that was stopped goes on.

    Example: `fedward-server study go-on lungs-2026`
    """
    federation, _ = federation_at(folder)
    want(federation, study)
    output.print(
        f"{study} asks every hospital at once; `fedward-server status {study}` shows how far it is", markup=False
    )
