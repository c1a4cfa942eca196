"""Damage around the data set: not DICOM at all, cut files, lying file meta, deflate bombs, nesting, element floods."""

import gzip
import struct
import zlib

from client.dicom.reject import RejectCode as Code
from simulation.hostile.case import ACCEPTED, HostileCase, one_file
from simulation.hostile.raw_file import UNDEFINED, item, plain

TRANSFER_SYNTAX = 0x00020010
DEFLATED = "1.2.840.10008.1.2.1.99"
BOMB_MIB = 2048


def deflated(case: str, stream: bytes) -> bytes:
    """Return a file in the deflated syntax whose data set is ``stream``."""
    return plain(case).put(TRANSFER_SYNTAX, "UI", DEFLATED).meta() + stream


def bomb_stream(mebibytes: int) -> bytes:
    """Return raw deflate that inflates to ``mebibytes`` of zeros: one flushed block, repeated (about 1 kB each)."""
    compressor = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    block = compressor.compress(bytes(1 << 20)) + compressor.flush(zlib.Z_FULL_FLUSH)
    return block * mebibytes + zlib.compressobj(9, wbits=-zlib.MAX_WBITS).flush()


def deflate_bomb(case: str) -> bytes:
    """Return 2 MB that become 2 GB: the data set, then a private element of zeros."""
    element = struct.pack("<HH2sHI", 0x0009, 0x1010, b"OB", 0, BOMB_MIB << 20)
    compressor = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    start = compressor.compress(element) + compressor.flush(zlib.Z_FULL_FLUSH)
    return deflated(case, start + bomb_stream(BOMB_MIB))


def nested(case: str, depth: int) -> bytes:
    """Return a file with sequences of undefined length, ``depth`` deep."""
    opening = struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, UNDEFINED) + item(b"", UNDEFINED)
    raw = plain(case)
    pixels = raw.elements.pop(0x7FE00010).encoded(0x7FE00010)
    return raw.content() + opening * depth + pixels


def flood(case: str, count: int) -> bytes:
    """Return a file with ``count`` private elements."""
    raw = plain(case)
    for number in range(count):
        raw.put((0x1001 + 2 * (number // 0xEF00)) << 16 | 0x1000 + number % 0xEF00, "SH", "x")
    return raw.content()


def empty_items(case: str, count: int) -> bytes:
    """Return a file with one sequence of ``count`` empty items."""
    value = item(b"") * count
    return plain(case).put(0x00081140, "SQ", value).content()


def declared(case: str, tag: int, vr: str, length: int) -> bytes:
    """Return a file in which one text element says that it is ``length`` bytes long."""
    return plain(case).put(tag, vr, "Phantom ", length).content()


def cut(case: str, keep: int) -> bytes:
    """Return the first (or without the last) bytes of a file."""
    return plain(case).content()[:keep]


def syntax(case: str, uid: str) -> bytes:
    """Return a file that names another transfer syntax than it is written in."""
    return plain(case).put(TRANSFER_SYNTAX, "UI", uid).content()


def executable(case: str) -> bytes:
    """Return a valid image whose preamble starts like a Linux program (legal: the preamble is free, PS3.10 7.1)."""
    return b"\x7fELF\x02\x01\x01" + plain(case).content()[7:]


def without_preamble(case: str) -> bytes:
    """Return the elements alone, as some old machines send them."""
    return plain(case).content()[132:]


def meta_length(case: str, length: int) -> bytes:
    """Return a file whose file meta claims another length."""
    return plain(case).put(0x00020000, "UL", struct.pack("<I", length), 4).content()


def noise(case: str, count: int) -> bytes:
    """Return the prefix of a DICOM file, then bytes without meaning."""
    return bytes(128) + b"DICM" + bytes((len(case) * 7 + i * i * 31) % 256 for i in range(count))


# Of a file that ends inside an element pydicom may return what came before, or an empty data set (no SOP class).
ENDS_EARLY = (Code.PARSE, Code.NO_PIXELS, Code.MISSING_ATTRIBUTE, Code.SOP_CLASS)

CASES: tuple[HostileCase, ...] = (
    one_file("an_empty_file", lambda _: b"", Code.FILE_SIZE),
    one_file("a_web_page", lambda _: b"<html><body>" + b"moved " * 100, Code.NOT_PART10),
    one_file("a_zip_archive", lambda _: b"PK\x03\x04" + bytes(1000), Code.NOT_PART10),
    one_file("a_gzipped_image", lambda c: gzip.compress(plain(c).content()), Code.NOT_PART10),
    one_file("no_preamble", without_preamble, Code.NOT_PART10),
    one_file("a_program_in_the_preamble", executable, ACCEPTED),
    one_file("only_the_prefix", lambda _: bytes(128) + b"DICM" + bytes(2), Code.BAD_META),
    one_file("noise_after_the_prefix", lambda c: noise(c, 5000), Code.BAD_META, Code.PARSE, Code.TRANSFER_SYNTAX),
    one_file("ones_after_the_prefix", lambda _: bytes(128) + b"DICM" + b"\xff" * 9000, Code.BAD_META, Code.PARSE),
    one_file("zeros_after_the_prefix", lambda _: bytes(128) + b"DICM" + bytes(9000), Code.BAD_META, Code.PARSE),
    one_file("cut_in_the_file_meta", lambda c: cut(c, 250), Code.BAD_META, Code.PARSE, Code.SOP_CLASS),
    one_file(
        "cut_in_the_header", lambda c: cut(c, 700), Code.PARSE, Code.NO_PIXELS, Code.MISSING_ATTRIBUTE, Code.BAD_UID
    ),
    one_file("cut_in_the_pixels", lambda c: cut(c, -2000), Code.PIXEL_LENGTH, Code.PARSE),
    one_file("a_meta_length_of_4_gb", lambda c: meta_length(c, 0xFFFFFFF0), ACCEPTED, Code.BAD_META),
    one_file("a_meta_length_of_zero", lambda c: meta_length(c, 0), ACCEPTED, Code.BAD_META),
    one_file(
        "a_meta_element_of_2_gb",
        lambda c: plain(c).put(0x00020013, "OB", b"x" * 8, 0x7FFFFFFF).content(),
        Code.BAD_META,
        Code.PARSE,
        Code.SOP_CLASS,
    ),
    one_file("no_transfer_syntax", lambda c: plain(c).drop(TRANSFER_SYNTAX).content(), Code.BAD_META),
    one_file("an_empty_transfer_syntax", lambda c: syntax(c, ""), Code.BAD_META, Code.TRANSFER_SYNTAX),
    one_file("a_private_transfer_syntax", lambda c: syntax(c, "1.2.3.4.5.6"), Code.TRANSFER_SYNTAX),
    one_file("a_film", lambda c: syntax(c, "1.2.840.10008.1.2.4.102"), Code.TRANSFER_SYNTAX),
    one_file("pixels_by_address", lambda c: syntax(c, "1.2.840.10008.1.2.4.94"), Code.TRANSFER_SYNTAX),
    one_file(
        "explicit_called_implicit",
        lambda c: syntax(c, "1.2.840.10008.1.2"),
        Code.PARSE,
        Code.SOP_CLASS,
        Code.NO_PIXELS,
        ACCEPTED,
    ),
    one_file(
        "little_endian_called_big", lambda c: syntax(c, "1.2.840.10008.1.2.2"), Code.PARSE, Code.SOP_CLASS, Code.MEMORY
    ),
    one_file("a_deflate_bomb", deflate_bomb, Code.DEFLATE_LIMIT),
    one_file("deflated_noise", lambda c: deflated(c, b"\x07" * 5000), Code.PARSE, Code.DEFLATE_LIMIT),
    one_file(
        "a_cut_deflate_stream",
        lambda c: deflated(c, zlib.compress(plain(c).dataset(), wbits=-15)[:-900]),
        Code.DEFLATE_LIMIT,
        Code.PARSE,
    ),
    one_file("sequences_5000_deep", lambda c: nested(c, 5000), Code.NESTING),
    one_file("sequences_500000_deep", lambda c: nested(c, 500_000), Code.NESTING),
    one_file("a_hundred_thousand_elements", lambda c: flood(c, 100_000), Code.TOO_MANY_ELEMENTS),
    one_file(
        "a_million_empty_items",
        lambda c: empty_items(c, 1_000_000),
        ACCEPTED,
        Code.TOO_MANY_ELEMENTS,
        Code.TIME_LIMIT,
        Code.MEMORY,
        Code.NESTING,
        Code.PARSE,
    ),
    one_file(
        "a_name_of_2_gb",
        lambda c: declared(c, 0x00100010, "UT", 0x7FFFFFFF),
        Code.NO_PIXELS,
        Code.PARSE,
        Code.MISSING_ATTRIBUTE,
        Code.NO_PATIENT_ID,
    ),
    one_file(
        "a_text_of_undefined_length",
        lambda c: declared(c, 0x00104000, "UT", UNDEFINED),
        *ENDS_EARLY,
    ),
    one_file(
        "a_sequence_that_never_ends",
        lambda c: plain(c).put(0x00081140, "SQ", item(b"", UNDEFINED), UNDEFINED).content(),
        *ENDS_EARLY,
        Code.BAD_UID,
    ),
)
