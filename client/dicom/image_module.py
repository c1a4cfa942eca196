"""Is this an image we take, and does its description of the pixels hold together? Asked before anything is decoded.

Sources: DICOM PS3.3 sections C.7.6.1 (ImageType), C.7.6.3 (image pixel module), C.8 (modalities); PS3.4 annex B (SOP
classes).
"""

from dataclasses import dataclass

from pydicom import uid
from pydicom.dataset import Dataset

from client.dicom.attributes import integer, value_of, word, words
from client.dicom.kinds import MODALITY_OF_CLASS, SECONDARY_CAPTURE, SLICED_CLASSES, is_picture
from client.dicom.limits import MAX_FRAME_BYTES, MAX_FRAMES, MAX_SIDE_PX
from client.dicom.reject import RejectCode, Rejected
from client.dicom.text_pages import check_no_text

GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")


@dataclass(frozen=True, slots=True)
class ImageModule:
    """The checked description of the pixels: what is about to be decoded, and how much it can cost."""

    modality: str
    rows: int
    columns: int
    frames: int
    samples: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric: str
    sliced: bool

    @property
    def in_colour(self) -> bool:
        """Whether its pixels are red, green and blue, stored as such or through a palette."""
        return self.samples == 3 or self.photometric == "PALETTE COLOR"

    @property
    def frame_bytes(self) -> int:
        """Size of one decoded frame."""
        return self.rows * self.columns * self.samples * (self.bits_allocated // 8)

    def chosen_frames(self, at_most: int) -> range:
        """Return the frames that become records in 2-D: evenly spaced of a stack, the middle of a cine loop."""
        middle = self.frames // 2
        step = -(-self.frames // at_most)
        return range(0, self.frames, step) if self.sliced else range(middle, middle + 1)


def check_kind(dataset: Dataset, modalities: tuple[str, ...]) -> str:
    """Return the modality of an image that the study wants.

    Refused: other objects (reports, plans), pictures of kinds that are not read here (secondary capture: it carries
    burned-in names), other modalities, localizers, pages and copies of text (``text_pages``).
    Raises: Rejected.
    """
    sop_class = value_of(dataset, "SOPClassUID")
    modality = MODALITY_OF_CLASS.get(sop_class) if isinstance(sop_class, uid.UID) else None
    if modality is None:
        raise Rejected(_code_of_kind(sop_class))
    if modality not in modalities:
        raise Rejected(RejectCode.MODALITY)
    if "LOCALIZER" in words(dataset, "ImageType"):
        raise Rejected(RejectCode.LOCALIZER)
    check_no_text(dataset)
    return modality


def _code_of_kind(sop_class: object) -> RejectCode:
    if not isinstance(sop_class, uid.UID):
        return RejectCode.SOP_CLASS
    if sop_class in SECONDARY_CAPTURE:
        return RejectCode.SECONDARY_CAPTURE
    return RejectCode.UNSUPPORTED_KIND if is_picture(sop_class) else RejectCode.SOP_CLASS


def check_has_pixels(dataset: Dataset) -> None:
    """Refuse an object without integer pixels (float pixel data is of parametric maps, not of these modalities).

    Raises: Rejected(no_pixels).
    """
    if "PixelData" not in dataset:
        raise Rejected(RejectCode.NO_PIXELS)


def check_image_module(dataset: Dataset, modality: str) -> ImageModule:
    """Read and check the image pixel module.

    Guarantee: one frame of the result has at most ``MAX_FRAME_BYTES`` decoded, and sides plausible for its modality.
    Raises: Rejected.
    """
    module = ImageModule(
        modality=modality,
        rows=integer(dataset, "Rows"),
        columns=integer(dataset, "Columns"),
        frames=integer(dataset, "NumberOfFrames", 1),
        samples=integer(dataset, "SamplesPerPixel", 1),
        bits_allocated=integer(dataset, "BitsAllocated"),
        bits_stored=integer(dataset, "BitsStored"),
        signed=integer(dataset, "PixelRepresentation") == 1,
        photometric=word(dataset, "PhotometricInterpretation"),
        sliced=value_of(dataset, "SOPClassUID") in SLICED_CLASSES,
    )
    if integer(dataset, "PixelRepresentation") not in (0, 1):
        raise Rejected(RejectCode.PIXEL_MODULE)
    if integer(dataset, "HighBit", module.bits_stored - 1) != module.bits_stored - 1:
        raise Rejected(RejectCode.PIXEL_MODULE)
    _check_sizes(module)
    return module


def _check_sizes(module: ImageModule) -> None:
    known = {1: GREY, 3: COLOUR}.get(module.samples, ())
    bits_fit = module.bits_allocated in (8, 16, 32) and 1 <= module.bits_stored <= module.bits_allocated
    if module.photometric not in known or not bits_fit:
        raise Rejected(RejectCode.PIXEL_MODULE)
    side = MAX_SIDE_PX[module.modality]
    if not (1 <= module.rows <= side and 1 <= module.columns <= side):
        raise Rejected(RejectCode.DIMENSIONS)
    if not 1 <= module.frames <= MAX_FRAMES:
        raise Rejected(RejectCode.FRAMES)
    if module.frame_bytes > MAX_FRAME_BYTES:
        raise Rejected(RejectCode.DECODED_SIZE)
