"""fedward-site model: what a hospital joined for: receive the final model, score it, use it."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import Progress as ProgressBar
from rich.progress import track
from torch import Tensor

from client.commands.ingest import watching
from client.commands.score_table import print_score
from client.commands.site_folder import SiteFolderHere
from client.dicom.errors import NothingUsableError
from client.dicom.masks import MaskForm, MaskWriter, new_folder
from client.dicom.settings import IngestSettings
from client.final_model.atlas import mean_label_map
from client.final_model.kept_score import keep_score
from client.final_model.outlined_slices import outlined_slice
from client.final_model.predicting import predict
from client.final_model.predictions import RESEARCH_ONLY, Predictions, figure_names
from client.final_model.receiving import FinalModel, open_model, receive
from client.final_model.scoring import score
from client.installation.config import read_site_config
from client.installation.folder import SiteFolder
from client.learning.cached_patients import CachedPatients
from client.trainer.remote_encoder import remote_features
from common.errors import FileUnreadableError, OutputExistsError
from common.files import write_new
from common.plan.task import TaskKind
from common.terminal import JsonOption, errors, output, print_json

ModelOption = Annotated[str, typer.Option("--model", help="First digits of a model's digest; default: the newest.")]

model_app = typer.Typer(name="model", help="Receive, score and use a study's final model.", no_args_is_help=True)


@model_app.command("receive")
def receive_model(
    release: Annotated[Path, typer.Argument(help="The release: a folder or a .zip from the coordinator.")],
    *,
    site_folder: SiteFolderHere = Path(),
    as_json: JsonOption = False,
) -> None:
    """Take in a final model, after checking signature, plan, digests and weights.

    Example: `fedward-site model receive released.zip --site-folder /srv/fedward`
    """
    model = receive(SiteFolder(site_folder), release)
    facts = {"model": model.digest, "plan": model.plan.digest(), "study": model.plan.study.name}
    if as_json:
        print_json(facts)
        return
    output.print(f"received the model of {facts['study']}: weights {model.digest}", markup=False)
    _warn_of_unfinished(model, output)
    if model.plan.evaluation.held_out:
        output.print(f"Next: `fedward-site model score --site-folder {site_folder}`", markup=False)
    else:
        output.print(
            "Its plan held nobody out, so nobody here is left to score it on. Next: `fedward-site model predict FOLDER "
            f"--output FILE.csv --site-folder {site_folder}`, on scans that are not in the cache",
            markup=False,
        )


@model_app.command("score")
def score_model(
    *,
    site_folder: SiteFolderHere = Path(),
    model: ModelOption = "",
    for_page: Annotated[
        bool,
        typer.Option("--for-page", help="Segmentation: keep figures and some slices, sealed, for the site's page."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Score the model on this hospital's own held-out patients, who were never trained on.

    Of a segmentation also distances of boundaries in mm, errors of volumes, the lesions that were found, and the Dice
    of this hospital's mean label map, which looks at no scan.
    The figures are exact, computed here and kept here: nothing leaves and no privacy is spent. Do not send them out.

    Example: `fedward-site model score --site-folder /srv/fedward`
    """
    folder = SiteFolder(site_folder)
    opened = open_model(folder, model)
    task = opened.plan.task
    if for_page and task.kind is not TaskKind.SEGMENTATION:
        raise typer.BadParameter(f"--for-page keeps outlines of a segmentation; this model's task is {task.kind}")
    if not opened.plan.evaluation.held_out:
        raise NothingUsableError(
            "the plan of this model held nobody out (evaluation.held_out = false): every labelled patient here taught "
            "it, and a score on them would say nothing. Try it on scans that are not in the cache: `fedward-site model "
            "predict FOLDER --output FILE.csv`"
        )
    patients = _patients(folder, opened)
    keys = track(patients.held_out(), "scoring", console=errors, transient=True, disable=not errors.is_terminal)
    atlas = mean_label_map({"": patients}, classes=len(task.classes)) if task.kind is TaskKind.SEGMENTATION else None
    slices: list[tuple[float, bytes]] = []

    def draw(image: Tensor, expert: Tensor, answer: Tensor, dice: float) -> None:
        pixels = image.numpy().squeeze(0) if len(image) == 1 else image.numpy()
        slices.append((dice, outlined_slice(pixels, expert.numpy(), answer.numpy())))

    found = score(
        opened.network.to(model_device(folder)), task, map(patients.read, keys),
        window=opened.plan.image.patch_px, spacing_mm=opened.plan.image.spacing_mm, atlas=atlas,
        draw=draw if for_page else None,
    )  # fmt: skip
    if for_page:
        keep_score(folder, model=opened.digest, study=opened.plan.study.name, score=found, slices=slices)
    if as_json:
        print_json({"model": opened.digest, "plan": opened.plan.digest(), **asdict(found), "left_the_site": "nothing"})
    else:
        print_score(found)


@model_app.command("predict")
def predict_scans(
    scans: Annotated[Path, typer.Argument(help="Folder with new scans; it is only read.")],
    *,
    target: Annotated[Path, typer.Option("--output", help="CSV file to write (0600); not beside the scans.")],
    site_folder: SiteFolderHere = Path(),
    model: ModelOption = "",
    form: Annotated[
        MaskForm | None, typer.Option("--as", help="Segmentation: what masks are written as (seg when left out).")
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option("--masks", help="Segmentation: new folder for masks; default: beside the table, with -masks."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Worker processes that read scans.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Say what the model thinks of new scans: one row for each study; files that cannot be used are listed by code.

    Of a segmentation one row for each series (2-D: picture) with the volume of each structure, and its mask as a file:
    DICOM SEG or NIfTI. SEG holds the patient's identifiers, as DICOM demands: it stays in the hospital like the scans.
    Files are numbered in the order of their names, folder by folder, from 1; no name or identifier is written.
    Research use only, not a medical device.

    Example: `fedward-site model predict new-scans/ --output predictions.csv --site-folder /srv/fedward`
    """
    folder = SiteFolder(site_folder)
    if target.resolve().is_relative_to(scans.resolve()):
        raise FileUnreadableError("--output lies inside the folder of scans, which is only read; choose another place")
    if target.exists():  # told before the work, and made sure of after it
        raise OutputExistsError(f"{target}: exists already and was left alone; choose another name")
    opened = open_model(folder, model)
    _warn_of_unfinished(opened, errors)
    writing = _masks(opened, scans, target, masks, form)
    device, quiet = model_device(folder), not errors.is_terminal or as_json
    with (
        watching(hidden=quiet) as reading,
        studies_done("predicting", hidden=quiet) as predicting,
        remote_features(folder, opened.plan) as features,
    ):
        found = predict(
            opened.network.to(device), opened.plan, scans,
            workers=workers, device=device, temporary=folder.path, reading=reading, predicting=predicting,
            features=features, masks=writing.make if writing else None,
        )  # fmt: skip
    write_new(target, found.to_csv().encode(), 0o600)
    _report_predictions(found, opened, target, writing.folder if writing else None, as_json=as_json)
    if not found.rows:
        raise NothingUsableError(f"none of {len(found.refused)} files can be used; see the codes, and docs/scans.md")


@dataclass(frozen=True)
class _Masks:
    """Where the masks of a model's answers go, and as what."""

    model: FinalModel
    scans: Path
    folder: Path
    form: MaskForm

    def make(self, settings: IngestSettings, secret: bytes) -> MaskWriter:
        task = self.model.plan.task
        return MaskWriter(
            self.folder, self.scans, settings, form=self.form, secret=secret,
            study=self.model.plan.study.name, model=self.model.digest, lesions=task.lesions,
        )  # fmt: skip


def _masks(model: FinalModel, scans: Path, target: Path, folder: Path | None, form: MaskForm | None) -> _Masks | None:
    """Return how masks are written, None for a model that draws none; options without effect are refused.

    Raises: OutputExistsError, FileUnreadableError, UsageError.
    """
    task = model.plan.task
    if task.kind is not TaskKind.SEGMENTATION:
        if folder is not None or form is not None:
            raise typer.BadParameter(f"--masks and --as are for a segmentation; this model's task is {task.kind}")
        return None
    if form is MaskForm.NIFTI and task.dimensions == 2:
        raise typer.BadParameter("--as nifti is for volumes; this study's images are pictures, so leave it out")
    folder = folder or target.with_name(target.stem + "-masks")
    if folder.resolve().is_relative_to(scans.resolve()):
        raise FileUnreadableError("--masks lies inside the folder of scans, which is only read; choose another place")
    new_folder(folder)
    return _Masks(model, scans, folder, form or MaskForm.SEG)


@contextmanager
def studies_done(doing: str, *, hidden: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Show how far a model is with its studies, while a person watches; yields what is to be told."""
    if hidden:
        yield None
        return
    with ProgressBar(console=errors, transient=True) as bar:
        task = bar.add_task(doing, total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


def _warn_of_unfinished(model: FinalModel, console: Console) -> None:
    """Say where a model was exported before its study's end."""
    if model.card.get("finished"):
        return
    applied, planned = model.card.get("rounds_applied"), model.card.get("rounds_planned")
    rounds = f" ({applied} of {planned} rounds)" if isinstance(applied, int) and isinstance(planned, int) else ""
    console.print(
        f"its card says that the study was not finished when it was exported{rounds}: what a later phase trains is as "
        "it began, so it may answer the same to every scan",
        markup=False,
    )


def _patients(folder: SiteFolder, model: FinalModel) -> CachedPatients:
    return CachedPatients.of_site(folder, model.plan)


def model_device(folder: SiteFolder) -> torch.device:
    """Return where models run here, by site.toml."""
    return torch.device(read_site_config(folder.config).speed.device if folder.config.exists() else "cpu")


def _report_predictions(
    found: Predictions, model: FinalModel, target: Path, masks: Path | None, *, as_json: bool
) -> None:
    codes = {code.value: count for code, count in Counter(found.refused.values()).most_common()}
    facts = {"model": model.digest, "studies": found.studies, "refused": codes, "output": str(target)}
    written = sum(bool(row.mask) for row in found.rows)
    lacking = Counter(row.mask_code for row in found.rows if row.mask_code)
    if masks is not None:
        names = figure_names(model.plan)
        series = [
            {"series": number, "study": row.study, "mask": row.mask, **dict(zip(names, row.figures, strict=True))}
            for number, row in enumerate(found.rows, start=1)
        ]
        facts |= {"classes": list(model.plan.task.classes)}  # numbers of a NIfTI mask are places in this list
        facts |= {"masks": str(masks), "masks_written": written, "masks_lacking": dict(lacking), "series": series}
    if as_json:
        print_json({**facts, "use": RESEARCH_ONLY})
        return
    output.print(f"wrote {found.studies} studies to {target}; keep it inside the hospital", markup=False)
    if masks is not None:
        output.print(f"wrote {written} masks to {masks}; they name their patients, as DICOM demands", markup=False)
    for code, count in lacking.items():
        output.print(f"no mask: {count} series, {code} (docs/scans.md)")
    for code, count in codes.items():
        output.print(f"not used: {count} files, {code} (docs/scans.md)")
    output.print(f"[bold]{RESEARCH_ONLY}[/]")
