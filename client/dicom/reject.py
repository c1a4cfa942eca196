"""Why a file or a series was not taken: fixed codes, so that no text of a file ever travels.

docs/scans.md has one row for each code; a test compares the two.
"""

from enum import StrEnum


class RejectCode(StrEnum):
    """One reason for each file that gives no record."""

    # the file itself
    UNREADABLE = "unreadable"
    SYMLINK = "symlink"
    NOT_REGULAR = "not_regular"
    TOO_DEEP = "too_deep"
    FILE_SIZE = "file_size"
    CHANGED_WHILE_READ = "changed_while_read"
    # the DICOM frame around the data set
    NOT_PART10 = "not_part10"
    BAD_META = "bad_meta"
    TRANSFER_SYNTAX = "transfer_syntax"
    DEFLATE_LIMIT = "deflate_limit"
    NESTING = "nesting"
    PARSE = "parse"
    TOO_MANY_ELEMENTS = "too_many_elements"
    # what kind of object it is, and whose
    SOP_CLASS = "sop_class"
    UNSUPPORTED_KIND = "unsupported_kind"
    SECONDARY_CAPTURE = "secondary_capture"
    MODALITY = "modality"
    LOCALIZER = "localizer"
    SCREEN_SAVE = "screen_save"
    TEXT_PAGE = "text_page"
    FILM = "film"
    MOSAIC = "mosaic"
    BURNED_IN = "burned_in"
    RECOGNIZABLE = "recognizable"
    NO_ULTRASOUND_REGION = "no_ultrasound_region"
    BAD_UID = "bad_uid"
    NO_PATIENT_ID = "no_patient_id"
    WITHDRAWN = "withdrawn"
    # the description of the pixels
    NO_PIXELS = "no_pixels"
    MISSING_ATTRIBUTE = "missing_attribute"
    BAD_ATTRIBUTE = "bad_attribute"
    PIXEL_MODULE = "pixel_module"
    DIMENSIONS = "dimensions"
    FRAMES = "frames"
    DECODED_SIZE = "decoded_size"
    PIXEL_LENGTH = "pixel_length"
    # the compressed stream
    ENCAPSULATION = "encapsulation"
    FRAME_COUNT = "frame_count"
    CODESTREAM = "codestream"
    CODESTREAM_SIZE = "codestream_size"
    # decoding
    DECODE = "decode"
    MEMORY = "memory"
    TIME_LIMIT = "time_limit"
    WORKER_DIED = "worker_died"
    PALETTE = "palette"
    RESCALE = "rescale"
    NON_FINITE = "non_finite"
    NOT_HOUNSFIELD = "not_hounsfield"
    NO_COLOUR = "no_colour"
    PRESENTATION = "presentation"
    POLARITY = "polarity"
    SUV_UNITS = "suv_units"
    SUV_CORRECTION = "suv_correction"
    SUV_WEIGHT = "suv_weight"
    SUV_DOSE = "suv_dose"
    SUV_HALF_LIFE = "suv_half_life"
    SUV_INJECTION_TIME = "suv_injection_time"
    SUV_SCAN_TIME = "suv_scan_time"
    VOI_LUT = "voi_lut"
    # one object against the others
    DUPLICATE_INSTANCE = "duplicate_instance"
    CONFLICTING_INSTANCE = "conflicting_instance"
    # a series that must become a volume
    SERIES_TOO_SHORT = "series_too_short"
    SERIES_TOO_LARGE = "series_too_large"
    SERIES_GEOMETRY = "series_geometry"
    SERIES_MISSING_SLICE = "series_missing_slice"
    SERIES_DUPLICATE_POSITION = "series_duplicate_position"
    SERIES_MIXED = "series_mixed"
    SERIES_TILTED = "series_tilted"
    SERIES_FOREIGN = "series_foreign"
    SERIES_OTHER_PART = "series_other_part"
    SERIES_INCOMPLETE = "series_incomplete"
    # expert segmentations
    SEGMENTATION_UNREADABLE = "segmentation_unreadable"
    SEGMENTATION_REFERENCES = "segmentation_references"
    SEGMENTATION_UNMATCHED = "segmentation_unmatched"
    SEGMENTATION_GEOMETRY = "segmentation_geometry"
    SEGMENTATION_CLASSES = "segmentation_classes"
    SEGMENTATION_FRAME = "segmentation_frame"
    SEGMENTATION_CONTOURS = "segmentation_contours"
    SEGMENTATION_TOO_LARGE = "segmentation_too_large"
    # masks that are written
    MASK_SOURCE = "mask_source"


# Met again on the next run, because the reason may lie outside the file (a network mount, a copy still under way).
TRANSIENT = frozenset({RejectCode.UNREADABLE, RejectCode.CHANGED_WHILE_READ})


class Rejected(Exception):  # noqa: N818 (it is a verdict, not a failure of the program)
    """Raised inside a worker to give up on one file; carries a code and nothing else."""

    def __init__(self, code: RejectCode) -> None:
        super().__init__(code.value)
        self.code = code
