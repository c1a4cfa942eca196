"""fedward-site annotate: a first drawing of what nobody has labelled, for a radiologist to correct."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from client.commands.model import ModelOption, model_device, studies_done
from client.commands.site_folder import SiteFolderHere
from client.dicom.cache import Cache
from client.dicom.errors import NothingUsableError
from client.dicom.masks import MaskForm, MaskWriter, new_folder
from client.final_model.annotating import Annotations
from client.final_model.annotating import annotate as run_annotate
from client.final_model.predictions import RESEARCH_ONLY
from client.final_model.receiving import FinalModel, open_model
from client.installation.folder import SiteFolder
from common.errors import FileUnreadableError
from common.plan.task import TaskKind
from common.terminal import JsonOption, errors, output, print_json


def annotate(
    scans: Annotated[Path, typer.Argument(help="The folder of scans that was ingested; it is only read.")],
    *,
    target: Annotated[Path, typer.Option("--output", help="New folder for the masks (DICOM SEG); not in the scans.")],
    site_folder: SiteFolderHere = Path(),
    model: ModelOption = "",
    as_json: JsonOption = False,
) -> None:
    """Draw the model's masks of all studies that nobody has labelled, for a radiologist to correct.

    They are DICOM SEG on the slices of the scans, with the patient's identifiers, as a viewer needs them. Correct them
    in a viewer, put what was corrected into the folder of scans, and `ingest` takes it as labels. A mask that nobody
    has looked at is no label: put none of those there.

    Example: `fedward-site annotate /srv/dicom --output to-correct --site-folder /srv/fedward`
    """
    folder = SiteFolder(site_folder)
    opened = open_model(folder, model)
    if opened.plan.task.kind is not TaskKind.SEGMENTATION:
        raise typer.BadParameter(f"annotate draws masks; this model's task is {opened.plan.task.kind}")
    if target.resolve().is_relative_to(scans.resolve()):
        raise FileUnreadableError("--output lies inside the folder of scans, which is only read; choose another place")
    new_folder(target)
    with _kept_if_used(target), studies_done("drawing", hidden=not errors.is_terminal or as_json) as progress:
        found = run_annotate(
            folder, opened, scans, lambda cache, secret: _writer(opened, scans, target, cache, secret),
            device=model_device(folder), progress=progress,
        )  # fmt: skip
    _report(found, opened, target, as_json=as_json)
    if not found.written:
        raise NothingUsableError(
            f"no mask was written: {found.changed} unlabelled scans are not here as they were ingested, "
            f"{len(found.refused)} could not be drawn; is it the folder that was ingested?"
        )


def _writer(model: FinalModel, scans: Path, target: Path, cache: Cache, secret: bytes) -> MaskWriter:
    plan = model.plan
    return MaskWriter(
        target, scans, cache.settings, form=MaskForm.SEG, secret=secret, rules=cache.rules,
        study=plan.study.name, model=model.digest, lesions=plan.task.lesions,
    )  # fmt: skip


@contextmanager
def _kept_if_used(folder: Path) -> Iterator[None]:
    """Remove the new folder again where nothing came into it."""
    try:
        yield
    finally:
        if not any(folder.iterdir()):
            folder.rmdir()


def _report(found: Annotations, model: FinalModel, target: Path, *, as_json: bool) -> None:
    refused = {code.value: count for code, count in Counter(found.refused).most_common()}
    if as_json:
        facts = {"model": model.digest, "output": str(target), "masks_written": found.written}
        print_json({**facts, "changed": found.changed, "masks_lacking": refused, "use": RESEARCH_ONLY})
        return
    output.print(f"wrote {found.written} masks to {target}; they name their patients, as DICOM demands", markup=False)
    for code, count in refused.items():
        output.print(f"no mask: {count} series, {code} (docs/scans.md)")
    if found.changed:
        output.print(f"{found.changed} unlabelled scans are not here as they were ingested: ingest again first")
    if found.written:
        output.print("Next: correct them in a viewer, put what was corrected into the scans, and `fedward-site ingest`")
    output.print(f"[bold]{RESEARCH_ONLY}[/]")
