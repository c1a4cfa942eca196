"""For presentation or for processing? The raw picture of an X-ray detector and the picture made of it for reading.

One exposure is often stored twice, in both forms, with opposite polarity: a study takes one of them (``presentation``
in its plan), so that one exposure counts once and light means the same in every image.
Sources: PS3.3 sections C.8.11.1.1.1 (PresentationIntentType), C.8.11.3.1.2 (PixelIntensityRelationshipSign).
"""

from pydicom import uid
from pydicom.dataset import Dataset

from client.dicom.attributes import value_of, word
from client.dicom.image_module import ImageModule
from client.dicom.reject import RejectCode, Rejected
from common.plan.task import Presentation

FOR_PROCESSING_CLASSES = frozenset(
    {
        uid.DigitalXRayImageStorageForProcessing,
        uid.DigitalMammographyXRayImageStorageForProcessing,
        uid.DigitalIntraOralXRayImageStorageForProcessing,
    }
)
MODALITIES = ("DX", "MG")


def presentation_of(dataset: Dataset) -> Presentation:
    """Return the form of an X-ray image: for processing if its class or its PresentationIntentType says so."""
    raw = value_of(dataset, "SOPClassUID") in FOR_PROCESSING_CLASSES
    raw = raw or word(dataset, "PresentationIntentType") == "FOR PROCESSING"
    return Presentation.FOR_PROCESSING if raw else Presentation.FOR_PRESENTATION


def check_presentation(dataset: Dataset, modality: str, wanted: Presentation) -> None:
    """Refuse an X-ray image of the form that the study does not use; other modalities have no such forms.

    Raises: Rejected(presentation).
    """
    if modality in MODALITIES and presentation_of(dataset) is not wanted:
        raise Rejected(RejectCode.PRESENTATION)


def is_dark_bright(dataset: Dataset, module: ImageModule) -> bool:
    """Tell whether a grey picture must be turned so that light means what it means in every other one.

    For presentation, and in all modalities without the two forms: white is high unless MONOCHROME1 or an inverse
    PresentationLUTShape says otherwise. For processing those two say nothing about the object (PS3.3 section
    C.8.11.3.1.2); the sign does: +1 = more X-rays are higher values, which is turned, so that dense tissue is light.
    PET values mean uptake, and what they are displayed as changes nothing about it.
    Raises: Rejected(polarity) for a raw picture that does not say its sign.
    """
    if module.modality in MODALITIES and presentation_of(dataset) is Presentation.FOR_PROCESSING:
        sign = value_of(dataset, "PixelIntensityRelationshipSign")
        if sign not in (1, -1):
            raise Rejected(RejectCode.POLARITY)
        return bool(sign == 1)
    if module.modality == "PT":
        return False
    return module.photometric == "MONOCHROME1" or word(dataset, "PresentationLUTShape") == "INVERSE"
