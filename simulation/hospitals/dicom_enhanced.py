"""Enhanced multi-frame CT and MR objects: a whole volume in one file, its geometry in functional groups.

PS3.3 A.38 (Enhanced CT), A.36 (Enhanced MR), C.7.6.16 (functional groups). Only what a reader of geometry and values
needs; the acquisition's own groups are left out.
"""

import struct
from collections.abc import Sequence

from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from simulation.hospitals.dicom_syntaxes import SYNTAXES, Stored, Syntax
from simulation.hospitals.dicom_writer import Form, Names, header, patch, serialise

ENHANCED_CLASSES = {"CT": "1.2.840.10008.5.1.4.1.1.2.1", "MR": "1.2.840.10008.5.1.4.1.1.4.1"}
IN_GROUPS = ("PixelSpacing", "SliceThickness", "ImageOrientationPatient", "ImagePositionPatient", "RescaleType")


def enhanced_file(form: Form, names: Names, frames: Sequence[Stored], order: Sequence[int] | None = None) -> bytes:
    """Return one file with all ``frames`` (rows, columns), the first at ``names.position_mm``, upwards by the spacing.

    ``order`` says in which order the frames are stored (default: from feet to head); their positions move with them.
    Native (little endian) and compressed syntaxes. Raises: ValueError for a modality without an enhanced form.
    """
    if form.modality not in ENHANCED_CLASSES or SYNTAXES[form.syntax].big_endian or SYNTAXES[form.syntax].deflated:
        raise ValueError(f"there is no enhanced form of {form.modality} in {form.syntax}")
    stored = range(len(frames)) if order is None else order
    ds, syntax = header(form), SYNTAXES[form.syntax]
    ds.SOPClassUID, ds.NumberOfFrames = ENHANCED_CLASSES[form.modality], str(len(frames))
    ds.SharedFunctionalGroupsSequence = [shared_groups(form)]
    ds.PerFrameFunctionalGroupsSequence = [frame_groups(form, names, int(index)) for index in stored]
    for keyword in (*IN_GROUPS, "RescaleSlope", "RescaleIntercept"):
        if keyword in ds:
            del ds[keyword]
    meta, body = serialise(ds, syntax)
    pixels = pixel_element([frames[index] for index in stored], form.bits_stored, syntax)
    return patch(meta, names) + patch(body, names) + pixels


def shared_groups(form: Form) -> Dataset:
    """Return what all frames share: spacing, orientation, rescale."""
    shared, measures, plane, values = Dataset(), Dataset(), Dataset(), Dataset()
    slice_mm, row_mm, column_mm = (f"{value:.6g}" for value in form.spacing_mm)
    measures.PixelSpacing, measures.SliceThickness, measures.SpacingBetweenSlices = (
        [row_mm, column_mm],
        slice_mm,
        slice_mm,
    )
    plane.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    values.RescaleSlope, values.RescaleIntercept = f"{form.slope:.10g}", f"{form.intercept:.10g}"
    values.RescaleType = "HU" if form.modality == "CT" else "US"
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    shared.PixelValueTransformationSequence = [values]
    return shared


def frame_groups(form: Form, names: Names, index: int) -> Dataset:
    """Return what belongs to one frame: its place in the stack and in the patient."""
    groups, content, position = Dataset(), Dataset(), Dataset()
    x, y, z = names.position_mm
    content.StackID, content.InStackPositionNumber, content.DimensionIndexValues = "1", index + 1, [index + 1]
    position.ImagePositionPatient = [f"{x:.6g}", f"{y:.6g}", f"{z + index * form.spacing_mm[0]:.6g}"]
    groups.FrameContentSequence, groups.PlanePositionSequence = [content], [position]
    return groups


def pixel_element(frames: Sequence[Stored], bits_stored: int, syntax: Syntax) -> bytes:
    """Encode the Pixel Data element of several frames."""
    if syntax.encode is not None:
        fragments = encapsulate([syntax.encode(frame, bits_stored) for frame in frames], has_bot=True)
        return struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF) + fragments + b"\xfe\xff\xdd\xe0\0\0\0\0"
    pixels = b"".join(frame.tobytes() for frame in frames)
    pixels += b"\0" * (len(pixels) % 2)
    if syntax.implicit:
        return struct.pack("<HHI", 0x7FE0, 0x10, len(pixels)) + pixels
    return struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, len(pixels)) + pixels
