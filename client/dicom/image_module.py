"""Is this an image we take, and does its description of the pixels hold together? Asked before anything is decoded.

Sources: DICOM PS3.3 sections C.7.6.1 (ImageType), C.7.6.3 (image pixel module), C.8 (modalities); PS3.4 annex B (SOP
classes).
"""

from dataclasses import dataclass

from pydicom import uid
from pydicom.dataset import Dataset

from client.dicom.attributes import integer, value_of, word, words
from client.dicom.limits import MAX_FRAME_BYTES, MAX_FRAMES, MAX_SIDE_PX
from client.dicom.reject import RejectCode, Rejected

MODALITY_OF_CLASS = {
    uid.CTImageStorage: "CT",
    uid.EnhancedCTImageStorage: "CT",
    uid.LegacyConvertedEnhancedCTImageStorage: "CT",
    uid.MRImageStorage: "MR",
    uid.EnhancedMRImageStorage: "MR",
    uid.LegacyConvertedEnhancedMRImageStorage: "MR",
    uid.ComputedRadiographyImageStorage: "CR",
    uid.DigitalXRayImageStorageForPresentation: "DX",
    uid.DigitalXRayImageStorageForProcessing: "DX",
    uid.DigitalMammographyXRayImageStorageForPresentation: "MG",
    uid.DigitalMammographyXRayImageStorageForProcessing: "MG",
    uid.BreastTomosynthesisImageStorage: "MG",
    uid.UltrasoundImageStorage: "US",
    uid.UltrasoundMultiFrameImageStorage: "US",
}
# Each frame of these is a picture of its own; of any other multi-frame object (cine loops) only the middle one is.
SLICED_CLASSES = frozenset(
    {
        uid.EnhancedCTImageStorage,
        uid.LegacyConvertedEnhancedCTImageStorage,
        uid.EnhancedMRImageStorage,
        uid.LegacyConvertedEnhancedMRImageStorage,
        uid.BreastTomosynthesisImageStorage,
    }
)
SEGMENTATION_CLASSES = frozenset({uid.SegmentationStorage, uid.UID("1.2.840.10008.5.1.4.1.1.66.7")})  # also label maps

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

    Refused: other objects (reports, plans, screen shots: secondary capture carries burned-in names), other
    modalities, localizers, saved screens, images that say that text is burned in.
    Raises: Rejected.
    """
    modality = MODALITY_OF_CLASS.get(value_of(dataset, "SOPClassUID"))
    if modality is None:
        raise Rejected(RejectCode.SOP_CLASS)
    if modality not in modalities:
        raise Rejected(RejectCode.MODALITY)
    image_type = words(dataset, "ImageType")
    if "LOCALIZER" in image_type:
        raise Rejected(RejectCode.LOCALIZER)
    if image_type[:2] == ("DERIVED", "SECONDARY") and ("SCREEN SAVE" in image_type or "SCREENSAVE" in image_type):
        raise Rejected(RejectCode.SCREEN_SAVE)
    if word(dataset, "BurnedInAnnotation") == "YES":
        raise Rejected(RejectCode.BURNED_IN)
    return modality


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
