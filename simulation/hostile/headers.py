"""Objects that are no image we take, identities that are missing or hostile, and character set tricks."""

import struct

from client.dicom.reject import RejectCode as Code
from simulation.hostile.case import ACCEPTED, HostileCase, one_file
from simulation.hostile.raw_file import plain

SOP_CLASS, META_CLASS, IMAGE_TYPE = 0x00080016, 0x00020002, 0x00080008
CHARACTER_SET, PATIENT_ID, PATIENT_NAME = 0x00080005, 0x00100020, 0x00100010
STUDY_UID, SERIES_UID, INSTANCE_UID = 0x0020000D, 0x0020000E, 0x00080018
ESCAPES = "\x1b[2J\x1b]0;owned\x07\r\n"


def of_class(case: str, uid: str) -> bytes:
    """Return a file that claims to be another kind of object."""
    return plain(case).put(SOP_CLASS, "UI", uid).put(META_CLASS, "UI", uid).content()


def with_text(case: str, tag: int, vr: str, value: bytes | str) -> bytes:
    """Return a valid image with one text element replaced."""
    return plain(case).put(tag, vr, value).content()


def without(case: str, *tags: int) -> bytes:
    """Return a valid image without some elements."""
    return plain(case).drop(*tags).content()


def wrong_vr(case: str, tag: int, vr: str, value: bytes) -> bytes:
    """Return a valid image in which one element has a VR that is not its own."""
    return plain(case).put(tag, vr, value).content()


def private_identity(case: str) -> bytes:
    """Return an image with names in private tags, nested and flat: legal, and none of it may be kept."""
    raw = plain(case).put(0x00090010, "LO", "ACME").put(0x00091001, "PN", "Wang^Xiaodong")
    element = struct.pack("<HH2sH", 0x0010, 0x0010, b"PN", 8) + b"Doe^Jane"
    sequence = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(element)) + element
    return raw.put(0x00091002, "SQ", sequence).content()


KINDS = (
    one_file("a_report", lambda c: of_class(c, "1.2.840.10008.5.1.4.1.1.88.11"), Code.SOP_CLASS),
    one_file("an_encapsulated_document", lambda c: of_class(c, "1.2.840.10008.5.1.4.1.1.104.1"), Code.SOP_CLASS),
    one_file("contours_for_radiotherapy", lambda c: of_class(c, "1.2.840.10008.5.1.4.1.1.481.3"), Code.SOP_CLASS),
    one_file("a_screen_shot", lambda c: of_class(c, "1.2.840.10008.5.1.4.1.1.7"), Code.SECONDARY_CAPTURE),
    one_file("a_directory_record", lambda c: of_class(c, "1.2.840.10008.1.3.10"), Code.SOP_CLASS),
    one_file("no_sop_class", lambda c: without(c, SOP_CLASS), Code.SOP_CLASS),
    one_file("a_sop_class_of_text", lambda c: with_text(c, SOP_CLASS, "UI", "../../etc/passwd"), Code.SOP_CLASS),
    one_file("a_localizer", lambda c: with_text(c, IMAGE_TYPE, "CS", "ORIGINAL\\PRIMARY\\LOCALIZER"), Code.LOCALIZER),
    one_file(
        "a_saved_screen", lambda c: with_text(c, IMAGE_TYPE, "CS", "DERIVED\\SECONDARY\\SCREEN SAVE"), Code.SCREEN_SAVE
    ),
    one_file("text_burned_in", lambda c: with_text(c, 0x00280301, "CS", "YES"), Code.BURNED_IN),
    one_file("another_modality", lambda c: plain(c, modality="CR").content(), Code.MODALITY),
)

IDENTITIES = (
    one_file("no_patient_id", lambda c: without(c, PATIENT_ID), Code.NO_PATIENT_ID),
    one_file("a_patient_id_of_spaces", lambda c: with_text(c, PATIENT_ID, "LO", "      "), Code.NO_PATIENT_ID),
    one_file("a_patient_id_of_zero_bytes", lambda c: with_text(c, PATIENT_ID, "LO", b"\0" * 6), Code.NO_PATIENT_ID),
    one_file(
        "a_patient_id_that_walks_up",
        lambda c: with_text(c, PATIENT_ID, "LO", "../../../etc/cron.d/x"),
        ACCEPTED,
        Code.NO_PATIENT_ID,
    ),
    one_file(
        "a_patient_id_of_escape_sequences",
        lambda c: with_text(c, PATIENT_ID, "LO", f"7{ESCAPES}"),
        ACCEPTED,
        Code.NO_PATIENT_ID,
        Code.PARSE,
    ),
    one_file(
        "a_patient_id_of_60_kb",
        lambda c: with_text(c, PATIENT_ID, "LO", "7" * 60_000),
        ACCEPTED,
        Code.NO_PATIENT_ID,
        Code.PARSE,
    ),
    one_file(
        "a_patient_id_of_three_values",
        lambda c: with_text(c, PATIENT_ID, "LO", "7\\8\\9"),
        ACCEPTED,
        Code.NO_PATIENT_ID,
    ),
    one_file("no_study_uid", lambda c: without(c, STUDY_UID), Code.BAD_UID),
    one_file("no_series_uid", lambda c: without(c, SERIES_UID), Code.BAD_UID),
    one_file("no_instance_uid", lambda c: without(c, INSTANCE_UID), Code.BAD_UID),
    one_file("no_uid_at_all", lambda c: without(c, STUDY_UID, SERIES_UID, INSTANCE_UID), Code.BAD_UID),
    one_file("a_uid_that_walks_up", lambda c: with_text(c, INSTANCE_UID, "UI", "1.2/../../x"), Code.BAD_UID),
    one_file("a_uid_with_escape_sequences", lambda c: with_text(c, SERIES_UID, "UI", f"1.2{ESCAPES}"), Code.BAD_UID),
    one_file("a_uid_of_10_kb", lambda c: with_text(c, STUDY_UID, "UI", "1." * 5000 + "1"), Code.BAD_UID),
    one_file("a_uid_of_two_values", lambda c: with_text(c, INSTANCE_UID, "UI", "1.2.3\\1.2.4"), Code.BAD_UID),
    one_file("names_in_private_tags", private_identity, ACCEPTED),
)

CHARACTER_SETS = (
    one_file("an_unknown_character_set", lambda c: with_text(c, CHARACTER_SET, "CS", "KLINGON"), ACCEPTED, Code.PARSE),
    one_file(
        "a_thousand_character_sets",
        lambda c: with_text(c, CHARACTER_SET, "CS", "\\".join(["ISO 2022 IR 87"] * 1000)),
        ACCEPTED,
        Code.PARSE,
    ),
    one_file(
        "an_id_that_switches_code_pages",
        lambda c: (
            plain(c)
            .put(CHARACTER_SET, "CS", "\\ISO 2022 IR 87")
            .put(PATIENT_ID, "LO", b"7\x1b$B;3ED\x1b$)C\xb1\xe8\x1b")
            .content()
        ),
        ACCEPTED,
        Code.PARSE,
        Code.NO_PATIENT_ID,
    ),
    one_file(
        "an_id_that_is_no_utf8",
        lambda c: with_text(c, PATIENT_ID, "LO", b"\xff\xfe\xed\xa0\x80\xc0\xaf"),
        ACCEPTED,
        Code.PARSE,
        Code.NO_PATIENT_ID,
    ),
    one_file(
        "a_name_of_4000_components", lambda c: with_text(c, PATIENT_NAME, "PN", "a^=" * 4000), ACCEPTED, Code.PARSE
    ),
)

VALUE_REPRESENTATIONS = (
    one_file("rows_as_text", lambda c: wrong_vr(c, 0x00280010, "ST", b"64"), Code.BAD_ATTRIBUTE, Code.DECODE, ACCEPTED),
    one_file(
        "rows_of_three_bytes",
        lambda c: plain(c).put(0x00280010, "US", b"\x40\0\0", 3).content(),
        Code.PARSE,
        Code.BAD_ATTRIBUTE,
    ),
    one_file(
        "rows_twice_in_one", lambda c: wrong_vr(c, 0x00280010, "US", struct.pack("<HH", 64, 64)), Code.BAD_ATTRIBUTE
    ),
    one_file(
        "rows_as_a_sequence",
        lambda c: wrong_vr(c, 0x00280010, "SQ", b""),
        Code.BAD_ATTRIBUTE,
        Code.MISSING_ATTRIBUTE,
        Code.PARSE,
    ),
    one_file(
        "an_unknown_vr",
        lambda c: plain(c).put(0x00280010, "ZZ", b"\x40\0").content(),
        Code.BAD_ATTRIBUTE,
        Code.PARSE,
        Code.NO_PIXELS,
        Code.MISSING_ATTRIBUTE,
        ACCEPTED,
    ),
    one_file(
        "a_patient_id_of_bytes",
        lambda c: wrong_vr(c, PATIENT_ID, "OB", b"\x01\x02"),
        ACCEPTED,
        Code.NO_PATIENT_ID,
        Code.PARSE,
    ),
    one_file("a_uid_as_a_sequence", lambda c: wrong_vr(c, INSTANCE_UID, "SQ", b""), Code.BAD_UID, Code.PARSE),
)

CASES: tuple[HostileCase, ...] = KINDS + IDENTITIES + CHARACTER_SETS + VALUE_REPRESENTATIONS
