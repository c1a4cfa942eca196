"""``fedward-sim import``: a public numpy archive as folders of DICOM hospitals."""

from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from common.terminal import JsonOption
from simulation.commands.hospital_table import Count, Share, Watch, show
from simulation.errors import ScenarioInvalidError
from simulation.hospitals.differences import Differences
from simulation.hospitals.imported_hospitals import make_imported_hospitals
from simulation.hospitals.public_arrays import PublicArrays, load_public_arrays


class ImportModality(StrEnum):
    """As what the images are written; volumes need CT or MR, colour needs OP, XC or US."""

    DX = "DX"
    CR = "CR"
    CT = "CT"
    MR = "MR"
    MG = "MG"
    US = "US"
    OP = "OP"
    XC = "XC"


VOLUMES = frozenset({ImportModality.CT, ImportModality.MR})
COLOURS = frozenset({ImportModality.OP, ImportModality.XC, ImportModality.US})


def import_arrays(  # noqa: PLR0917 (typer reads options from the signature)
    archive: Annotated[Path, typer.Argument(help="A MedMNIST-style .npz file.", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Argument(help="New folder for the hospitals.")],
    modality: Annotated[
        ImportModality | None,
        typer.Option(help="Default: DX for images, MR for volumes, OP in colour.", show_default=False),
    ] = None,
    colour: Annotated[bool, typer.Option("--colour", help="Keep (N, H, W, 3) in colour, not as luminance.")] = False,
    classes: Annotated[
        str, typer.Option(help="Names of classes 0, 1, ... with commas; default: the archive's, or class_0 ...")
    ] = "",
    sites: Annotated[int, typer.Option(help="Number of hospitals.", min=1, max=1000)] = 4,
    images_per_patient: Count = 1,
    labelled: Share = 1.0,
    unlabelled_sites: Annotated[int, typer.Option(help="Hospitals without any label (the last ones).", min=0)] = 0,
    skew: Annotated[float, typer.Option(help="Dirichlet alpha of the classes' mix; 0 = dealt evenly.", min=0)] = 0.0,
    shift: Annotated[float, typer.Option(help="How much scanners differ, 0 to 1.", min=0, max=1)] = 0.5,
    formats: Annotated[bool, typer.Option(help="Let hospitals differ in file format too.")] = True,
    spacing_mm: Annotated[float, typer.Option(help="Pixel (voxel) spacing written, in mm.", min=0.01, max=50)] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same files.", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Turn a public image collection into hospitals: DICOM folders, label tables; the test set stays out in test.npz.

    Example: fedward-sim import pneumoniamnist.npz hospitals/ --sites 4 --classes normal,pneumonia --labelled 0.1
    """
    source = load_public_arrays(archive, colour=colour)
    if classes:
        source = renamed(source, tuple(name.strip() for name in classes.split(",")))
    is_volume = source.images.ndim == 4 and not colour
    chosen = modality or _usual_modality(is_volume=is_volume, colour=colour)
    if is_volume and chosen not in VOLUMES:
        raise ScenarioInvalidError(f"volumes cannot be written as {chosen}; choose --modality CT or MR")
    if colour and chosen not in COLOURS:
        raise ScenarioInvalidError(f"colour cannot be written as {chosen}; choose --modality OP, XC or US")
    try:
        differences = Differences(
            sites=sites,
            images_per_patient=images_per_patient,
            labelled_share=labelled,
            unlabelled_sites=unlabelled_sites,
            skew_alpha=skew,
            shift=shift,
            formats=formats,
            seed=seed,
        )
        files = len(source.images) * (source.images.shape[1] if is_volume else 1)
        with Watch("writing hospitals", files, quiet=as_json) as watch:
            hospitals = make_imported_hospitals(
                out, source, chosen.value, differences, spacing_mm=(spacing_mm,) * 3, progress=watch.reached
            )
    except ValueError as error:
        raise ScenarioInvalidError(str(error)) from None
    show(hospitals, as_json=as_json, content={"classes": source.class_names, "differences": asdict(differences)})


def _usual_modality(*, is_volume: bool, colour: bool) -> ImportModality:
    if colour:
        return ImportModality.OP
    return ImportModality.MR if is_volume else ImportModality.DX


def renamed(source: PublicArrays, names: tuple[str, ...]) -> PublicArrays:
    """Give the classes other names; there must be one for each."""
    if len(names) != len(source.class_names) or not all(names):
        raise ScenarioInvalidError(f"{len(names)} class names were given, the archive has {len(source.class_names)}")
    return replace(source, class_names=names)
