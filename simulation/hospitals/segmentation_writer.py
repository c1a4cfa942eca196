"""Segmentations of simulated series as a hospital's viewer would export them: DICOM SEG (PS3.3 A.51) or NIfTI."""

from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from simulation.hospitals.dicom_writer import uid_for


def write_segmentation(
    path: Path, slices: list[Path], segmentation: NDArray[np.uint8], class_names: tuple[str, ...]
) -> None:
    """Write one binary SEG for a series of CT or MR slices.

    ``slices`` are the series' files in the order of ``segmentation`` (D, H, W) or (H, W), whose values are indices of
    ``class_names`` (0 is the background and not written). An empty segmentation is written as empty frames.
    """
    sources = [dcmread(file, stop_before_pixels=True) for file in slices]
    series = sources[0].SeriesInstanceUID
    stack = segmentation if segmentation.ndim == 3 else segmentation[np.newaxis]
    numbers = range(1, len(class_names))
    pixels = np.stack([stack == number for number in numbers], axis=-1).astype(np.uint8)
    result = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=pixels,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[describe(number, class_names[number]) for number in numbers],
        series_instance_uid=uid_for(series, "segmentation series"),
        series_number=2,
        sop_instance_uid=uid_for(series, "segmentation"),
        instance_number=1,
        manufacturer="Fedward",
        manufacturer_model_name="Simulated reader",
        software_versions="1",
        device_serial_number="1",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        omit_empty_frames=bool(pixels.any()),
    )
    result.save_as(path)


def describe(number: int, name: str) -> hd.seg.SegmentDescription:
    """Describe one segment: its label is the class name of the study plan, its type a lesion or an organ."""
    is_lesion = "lesion" in name
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure
        if is_lesion
        else codes.SCT.AnatomicalStructure,
        segmented_property_type=codes.SCT.Lesion if is_lesion else codes.SCT.Organ,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
    )


def write_nifti(
    path: Path, segmentation: NDArray[np.uint8], spacing_mm: tuple[float, float, float], start_mm: tuple[float, ...]
) -> None:
    """Write a segmentation (D, H, W) of an axial series as NIfTI: axes x, y, z, and the affine in RAS.

    ``spacing_mm``: (slice, row, column); ``start_mm``: place of the first voxel in LPS; RAS turns x and y.
    """
    slice_mm, row_mm, column_mm = spacing_mm
    affine = np.diag([-column_mm, -row_mm, slice_mm, 1.0])
    affine[:3, 3] = -start_mm[0], -start_mm[1], start_mm[2]
    nib.save(nib.Nifti1Image(np.transpose(segmentation, (2, 1, 0)), affine), path)
