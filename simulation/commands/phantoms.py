"""``fedward-sim phantoms``: hospitals full of generated scans with known lesions."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from common.terminal import JsonOption
from simulation.commands.hospital_table import Count, Share, Watch, show
from simulation.errors import ScenarioInvalidError
from simulation.hospitals.differences import Differences
from simulation.hospitals.phantom_hospitals import PhantomRequest, make_phantom_hospitals
from simulation.hospitals.phantoms import PhantomKind


def phantoms(  # noqa: PLR0917 (typer reads options from the signature)
    out: Annotated[Path, typer.Argument(help="New folder for the hospitals.")],
    kind: Annotated[PhantomKind, typer.Option(help="Chest radiographs, chest CT, or head MR.")] = PhantomKind.XRAY,
    sites: Annotated[int, typer.Option(help="Number of hospitals.", min=1, max=1000)] = 4,
    patients: Annotated[int, typer.Option(help="Patients of each hospital.", min=1, max=100_000)] = 100,
    images_per_patient: Count = 1,
    labelled: Share = 1.0,
    unlabelled_sites: Annotated[int, typer.Option(help="Hospitals without any label (the last ones).", min=0)] = 0,
    skew: Annotated[float, typer.Option(help="Dirichlet alpha of the classes' mix; 0 = the same mix.", min=0)] = 0.0,
    shift: Annotated[float, typer.Option(help="How much scanners differ, 0 to 1.", min=0, max=1)] = 1.0,
    formats: Annotated[bool, typer.Option(help="Let hospitals differ in file format too.")] = True,
    size_px: Annotated[int, typer.Option(help="Side of an image in pixels.", min=16, max=1024)] = 64,
    depth: Annotated[int, typer.Option(help="Slices of a volume (CT, MR); 0 = single images.", min=0, max=512)] = 0,
    lesions: Annotated[int, typer.Option(help="Kinds of lesions to draw; 0 = all.", min=0, max=3)] = 1,
    segmented: Annotated[bool, typer.Option(help="Label by DICOM segmentation instead of a class.")] = False,
    difficulty: Annotated[float, typer.Option(help="1 is learnable; higher is harder.", min=0.05, max=100)] = 1.0,
    test_patients: Annotated[int, typer.Option(help="Size of the test set that no hospital holds.", min=0)] = 200,
    seed: Annotated[int, typer.Option(help="The same seed gives the same files.", min=0)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Write hospitals with generated scans: DICOM folders, label tables, a test set.

    Example: fedward-sim phantoms hospitals/ --sites 4 --patients 500 --labelled 0.1
    """
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
        request = PhantomRequest(
            kind=kind,
            patients=patients,
            size_px=size_px,
            depth=depth,
            lesions=lesions,
            difficulty=difficulty,
            segmented=segmented,
            test_patients=test_patients,
        )
        with Watch("drawing hospitals", request.files(differences), quiet=as_json) as watch:
            hospitals = make_phantom_hospitals(out, request, differences, watch.reached)
    except ValueError as error:
        raise ScenarioInvalidError(str(error)) from None
    show(hospitals, as_json=as_json, content={"request": asdict(request), "differences": asdict(differences)})
