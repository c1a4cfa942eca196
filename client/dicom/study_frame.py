"""One frame in the units that a study asks for: Hounsfield units, uptake values, or the image's own."""

from dataclasses import replace

import numpy as np
from pydicom.dataset import Dataset

from client.dicom.hounsfield import check_hounsfield
from client.dicom.image_module import ImageModule
from client.dicom.pixels import Frame, read_frame
from client.dicom.settings import IngestSettings
from client.dicom.uptake import uptake_factor
from common.plan.task import Intensity


def read_study_frame(dataset: Dataset, module: ImageModule, frame_index: int, settings: IngestSettings) -> Frame:
    """Decode one frame; whether it has the study's units is asked before. Raises: Rejected."""
    if settings.intensity is Intensity.CT_WINDOW:
        check_hounsfield(dataset, module, frame_index)
    if settings.intensity is Intensity.SUV_RANGE:
        factor = uptake_factor(dataset, module)
        frame = read_frame(dataset, module, frame_index)
        low, high = frame.grey_scale
        return replace(frame, values=frame.values * np.float32(factor), grey_scale=(low * factor, high * factor))
    voi = settings.intensity is Intensity.VOI_LUT
    return read_frame(dataset, module, frame_index, voi=voi, colour=settings.channels == 3)
