"""Compressed streams that lie: bombs, other sizes than the header says, cut or mutated bytes, broken item lists."""

import struct
from collections.abc import Callable
from functools import partial

import numpy as np

from client.dicom.reject import RejectCode as Code
from simulation.hospitals.dicom_syntaxes import encode_jpeg_2000, encode_jpeg_lossless, encode_jpeg_ls, encode_rle
from simulation.hostile.case import ACCEPTED, HostileCase, one_file
from simulation.hostile.pixel_modules import COLUMNS, FRAMES, ROWS
from simulation.hostile.raw_file import UNDEFINED, item, plain

J2K_SIZ = b"\xff\x4f\xff\x51"
Stream = Callable[[bytes], bytes]

ENCODERS = {
    "rle": encode_rle,
    "jpeg_ls": encode_jpeg_ls,
    "jpeg_lossless": encode_jpeg_lossless,
    "jpeg_2000": encode_jpeg_2000,
}


def stream(name: str, syntax: str, change: Stream, *outcomes: Code | str) -> HostileCase:
    """Make a case of one image whose codestream went through ``change``."""

    def content(case: str) -> bytes:
        raw = plain(case, syntax)
        return raw.fragments(change(raw.first_fragment())).content()

    return one_file(name, content, *outcomes)


def mutated(data: bytes, seed: int, *, skip: int, count: int) -> bytes:
    """Flip ``count`` bytes after the first ``skip``."""
    rng, result = np.random.default_rng(seed), bytearray(data)
    for position in rng.integers(skip, len(data), count):
        result[position] ^= int(rng.integers(1, 256))
    return bytes(result)


def patched(data: bytes, marker: bytes, offset: int, value: bytes) -> bytes:
    """Overwrite bytes ``offset`` after the first ``marker``."""
    start = data.index(marker) + offset
    return data[:start] + value + data[start + len(value) :]


def sized(case: str, syntax: str, rows: int, columns: int) -> bytes:
    """Return an image whose header and stream both claim another size than the stream holds."""
    raw = plain(case, syntax)
    data = raw.first_fragment()
    if syntax == "jpeg_2000":
        data = patched(data, J2K_SIZ, 8, struct.pack(">IIIIII", columns, rows, 0, 0, columns, rows))
    elif syntax != "rle":
        marker = b"\xff\xf7" if syntax == "jpeg_ls" else b"\xff\xc3"
        data = patched(data, marker, 5, struct.pack(">HH", rows, columns))
    return raw.number(ROWS, rows).number(COLUMNS, columns).fragments(data).content()


def rle_bomb(case: str, side: int) -> bytes:
    """Return runs of zeros for ``side`` x ``side`` pixels of 16 bits: 128 pixels for two bytes."""
    segment = b"\x81\0" * (side * side // 128)
    data = struct.pack("<16I", 2, 64, 64 + len(segment), *[0] * 13) + segment * 2
    return plain(case, "rle").number(ROWS, side).number(COLUMNS, side).fragments(data).content()


def tiny_tiles(case: str) -> bytes:
    """Return a JPEG 2000 stream of 4096 x 4096 pixels in tiles of one pixel: 16 million tiles to set up."""
    raw = plain(case, "jpeg_2000").number(ROWS, 4096).number(COLUMNS, 4096)
    data = patched(raw.first_fragment(), J2K_SIZ, 8, struct.pack(">IIIIII", 4096, 4096, 0, 0, 1, 1))
    return raw.fragments(data).content()


def blank_of_side(case: str, syntax: str, side: int) -> bytes:
    """Return an honest image of one grey of ``side`` x ``side`` pixels: small file, much memory."""
    data = ENCODERS[syntax](np.full((side, side), 700, np.uint16), 12)
    return plain(case, syntax).number(ROWS, side).number(COLUMNS, side).fragments(data).content()


def many_frames_promised(case: str) -> bytes:
    """Return one fragment under a header of 65535 x 65535 x 4000."""
    raw = plain(case, "rle").number(ROWS, 65535).number(COLUMNS, 65535).put(FRAMES, "IS", "4000")
    return raw.content()


def another_size(case: str, syntax: str) -> bytes:
    """Return a stream of 64 x 64 under a header of 512 x 512."""
    return plain(case, syntax).number(ROWS, 512).number(COLUMNS, 512).content()


def native_bytes(case: str, syntax: str) -> bytes:
    """Return native pixels wrapped as if they were compressed."""
    raw = plain(case)
    pixels = raw.elements[0x7FE00010].value
    raw.elements[0x00020010] = plain(case, syntax).elements[0x00020010]
    return raw.fragments(pixels).content()


def offset_table(case: str, *offsets: int) -> bytes:
    """Return an image whose basic offset table points anywhere."""
    raw = plain(case, "jpeg_ls")
    return raw.fragments(raw.first_fragment(), offsets=struct.pack(f"<{len(offsets)}I", *offsets)).content()


def fragment_list(case: str, *, count: int) -> bytes:
    """Return an image with ``count`` copies of its one fragment (0 = none)."""
    raw = plain(case, "rle")
    return raw.fragments(*[raw.first_fragment()] * count).content()


def lying_item(case: str, length: int) -> bytes:
    """Return an image whose fragment says that it is ``length`` bytes long."""
    raw = plain(case, "rle")
    return raw.pixels(item(b"") + item(raw.first_fragment(), length), UNDEFINED, "OB").content()


CORRUPT = (Code.DECODE, Code.CODESTREAM, Code.CODESTREAM_SIZE, ACCEPTED)
TOO_COSTLY = (Code.DECODE, Code.CODESTREAM, Code.CODESTREAM_SIZE, Code.MEMORY, Code.TIME_LIMIT, Code.WORKER_DIED)
# Of a file that ends inside an item pydicom may return an empty data set (no SOP class).
BROKEN_LIST = (
    Code.ENCAPSULATION,
    Code.FRAME_COUNT,
    Code.CODESTREAM,
    Code.DECODE,
    Code.PARSE,
    Code.NO_PIXELS,
    Code.SOP_CLASS,
)

BOMBS = (
    one_file("a_header_of_31_tebibytes", many_frames_promised, Code.DIMENSIONS),
    one_file("an_rle_bomb_of_16384", lambda c: rle_bomb(c, 16384), Code.DIMENSIONS),
    one_file("an_rle_bomb_of_4096", lambda c: rle_bomb(c, 4096), ACCEPTED, *TOO_COSTLY),
    one_file("a_blank_jpeg_ls_of_4096", lambda c: blank_of_side(c, "jpeg_ls", 4096), ACCEPTED, *TOO_COSTLY),
    one_file("jpeg_2000_of_one_pixel_tiles", tiny_tiles, *TOO_COSTLY),
    one_file("jpeg_2000_that_claims_4096", lambda c: sized(c, "jpeg_2000", 4096, 4096), ACCEPTED, *TOO_COSTLY),
    one_file("jpeg_ls_that_claims_4096", lambda c: sized(c, "jpeg_ls", 4096, 4096), ACCEPTED, *TOO_COSTLY),
    one_file("jpeg_lossless_that_claims_4096", lambda c: sized(c, "jpeg_lossless", 4096, 4096), ACCEPTED, *TOO_COSTLY),
    one_file("rle_that_claims_4096", lambda c: sized(c, "rle", 4096, 4096), *TOO_COSTLY),
)

SIZES = (
    *(
        one_file(f"{s}_of_another_size", partial(another_size, syntax=s), Code.CODESTREAM_SIZE)
        for s in ("jpeg_ls", "jpeg_lossless", "jpeg_2000")
    ),
    one_file("rle_of_another_size", lambda c: another_size(c, "rle"), Code.CODESTREAM_SIZE, Code.DECODE),
    stream(
        "jpeg_2000_of_60000_squared",
        "jpeg_2000",
        lambda d: patched(d, J2K_SIZ, 8, struct.pack(">II", 60000, 60000)),
        Code.CODESTREAM_SIZE,
    ),
    stream(
        "jpeg_2000_of_16384_components",
        "jpeg_2000",
        lambda d: patched(d, J2K_SIZ, 40, struct.pack(">H", 16384)),
        Code.CODESTREAM_SIZE,
    ),
    stream(
        "jpeg_2000_with_a_negative_size",
        "jpeg_2000",
        lambda d: patched(d, J2K_SIZ, 16, struct.pack(">II", 0xFFFFFFF0, 0)),
        Code.CODESTREAM_SIZE,
    ),
    stream(
        "jpeg_ls_of_65535", "jpeg_ls", lambda d: patched(d, b"\xff\xf7", 5, b"\xff\xff\xff\xff"), Code.CODESTREAM_SIZE
    ),
    stream(
        "jpeg_without_a_height", "jpeg_lossless", lambda d: patched(d, b"\xff\xc3", 5, b"\0\0"), Code.CODESTREAM_SIZE
    ),
    stream(
        "jpeg_of_16_bit_precision",
        "jpeg_lossless",
        lambda d: patched(d, b"\xff\xc3", 4, b"\x20"),
        Code.DECODE,
        Code.CODESTREAM,
        Code.CODESTREAM_SIZE,
    ),
    stream("rle_of_200_segments", "rle", lambda d: struct.pack("<I", 200) + d[4:], Code.CODESTREAM_SIZE),
    stream("rle_with_segments_outside", "rle", lambda d: d[:8] + struct.pack("<I", 1 << 30) + d[12:], Code.CODESTREAM),
    stream("rle_with_segments_backwards", "rle", lambda d: d[:8] + struct.pack("<I", 3) + d[12:], Code.CODESTREAM),
)

STREAMS = (
    *(
        one_file(
            f"native_bytes_called_{s}",
            partial(native_bytes, syntax=s),
            Code.CODESTREAM,
            Code.CODESTREAM_SIZE,
        )
        for s in ENCODERS
    ),
    *(stream(f"{s}_cut_in_half", s, lambda d: d[: len(d) // 2], *CORRUPT) for s in ENCODERS),
    *(stream(f"{s}_without_content", s, lambda _: b"", *BROKEN_LIST) for s in ENCODERS),
    *(
        stream(
            f"{s}_with_{count}_bytes_changed",
            s,
            partial(mutated, seed=count, skip=64 if s == "rle" else 100, count=count),
            *CORRUPT,
            Code.TIME_LIMIT,
            Code.WORKER_DIED,
            Code.MEMORY,
        )
        for s in ENCODERS
        for count in (3, 200)
    ),
    stream("jpeg_without_a_frame_header", "jpeg_lossless", lambda d: d[:2] + d[-200:], Code.CODESTREAM),
    stream(
        "a_jpeg_marker_that_points_back",
        "jpeg_lossless",
        lambda d: b"\xff\xd8\xff\xfe\0\0" + d[2:],
        Code.CODESTREAM,
        Code.DECODE,
    ),
)

ITEMS = (
    one_file("an_offset_table_that_points_outside", lambda c: offset_table(c, 0x7FFFFFFF), ACCEPTED, *BROKEN_LIST),
    one_file("an_offset_table_of_three_frames", lambda c: offset_table(c, 0, 10, 20), ACCEPTED, *BROKEN_LIST),
    one_file("an_offset_table_of_four_gb", lambda c: offset_table(c, 0xFFFFFFFF, 0), ACCEPTED, *BROKEN_LIST),
    one_file("no_fragments", lambda c: fragment_list(c, count=0), *BROKEN_LIST),
    one_file("fifty_fragments_for_one_frame", lambda c: fragment_list(c, count=50), ACCEPTED, *BROKEN_LIST),
    one_file("a_fragment_of_4_gb", lambda c: lying_item(c, 0xFFFFFFF0), *BROKEN_LIST, ACCEPTED),
    one_file("a_fragment_of_undefined_length", lambda c: lying_item(c, UNDEFINED), *BROKEN_LIST, ACCEPTED),
    one_file("fragments_without_an_end", lambda c: lying_item(c, 500), *BROKEN_LIST, ACCEPTED),
    one_file(
        "compressed_without_items",
        lambda c: plain(c, "rle").pixels(b"\x07" * 600, UNDEFINED, "OB").content(),
        *BROKEN_LIST,
    ),
    one_file(
        "compressed_of_defined_length",
        lambda c: plain(c, "rle").pixels(b"\x07" * 600, None, "OB").content(),
        *BROKEN_LIST,
    ),
)

CASES: tuple[HostileCase, ...] = BOMBS + SIZES + STREAMS + ITEMS
