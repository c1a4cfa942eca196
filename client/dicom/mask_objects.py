"""Masks as files that other programs open: DICOM SEG (PS3.3 section A.51) and NIfTI-1. Runs in a worker.

A SEG names the images it belongs to, lies in their frame of reference and copies the patient and study they are of, as
DICOM demands: it stays in the hospital like the images. Every segment says that a program made it.
"""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import highdicom as hd
import nibabel as nib
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from client.dicom.attributes import integer
from client.dicom.reject import RejectCode, Rejected
from client.dicom.resize import Labels
from client.dicom.segment_codes import codes_of
from client.dicom.series import Geometry
from client.dicom.slices import Slice

MANUFACTURER = "Fedward"
WARNING = "Research use only, not a medical device"
SERIES_NUMBER = 1000  # of the new series: beyond what scanners count to
LONG_STRING = 64  # value representation LO


@dataclass(frozen=True, slots=True)
class Origin:
    """What a mask says about itself: classes of the study, those that are lesions, study's name, model's digest."""

    classes: tuple[str, ...]
    lesions: tuple[str, ...]
    study: str
    model: str


def segmentation_object(sources: Sequence[Dataset], frames: Labels, origin: Origin) -> bytes:
    """Return a SEG file; ``frames`` (frames, rows, columns) lie on the images of ``sources``, in their order.

    A single multi-frame source has a frame of the mask for each of its own. Frames without any class are left out.
    Raises: anything that a damaged header makes highdicom raise (``instance.verdict`` turns it into a code).
    """
    made = hd.seg.Segmentation(
        source_images=list(sources),
        pixel_array=frames,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_described(number, origin) for number in range(1, len(origin.classes))],
        series_instance_uid=hd.UID(),
        series_number=SERIES_NUMBER,
        series_description=f"{origin.study}: {WARNING}"[:LONG_STRING],
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=origin.study[:LONG_STRING],
        software_versions=origin.model[:LONG_STRING],
        device_serial_number="0",
        content_label="FEDWARD",
        content_description=WARNING,
        omit_empty_frames=bool(frames.any()),
    )
    out = BytesIO()
    made.save_as(out)
    return out.getvalue()


def _described(number: int, origin: Origin) -> hd.seg.SegmentDescription:
    name = origin.classes[number]
    found = codes_of(name, is_lesion=name in origin.lesions)
    described = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=found.category,
        segmented_property_type=found.kind,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=MANUFACTURER, family=codes.DCM.ArtificialIntelligence, version=origin.model[:LONG_STRING]
        ),
    )
    if found.side is not None:
        side = hd.sr.CodedConcept.from_code(found.side)
        described.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [side]
    return described


def frames_of_sources(
    in_order: Sequence[Slice], masks: Labels, read: Sequence[Dataset]
) -> tuple[list[Dataset], Labels]:
    """Return the images that a SEG names, and a frame for each: slices as they lie, or all frames of one file.

    ``read``: header of each slice's file. Raises: Rejected(mask_source): slices of several multi-frame files.
    """
    frames = integer(read[0], "NumberOfFrames", 1)
    if all(slice_.frame_index == 0 for slice_ in in_order) and frames == 1:
        return list(read), masks
    if len({slice_.file_index for slice_ in in_order}) > 1:
        raise Rejected(RejectCode.MASK_SOURCE)
    every = np.zeros((frames, *masks.shape[1:]), np.uint8)
    every[[slice_.frame_index for slice_ in in_order]] = masks
    return [read[0]], every


def nifti_mask(volume: Labels, geometry: Geometry) -> bytes:
    """Return a compressed NIfTI-1 file of class numbers: axes column, row, slice; the affine leads to RAS.

    Shapes: volume (slices, rows, columns) on the even, upright grid ``geometry``.
    """
    lps = geometry.affine[:, [2, 1, 0, 3]]
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps
    image = nib.Nifti1Image(np.ascontiguousarray(volume.transpose(2, 1, 0)), affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    return gzip.compress(image.to_bytes(), mtime=0)
