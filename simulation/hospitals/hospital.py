"""Folders of DICOM files as simulated hospitals would hold them, with their label tables.

    OUT/description.json          how it was made, and every hospital in one table
    OUT/test.npz                  images and labels that no hospital holds
    OUT/hospital-1/scans/         one folder for each study
    OUT/hospital-1/labels.csv     key_type,key,label for labelled patients; no row = unlabelled
    OUT/hospital-1/description.json

Hospitals differ as real ones do: the mix of classes, the scanner, the file format, how much is labelled.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import OutputExistsError
from simulation.drawing.scanners import Scanner
from simulation.drawing.shapes import Field
from simulation.hospitals.dicom_syntaxes import Stored
from simulation.hospitals.dicom_writer import Form, Names, Template, uid_for
from simulation.hospitals.segmentation_writer import write_segmentation

Classes = NDArray[np.int64]
COLOURS = 3


@dataclass(frozen=True, slots=True)
class Holdings:
    """What one hospital holds, before it becomes files.

    images (N, [D,] H, W), or (N, H, W, 3) in colour: uint8 0..255, or float32 in [0, 1]; a volume becomes one series.
    labels and patients (N,): class index, and index of the patient (images of one patient side by side). labelled (N,):
    whether an expert label is given out. segmentations (N, [D,] H, W), or None.
    """

    images: Field | NDArray[np.uint8]
    labels: Classes
    patients: Classes
    labelled: NDArray[np.bool_]
    class_names: tuple[str, ...]
    modality: str
    segmentations: NDArray[np.uint8] | None = None
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @property
    def in_colour(self) -> bool:
        """Whether images are red, green and blue."""
        return self.images.ndim == 4 and self.images.shape[-1] == COLOURS

    @property
    def are_volumes(self) -> bool:
        """Whether images are stacks of slices."""
        return self.images.ndim == 4 and not self.in_colour


@dataclass(frozen=True, slots=True)
class Hospital:
    """One row of the description: what was written for a hospital."""

    name: str
    patients: int
    images: int
    files: int
    labelled_patients: int
    classes: dict[str, int]
    modality: str
    maker: str
    model: str
    syntax: str
    monochrome1: bool


def new_output(folder: Path) -> None:
    """Make the output folder; one that holds something already is left alone (OutputExistsError)."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise OutputExistsError("the output folder is not empty; name a new one, nothing was written")


def deal(labels: Classes, sites: int, skew_alpha: float, rng: np.random.Generator) -> list[Classes]:
    """Deal patients to sites; returns the indices of each site's patients, sorted, none twice, none left out.

    ``skew_alpha`` 0 deals evenly; otherwise each class is split by Dirichlet(alpha) proportions, so 0.5 gives hospitals
    that hardly share their mix and 100 nearly equal ones (Hsu, Qi and Brown 2019). Every site gets a patient.
    """
    order = rng.permutation(len(labels))
    if skew_alpha == 0:
        owner = np.arange(len(labels)) % sites
    else:
        owner = np.empty(len(labels), np.int64)
        for label in np.unique(labels):
            members = np.flatnonzero(labels[order] == label)
            shares = rng.dirichlet([skew_alpha] * sites)
            owner[members] = np.searchsorted(np.cumsum(shares)[:-1] * len(members), np.arange(len(members)), "right")
        for site in range(sites):
            if not np.any(owner == site):
                owner[np.flatnonzero(owner == np.bincount(owner, minlength=sites).argmax())[0]] = site
    return [np.sort(order[owner == site]) for site in range(sites)]


def choose_labelled(patients: Classes, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Mark the images of ``share`` of the patients as labelled: a patient is labelled as a whole or not at all."""
    people = np.unique(patients)
    chosen = rng.permutation(people)[: round(len(people) * share)]
    return np.isin(patients, chosen)


def write_hospital(folder: Path, holdings: Holdings, scanner: Scanner, seed: int) -> Hospital:
    """Write one hospital's scans, label table and description; returns the description.

    Deterministic in ``seed`` and the folder's name. ``scanner`` decides file format and equipment only; its effect on
    intensities must be in the images already.
    """
    scans = folder / "scans"
    scans.mkdir(parents=True)
    form = form_of(holdings, scanner, folder.name)
    rows, files = [], 0
    for index, names, frames, study in series_of(holdings, form, folder.name, seed):
        written = write_series(scans / study, form, names, frames)
        files += len(written)
        if holdings.labelled[index] and holdings.segmentations is None:
            rows.append((names, holdings.class_names[holdings.labels[index]]))
        elif holdings.labelled[index] and holdings.segmentations is not None:
            path = scans / study / f"{names.series_uid[-8:]}-seg.dcm"
            write_segmentation(path, written, holdings.segmentations[index], holdings.class_names)
            files += 1
    write_labels(folder / "labels.csv", rows, by_series=holdings.are_volumes)
    hospital = describe(folder.name, holdings, scanner, files)
    (folder / "description.json").write_text(json.dumps(asdict(hospital), indent=2) + "\n")
    return hospital


def form_of(holdings: Holdings, scanner: Scanner, name: str) -> Form:
    """Choose the form of a hospital's files. CT is stored so that slope 1 and intercept -1024 give HU."""
    is_ct, exact = holdings.modality == "CT", holdings.images.dtype == np.uint8 or holdings.in_colour
    rows, columns = holdings.images.shape[1:3] if holdings.in_colour else holdings.images.shape[-2:]
    return Form(
        modality=holdings.modality,
        rows=rows,
        columns=columns,
        colours=COLOURS if holdings.in_colour else 1,
        bits_stored=8 if exact else 12,
        spacing_mm=holdings.spacing_mm,
        slope=2048 / 255 if is_ct and exact else 1.0,
        intercept=-1024.0 if is_ct else 0.0,
        monochrome1=scanner.monochrome1 and holdings.modality in {"CR", "DX"},
        syntax=scanner.syntax,
        maker=scanner.maker,
        model=scanner.model,
        institution=name,
    )


def series_of(holdings: Holdings, form: Form, site: str, seed: int) -> Iterator[tuple[int, Names, list[Stored], str]]:
    """Yield for each image its index, names (of its first file), stored frames, and the study's folder name.

    A patient has one study; each image is a series of its own.
    """
    for index, patient in enumerate(holdings.patients):
        study = uid_for(seed, site, "study", patient)
        names = Names(
            patient_id=f"{uid_for(seed, site, 'patient', patient)[-10:]}",
            patient_name=f"Phantom^{site[-12:]} {patient}",
            study_uid=study,
            series_uid=uid_for(seed, site, "series", index),
            instance_uid=uid_for(seed, site, "instance", index, 0),
            accession=f"A{study[-12:]}",
            study_date=f"2024{1 + patient % 12:02d}{1 + patient % 28:02d}",
        )
        image = holdings.images[index]
        frames = image if holdings.are_volumes else image[None]
        yield index, names, [stored(frame, form) for frame in frames], study[-16:]


def stored(frame: Field | NDArray[np.uint8], form: Form) -> Stored:
    """Turn one frame into stored values; MONOCHROME1 is the negative."""
    highest = 2**form.bits_stored - 1
    if frame.dtype == np.uint8:
        return highest - frame if form.monochrome1 else np.asarray(frame, np.uint8)
    scale = 2048 if form.modality == "CT" else highest
    values = np.rint(np.clip(frame, 0, 1) * np.float32(scale)).astype(np.uint8 if form.bits_stored == 8 else np.uint16)
    return np.asarray(highest - values, np.uint16) if form.monochrome1 else values


def write_series(folder: Path, form: Form, names: Names, frames: list[Stored]) -> list[Path]:
    """Write the frames of one series as single-frame files, slices stacked from feet to head; returns their paths."""
    folder.mkdir(exist_ok=True)
    template = cached_template(form)
    paths = [folder / f"{names.series_uid[-8:]}-{number:04d}.dcm" for number in range(1, len(frames) + 1)]
    for number, (path, frame) in enumerate(zip(paths, frames, strict=True), start=1):
        slice_names = names if number == 1 else replace(names, instance_uid=uid_for(names.instance_uid, number))
        height = (number - 1) * form.spacing_mm[0]
        slice_names = replace(slice_names, instance_number=number, position_mm=(0.0, 0.0, height))
        template.write(path, slice_names, frame)
    return paths


TEMPLATES: dict[Form, Template] = {}


def cached_template(form: Form) -> Template:
    """Return the template of ``form``, built once."""
    if form not in TEMPLATES:
        TEMPLATES[form] = Template(form)
    return TEMPLATES[form]


def write_labels(path: Path, rows: list[tuple[Names, str]], *, by_series: bool) -> None:
    """Write the label table, ``key_type,key,label``: volumes are named by their series, images by themselves."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("key_type", "key", "label"))
        if by_series:
            writer.writerows(("SeriesInstanceUID", names.series_uid, label) for names, label in rows)
        else:
            writer.writerows(("SOPInstanceUID", names.instance_uid, label) for names, label in rows)


def describe(name: str, holdings: Holdings, scanner: Scanner, files: int) -> Hospital:
    """Count what a hospital holds."""
    numbers = range(len(holdings.class_names))
    if holdings.segmentations is None:
        counts = [int((holdings.labels == number).sum()) for number in numbers]
    else:  # images in which the structure appears
        axes = tuple(range(1, holdings.segmentations.ndim))
        counts = [int((holdings.segmentations == number).any(axis=axes).sum()) for number in numbers]
    return Hospital(
        name=name,
        patients=len(np.unique(holdings.patients)),
        images=len(holdings.images),
        files=files,
        labelled_patients=len(np.unique(holdings.patients[holdings.labelled])),
        classes=dict(zip(holdings.class_names, counts, strict=True)),
        modality=holdings.modality,
        maker=scanner.maker,
        model=scanner.model,
        syntax=scanner.syntax,
        monochrome1=scanner.monochrome1 and holdings.modality in {"CR", "DX"},
    )
