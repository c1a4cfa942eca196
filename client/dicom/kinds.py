"""Which kinds of DICOM objects are pictures here, and which of them are not taken although they are pictures.

Source: PS3.4 annex B (SOP classes), with the retired ultrasound classes of older scanners.
"""

from pydicom import uid

RETIRED_ULTRASOUND = uid.UID("1.2.840.10008.5.1.4.1.1.6")
RETIRED_ULTRASOUND_MULTI_FRAME = uid.UID("1.2.840.10008.5.1.4.1.1.3")

MODALITY_OF_CLASS: dict[uid.UID, str] = {
    uid.CTImageStorage: "CT",
    uid.EnhancedCTImageStorage: "CT",
    uid.LegacyConvertedEnhancedCTImageStorage: "CT",
    uid.MRImageStorage: "MR",
    uid.EnhancedMRImageStorage: "MR",
    uid.LegacyConvertedEnhancedMRImageStorage: "MR",
    uid.PositronEmissionTomographyImageStorage: "PT",
    uid.ComputedRadiographyImageStorage: "CR",
    uid.DigitalXRayImageStorageForPresentation: "DX",
    uid.DigitalXRayImageStorageForProcessing: "DX",
    uid.DigitalMammographyXRayImageStorageForPresentation: "MG",
    uid.DigitalMammographyXRayImageStorageForProcessing: "MG",
    uid.BreastTomosynthesisImageStorage: "MG",
    uid.UltrasoundImageStorage: "US",
    uid.UltrasoundMultiFrameImageStorage: "US",
    uid.EnhancedUSVolumeStorage: "US",
    RETIRED_ULTRASOUND: "US",
    RETIRED_ULTRASOUND_MULTI_FRAME: "US",
    uid.XRayAngiographicImageStorage: "XA",
    uid.XRayRadiofluoroscopicImageStorage: "RF",
    uid.EnhancedXAImageStorage: "XA",
    uid.EnhancedXRFImageStorage: "RF",
    uid.NuclearMedicineImageStorage: "NM",
    uid.OphthalmicPhotography8BitImageStorage: "OP",
    uid.OphthalmicPhotography16BitImageStorage: "OP",
    uid.VLPhotographicImageStorage: "XC",
    uid.DermoscopicPhotographyImageStorage: "XC",
}
# Each frame of these is a picture of its own; of any other multi-frame object (cine loops) only the middle one is.
SLICED_CLASSES = frozenset(
    {
        uid.EnhancedCTImageStorage,
        uid.LegacyConvertedEnhancedCTImageStorage,
        uid.EnhancedMRImageStorage,
        uid.LegacyConvertedEnhancedMRImageStorage,
        uid.BreastTomosynthesisImageStorage,
        uid.EnhancedUSVolumeStorage,
    }
)
SEGMENTATION_CLASSES = frozenset({uid.SegmentationStorage, uid.UID("1.2.840.10008.5.1.4.1.1.66.7")})  # also label maps
SECONDARY_CAPTURE = frozenset(
    {
        uid.SecondaryCaptureImageStorage,
        uid.MultiFrameSingleBitSecondaryCaptureImageStorage,
        uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
    }
)
# Their names in the standard: pictures, but of kinds whose pixels no rule here gives a meaning.
PICTURE_WORDS = ("Image Storage", "Volume Storage", "Parametric Map Storage", "Tomography", "Video ")


def is_picture(sop_class: uid.UID) -> bool:
    """Tell whether an object of this class holds pictures (PS3.6 annex A: the class's name says so)."""
    return any(word in sop_class.name for word in PICTURE_WORDS)
