"""Which frames of an object become pictures in 2-D: each of a stack, the middle one of anything else."""

from io import BytesIO

import numpy as np
import pytest
from pydicom import dcmread, uid

from client.dicom.instance import read_images
from client.dicom.person_rules import PersonRules
from client.dicom.pseudonyms import Pseudonyms

NAMES = Pseudonyms(b"k" * 32, PersonRules(whole_ultrasound=True))
SIDE, FRAMES = 32, 5
GREY = {"intensity": "luminance", "window_hu": ()}
MIDDLE = {
    "an angiography": (uid.XRayAngiographicImageStorage, "XA"),
    "an enhanced angiography": (uid.EnhancedXAImageStorage, "XA"),
    "a fluoroscopy": (uid.XRayRadiofluoroscopicImageStorage, "RF"),
    "an enhanced fluoroscopy": (uid.EnhancedXRFImageStorage, "RF"),
    "nuclear medicine": (uid.NuclearMedicineImageStorage, "NM"),
    "a cine loop": (uid.UltrasoundMultiFrameImageStorage, "US"),
    "a cine loop of an old scanner": (uid.UID("1.2.840.10008.5.1.4.1.1.3"), "US"),
    "a film of a fundus": (uid.OphthalmicPhotography8BitImageStorage, "OP"),
}


@pytest.fixture(scope="module")
def frames_read(scan, settings_with):
    """Read an object of ``FRAMES`` frames, frame n all of the value 100 n; return frame numbers and values."""

    def read(sop_class: uid.UID, modality: str) -> dict[int, float]:
        dataset = dcmread(BytesIO(scan()))
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
        dataset.Modality, dataset.NumberOfFrames = modality, FRAMES
        dataset.RescaleIntercept = "0"
        dataset.PixelData = np.repeat(np.arange(FRAMES, dtype="<u2") * 100, SIDE * SIDE).tobytes()
        out = BytesIO()
        dataset.save_as(out, enforce_file_format=False)
        records = read_images(out.getvalue(), settings_with(**GREY, modalities=(modality,)), NAMES)
        return {facts.frame_index: round(levels[0, 0] / 65535 * 4095) for facts, levels in records}

    return read


@pytest.mark.parametrize(("sop_class", "modality"), MIDDLE.values(), ids=MIDDLE)
def test_the_middle_frame_is_the_picture(sop_class, modality, frames_read):
    assert frames_read(sop_class, modality) == {2: 200}


def test_each_frame_of_an_ultrasound_volume_is_a_picture(frames_read):
    assert frames_read(uid.EnhancedUSVolumeStorage, "US") == {number: 100 * number for number in range(FRAMES)}
