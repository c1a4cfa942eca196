"""From a public collection to folders of hospitals: who gets which image, and what stays out."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulation.drawing.scanners import Scanner, photograph
from simulation.drawing.shapes import Field
from simulation.hospitals.differences import Differences, write_description
from simulation.hospitals.hospital import Classes, Holdings, Hospital, choose_labelled, deal, new_output, write_hospital
from simulation.hospitals.public_arrays import PublicArrays

Progress = Callable[[int], None]


def make_imported_hospitals(
    out: Path,
    source: PublicArrays,
    modality: str,
    differences: Differences,
    *,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    progress: Progress = lambda _: None,
) -> list[Hospital]:
    """Deal a public collection to hospitals and write them; the public test set stays out, untouched, in ``test.npz``.

    Patients are invented: ``images_per_patient`` images of one class make a patient. With ``shift`` 0 the stored bytes
    are the source's bytes. Raises: OutputExistsError; ValueError when there are fewer patients than hospitals.
    """
    patients = invent_patients(source.labels, differences)
    label_of = source.labels[np.array([images[0] for images in patients])]
    if len(patients) < differences.sites:
        raise ValueError(f"{len(patients)} patients cannot be dealt to {differences.sites} hospitals")
    new_output(out)
    hospitals: list[Hospital] = []
    for site, members in enumerate(deal(label_of, differences.sites, differences.skew_alpha, differences.rng(4))):
        chosen = np.concatenate([patients[member] for member in members])
        owner = np.repeat(np.arange(len(members)), [len(patients[member]) for member in members])
        rng, scanner = differences.rng(5, site), differences.scanner(site)
        holdings = Holdings(
            seen_by(source.images[chosen], scanner, rng),
            source.labels[chosen],
            owner,
            choose_labelled(owner, differences.share_of(site), rng),
            source.class_names,
            modality,
            None if source.segmentations is None else source.segmentations[chosen],
            spacing_mm,
        )
        hospitals.append(write_hospital(out / f"hospital-{site + 1}", holdings, scanner, differences.seed))
        progress(sum(hospital.files for hospital in hospitals))
    write_public_test_set(out / "test.npz", source, spacing_mm)
    write_description(out, hospitals, differences, {"modality": modality, "classes": source.class_names})
    return hospitals


def write_public_test_set(path: Path, source: PublicArrays, spacing_mm: tuple[float, float, float]) -> None:
    """Write the public test set as it is: images, labels, names, spacing, and segmentations where there are any."""
    arrays: dict[str, NDArray[Any]] = {
        "images": source.test_images,
        "labels": source.test_labels,
        "class_names": np.array(source.class_names),
        "spacing_mm": np.array(spacing_mm),
    }
    if source.test_segmentations is not None:
        arrays["segmentations"] = source.test_segmentations
    np.savez_compressed(path, allow_pickle=False, **arrays)


def invent_patients(labels: Classes, differences: Differences) -> list[Classes]:
    """Group images of one class into patients; returns the image indices of each patient, in random order."""
    rng, each, patients = differences.rng(6), differences.images_per_patient, []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        patients += np.split(members, range(each, len(members), each))
    return [patients[index] for index in rng.permutation(len(patients))]


def seen_by(images: NDArray[np.uint8], scanner: Scanner, rng: np.random.Generator) -> Field | NDArray[np.uint8]:
    """Give public images a hospital's look: float32 in [0, 1], or the same bytes where nothing changes.

    The images were blurred and made noisy by real scanners already, so only gain, shift and gamma apply.
    """
    look = replace(scanner, noise_stddev=0.0, blur_px=0.0)
    if (look.gain, look.shift, look.gamma) == (1, 0, 1):
        return images
    return photograph(images.astype(np.float32) / 255, look, rng)
