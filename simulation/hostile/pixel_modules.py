"""Descriptions of the pixels that contradict each other or the pixels, and numbers that are none."""

import struct
from collections.abc import Callable

from client.dicom.reject import RejectCode as Code
from simulation.hostile.case import ACCEPTED, HostileCase, one_file
from simulation.hostile.raw_file import RawFile, plain

SAMPLES, PHOTOMETRIC, FRAMES = 0x00280002, 0x00280004, 0x00280008
ROWS, COLUMNS = 0x00280010, 0x00280011
ALLOCATED, STORED, HIGH_BIT, SIGNED = 0x00280100, 0x00280101, 0x00280102, 0x00280103
INTERCEPT, SLOPE = 0x00281052, 0x00281053
SPACING, POSITION, ORIENTATION = 0x00280030, 0x00200032, 0x00200037
PADDING = 0x00280120
MODALITY_LUT, PALETTE_DESCRIPTOR, PALETTE_DATA = 0x00283000, 0x00281101, 0x00281201

Change = Callable[[RawFile], RawFile]


def changed(name: str, change: Change, *outcomes: Code | str) -> HostileCase:
    """Make a case of one image with ``change`` applied."""
    return one_file(name, lambda case: change(plain(case)).content(), *outcomes)


def decimal(tag: int, value: str) -> Change:
    """Return the change that writes ``value`` into a decimal string."""
    return lambda raw: raw.put(tag, "DS", value)


def unsigned(tag: int, value: int) -> Change:
    """Return the change that writes ``value`` into an unsigned short."""
    return lambda raw: raw.number(tag, value)


def frames(value: str) -> Change:
    """Return the change that writes the number of frames."""
    return lambda raw: raw.put(FRAMES, "IS", value)


def palette(raw: RawFile, *, entries: int, held: int) -> RawFile:
    """Make a palette image whose tables promise ``entries`` and hold ``held`` entries."""
    raw.put(PHOTOMETRIC, "CS", "PALETTE COLOR")
    for colour in range(3):
        raw.put(PALETTE_DESCRIPTOR + colour, "US", struct.pack("<HHH", entries % 65536, 0, 16))
        raw.put(PALETTE_DATA + colour, "OW", bytes(2 * held))
    return raw


def lookup_table(raw: RawFile) -> RawFile:
    """Give the image a modality table that promises 65536 entries and holds 2 (then slope and intercept must go)."""
    inner = struct.pack("<HH2sHHHH", 0x0028, 0x3002, b"US", 6, 0, 0, 16)
    inner += struct.pack("<HH2sHI", 0x0028, 0x3006, b"OW", 0, 4) + bytes(4)
    sequence = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(inner)) + inner
    return raw.drop(SLOPE, INTERCEPT).put(MODALITY_LUT, "SQ", sequence)


BAD_NUMBER = (Code.BAD_ATTRIBUTE, Code.RESCALE, Code.NON_FINITE)
WRONG_SIZE = (Code.PIXEL_LENGTH, Code.DECODE)

SIZES = (
    changed("rows_of_65535", unsigned(ROWS, 65535), Code.DIMENSIONS),
    changed("both_sides_65535", lambda r: r.number(ROWS, 65535).number(COLUMNS, 65535), Code.DIMENSIONS),
    changed("rows_of_4096_without_pixels", unsigned(ROWS, 4096), Code.PIXEL_LENGTH),
    changed("no_rows", unsigned(ROWS, 0), Code.DIMENSIONS),
    changed("rows_missing", lambda r: r.drop(ROWS), Code.MISSING_ATTRIBUTE),
    changed("columns_empty", lambda r: r.put(COLUMNS, "US", b""), Code.MISSING_ATTRIBUTE),
    changed("zero_frames", frames("0"), Code.FRAMES),
    changed("minus_one_frames", frames("-1"), Code.FRAMES),
    changed("two_billion_frames", frames("2147483647"), Code.FRAMES, Code.BAD_ATTRIBUTE),
    changed("frames_beyond_any_integer", frames("999999999999"), Code.FRAMES, Code.BAD_ATTRIBUTE, Code.PARSE),
    changed("frames_in_letters", frames("many"), Code.BAD_ATTRIBUTE, Code.FRAMES, Code.PARSE),
    changed("frames_that_are_not_there", frames("300"), *WRONG_SIZE),
    changed("no_pixel_data", lambda r: r.drop(0x7FE00010), Code.NO_PIXELS),
    changed("empty_pixel_data", lambda r: r.pixels(b""), Code.PIXEL_LENGTH, Code.NO_PIXELS, Code.PARSE),
    changed("pixel_data_one_byte_short", lambda r: r.pixels(bytes(8191)), Code.PIXEL_LENGTH),
    changed("pixel_data_far_too_long", lambda r: r.pixels(bytes(1_000_000)), Code.PIXEL_LENGTH),
    changed(
        "a_pixel_length_of_4_gb",
        lambda r: r.pixels(bytes(8192), 0xFFFFFFFE),
        Code.PIXEL_LENGTH,
        Code.PARSE,
        Code.MEMORY,
        ACCEPTED,
    ),
    changed(
        "native_pixels_of_undefined_length",
        lambda r: r.pixels(bytes(8192), 0xFFFFFFFF),
        Code.SOP_CLASS,
        Code.PIXEL_LENGTH,
        Code.PARSE,
        Code.NO_PIXELS,
        Code.DECODE,
    ),
)

# A palette holds colours, no Hounsfield units, whatever its tables say.
NO_PALETTE = (Code.PALETTE, Code.PIXEL_MODULE, Code.NOT_HOUNSFIELD)
BITS = (
    changed("twenty_bits_in_sixteen", unsigned(STORED, 20), Code.PIXEL_MODULE),
    changed("twelve_bits_allocated", unsigned(ALLOCATED, 12), Code.PIXEL_MODULE),
    changed("sixty_four_bits_allocated", unsigned(ALLOCATED, 64), Code.PIXEL_MODULE),
    changed("no_bits_stored", lambda r: r.number(STORED, 0).number(HIGH_BIT, 65535), Code.PIXEL_MODULE),
    changed("a_high_bit_elsewhere", unsigned(HIGH_BIT, 3), Code.PIXEL_MODULE),
    changed("a_third_kind_of_sign", unsigned(SIGNED, 7), Code.PIXEL_MODULE),
    changed("five_samples", lambda r: r.number(SAMPLES, 5).put(PHOTOMETRIC, "CS", "FOO"), Code.PIXEL_MODULE),
    changed("three_samples_of_grey", unsigned(SAMPLES, 3), Code.PIXEL_MODULE),
    changed("colour_with_one_sample", lambda r: r.put(PHOTOMETRIC, "CS", "RGB"), Code.PIXEL_MODULE),
    changed("no_photometric_interpretation", lambda r: r.drop(PHOTOMETRIC), Code.PIXEL_MODULE, Code.MISSING_ATTRIBUTE),
    changed("a_palette_without_tables", lambda r: r.put(PHOTOMETRIC, "CS", "PALETTE COLOR"), *NO_PALETTE),
    changed("a_palette_that_lies", lambda r: palette(r, entries=65536, held=2), *NO_PALETTE),
    changed("a_modality_table_that_lies", lookup_table, Code.RESCALE),
)

NUMBERS = (
    changed("a_slope_of_nan", decimal(SLOPE, "nan"), *BAD_NUMBER),
    changed("a_slope_of_infinity", decimal(SLOPE, "inf"), *BAD_NUMBER),
    changed("a_slope_of_zero", decimal(SLOPE, "0"), *BAD_NUMBER),
    changed("a_slope_beyond_float32", decimal(SLOPE, "1e300"), *BAD_NUMBER),
    changed("a_slope_of_a_billion", decimal(SLOPE, "999999999"), ACCEPTED, *BAD_NUMBER),
    changed("a_slope_of_two_values", decimal(SLOPE, "1\\2"), *BAD_NUMBER),
    changed("an_intercept_of_letters", decimal(INTERCEPT, "abc"), *BAD_NUMBER, Code.PARSE),
    changed("an_intercept_of_minus_infinity", decimal(INTERCEPT, "-inf"), *BAD_NUMBER),
    changed("an_intercept_of_escape_sequences", decimal(INTERCEPT, "1\x1b[2J"), *BAD_NUMBER, Code.PARSE),
    changed("a_spacing_of_zero", decimal(SPACING, "0\\0"), ACCEPTED, Code.BAD_ATTRIBUTE),
    changed("a_negative_spacing", decimal(SPACING, "-1\\-1"), ACCEPTED, Code.BAD_ATTRIBUTE),
    changed("a_position_of_nan", decimal(POSITION, "nan\\0\\0"), ACCEPTED, Code.BAD_ATTRIBUTE),
    changed("an_orientation_of_zeros", decimal(ORIENTATION, "0\\0\\0\\0\\0\\0"), ACCEPTED, Code.BAD_ATTRIBUTE),
    changed("a_window_of_width_zero", lambda r: r.put(0x00281050, "DS", "40").put(0x00281051, "DS", "0"), ACCEPTED),
    changed(
        "nothing_but_padding",
        lambda r: r.number(PADDING, 0).pixels(bytes(8192)),
        ACCEPTED,
        Code.NON_FINITE,
        Code.RESCALE,
        Code.BAD_ATTRIBUTE,
    ),
)

CASES: tuple[HostileCase, ...] = SIZES + BITS + NUMBERS
