"""fedward-server export: the model of a study as files."""

from pathlib import Path
from typing import Annotated

import typer

from common.terminal import JsonOption, output, print_json
from server.model_export import WEIGHTS, export_model
from server.study_folder import open_study
from server.study_status import read_journal, require_started


def export(
    folder: Annotated[Path, typer.Argument(help="The study folder.")],
    *,
    target: Annotated[Path | None, typer.Option("--output", help="Where to write; default: FOLDER/model.")] = None,
    verify: Annotated[bool, typer.Option(help="Compute the model again from the stored sums first.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Write the model (safetensors) and its card: plan, privacy, scores, who took part.

    Example: `fedward-server export study/ --output released/`
    """
    study = open_study(folder)
    journal = require_started(read_journal(study), study)
    place = target or study.folder.model
    card = export_model(study, journal, place, verify=verify)
    journal.close()
    if as_json:
        print_json(card)
    else:
        output.print(f"wrote {place / WEIGHTS} (SHA-256 {card['weights']['sha256']}) and its card", markup=False)
