"""Are these numbers Hounsfield units? A CT window means nothing on anything else.

Not every CT image is in HU: perfusion, iodine, electron density and effective atomic number maps are CT images too, and
images whose rescale was lost are stored values without a zero at water.
Sources: PS3.3 section C.11.1.1.2 (RescaleType: HU, HU_MOD, US, MGML, ...), C.8.15.2.1.1.4 and C.8.2.1.1.1 (ImageType).
"""

from pydicom.dataset import Dataset

from client.dicom.attributes import value_of, word, words
from client.dicom.image_module import ImageModule
from client.dicom.pixels import functional_group, transformation_of
from client.dicom.reject import RejectCode, Rejected

HOUNSFIELD = ("HU", "HOUNSFIELD", "HOUNSFIELD UNITS")
# Value 4 of ImageType, and what makers write there: maps of a material, not of attenuation.
MATERIAL_WORDS = ("EFF_ATOMIC_NUM", "ELECTRON_DENSITY", "GSI MD", "IODINE", "RHO", "ZEFF", "Z_EFF")
MATERIAL_START = "MAT_"


def check_hounsfield(dataset: Dataset, module: ImageModule, frame_index: int) -> None:
    """Refuse a frame whose rescaled values are not, or cannot be known to be, Hounsfield units.

    HU: a grey CT image with slope and intercept (or a modality lookup table) whose RescaleType is HU or absent (it
    became part of the standard later than CT), and no map of a material.
    Raises: Rejected(not_hounsfield).
    """
    unit = _unit(dataset, frame_index)
    kinds = words(dataset, "ImageType") + _frame_type(dataset, frame_index)
    is_map = any(kind.startswith(MATERIAL_START) or kind in MATERIAL_WORDS for kind in kinds)
    is_ct = module.modality == "CT" and not module.in_colour
    if not is_ct or unit is None or is_map or unit not in ("", *HOUNSFIELD):
        raise Rejected(RejectCode.NOT_HOUNSFIELD)


def _unit(dataset: Dataset, frame_index: int) -> str | None:
    """Return the unit's word, "" where none is given, None where there is no rescale at all."""
    table = value_of(dataset, "ModalityLUTSequence")
    if table:
        return word(table[0], "ModalityLUTType")
    source = transformation_of(dataset, frame_index)
    if value_of(source, "RescaleSlope") is None or value_of(source, "RescaleIntercept") is None:
        return None
    return word(source, "RescaleType")


def _frame_type(dataset: Dataset, frame_index: int) -> tuple[str, ...]:
    group = functional_group(dataset, frame_index, "CTImageFrameTypeSequence")
    return words(group, "FrameType") if group is not None else ()
