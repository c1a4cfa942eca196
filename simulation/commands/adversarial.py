"""``fedward-sim adversarial``: hostile DICOM files, to try an ingest (ours or another) against."""

import secrets
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from common.terminal import JsonOption, output, print_json
from simulation.hostile.adversarial_trial import trials, try_ingest, write_all


def adversarial(
    out: Annotated[Path, typer.Argument(help="New folder, one sub-folder for each case.")],
    *,
    ingest: Annotated[bool, typer.Option("--ingest", help="Ingest them too and check every verdict.")] = False,
    mutations: Annotated[int, typer.Option(help="Add so many randomly damaged files.", min=0, max=1_000_000)] = 0,
    seed: Annotated[int, typer.Option(help="The same seed damages alike.", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Write hostile and damaged DICOM files: bombs, lying lengths, FIFOs, links, broken streams.

    Harmless unless opened; a careless reader may hang, crash or use up the memory.
    """
    chosen = trials(mutations, seed)
    write_all(out, chosen)
    cases = [case for _, listed in chosen.values() for case in listed]
    result: dict[str, object] = {"cases": {case.name: [sorted(right) for right in case.outcomes] for case in cases}}
    if ingest:
        with tempfile.TemporaryDirectory() as cache:
            trial = try_ingest(out, Path(cache) / "cache", secrets.token_bytes(32), chosen)
        result |= {"verdicts": trial.verdicts, "wrong": trial.wrong, "peak_memory_bytes": trial.peak_memory_bytes}
    if as_json:
        print_json(result)
        return
    output.print(f"{len(cases)} hostile cases written")
    if ingest:
        output.print(f"{len(trial.wrong)} with a wrong verdict; largest process {trial.peak_memory_bytes >> 20} MiB")
        for name in trial.wrong:
            output.print(f"  {name}: {', '.join(trial.verdicts[name])}")
