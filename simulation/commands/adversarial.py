"""``fedward-sim adversarial``: hostile DICOM files, to try an ingest (ours or another) against."""

from pathlib import Path
from typing import Annotated

import typer

from common.terminal import JsonOption, output, print_json
from simulation.adversarial_dicom import CASES, write_cases


def adversarial(
    out: Annotated[Path, typer.Argument(help="New folder, one sub-folder for each case.")], as_json: JsonOption = False
) -> None:
    """Write hostile and damaged DICOM files: bombs, lying lengths, FIFOs, links, broken streams.

    Harmless unless opened; a careless reader may hang, crash or use up the memory.
    """
    write_cases(out)
    if as_json:
        print_json({"cases": {case.name: [sorted(outcomes) for outcomes in case.outcomes] for case in CASES}})
        return
    output.print(f"{len(CASES)} hostile cases written; the right verdicts: run again with --json into another folder")
