"""Plant hundreds of made-up identifiers into DICOM files, so that a search can show whether any of them leaks.

Planted in: every free-text attribute of the identifying groups, dates, UIDs, names with several components, nested
sequences, private tags (text, bytes, nested), file meta, preamble, trailing padding, names of files and folders, and
the label table. Each canary is unique; ``Planted.canaries`` says where each one went.
"""

import csv
import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom._dicom_dict import DicomDictionary
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from simulation.hospitals.segmentation_writer import write_segmentation
from simulation.hostile.raw_file import SIDE_PX, RawFile, item, names_of, plain

LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"
TEXT_VRS = frozenset({"AE", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"})
GROUPS = frozenset({0x0008, 0x0010, 0x0012, 0x0018, 0x0020, 0x0032, 0x0038, 0x0040, 0x0088, 0x4000})
PATIENT_ID, PATIENT_NAME, META_PRIVATE = 0x00100020, 0x00100010, 0x00020102
# Attributes that decide whether and how the image is read, or must keep a valid value for it to be taken.
OF_A_SERIES = (0x0020000D, 0x0020000E, PATIENT_ID, 0x00100021, 0x00200052)
NOT_HERE = frozenset({0x00080005, 0x00080016, 0x00080018, 0x0020000D, 0x0020000E, PATIENT_ID, 0x00100021, 0x00200052})


@dataclass(slots=True)
class Planted:
    """All canaries by text, each with the place where it was planted."""

    rng: random.Random
    canaries: dict[str, str] = field(default_factory=dict)

    def word(self, place: str) -> str:
        """Make a canary of 15 letters."""
        return self._note("".join(self.rng.choices(LETTERS, k=15)), place)

    def date(self, place: str) -> str:
        """Make a date of birth of the nineteenth century."""
        while True:
            text = f"18{self.rng.randrange(100):02d}{self.rng.randrange(1, 13):02d}{self.rng.randrange(1, 29):02d}"
            if text not in self.canaries:
                return self._note(text, place)

    def uid(self, place: str) -> str:
        """Make a valid UID."""
        return self._note(f"1.2.{self.rng.randrange(10**17, 10**18)}.{self.rng.randrange(10**9, 10**10)}", place)

    def _note(self, canary: str, place: str) -> str:
        self.canaries[canary] = place
        return canary


def plant(folder: Path, seed: int, files: int = 3) -> Planted:
    """Write ``files`` images full of canaries below ``folder``/scans, and ``folder``/labels.csv that names them.

    The images are valid CT images of different patients, fit to be accepted.
    """
    planted = Planted(random.Random(seed))
    rows = []
    for number in range(files):
        below = folder / "scans" / planted.word("folder name") / planted.word("folder name")
        below.mkdir(parents=True)
        raw = plain(f"canaries {seed}", part=number)
        key = identify(raw, planted)
        fill_text(raw, planted, f"image {number}")
        fill_private(raw, planted)
        fill_nested(raw, planted)
        fill_edges(raw, planted)
        (below / f"{planted.word('file name')}.dcm").write_bytes(raw.content() + trailer(planted))
        rows.append(("SOPInstanceUID", key, "normal"))
    rows += [("PatientID", planted.word("label table: a patient who is not here"), "lesion") for _ in range(10)]
    write_table(folder / "labels.csv", rows, planted)
    return planted


def plant_series(folder: Path, seed: int, slices: int = 8) -> Planted:
    """Write one CT series full of canaries, and a segmentation of it, below ``folder``/scans; an empty label table.

    The series is a regular volume (2.5 mm apart, class "lesion" drawn on it), fit to be accepted in a 3-D study.
    """
    planted = Planted(random.Random(seed))
    below = folder / "scans" / planted.word("folder name")
    below.mkdir(parents=True)
    first, paths = plain(f"canary series {seed}"), []
    identify(first, planted)
    for number in range(slices):
        raw = plain(f"canary series {seed}", part=number)
        fill_text(raw, planted, f"slice {number}")
        fill_private(raw, planted)
        fill_nested(raw, planted)
        fill_edges(raw, planted)
        identify(raw, planted)
        raw.elements |= {tag: first.elements[tag] for tag in OF_A_SERIES}
        raw.put(0x00200032, "DS", f"0\\0\\{2.5 * number}")
        paths.append(below / f"{planted.word('file name')}.dcm")
        paths[-1].write_bytes(raw.content() + trailer(planted))
    plant_segmentation(below / "segmentation.dcm", paths, planted)
    write_table(folder / "labels.csv", [], planted)
    return planted


def plant_segmentation(path: Path, slices: list[Path], planted: Planted) -> None:
    """Write a segmentation of the slices with canaries in its own attributes."""
    drawn = np.zeros((len(slices), SIDE_PX, SIDE_PX), np.uint8)
    drawn[1:4, 10:30, 10:30] = 1
    with disable_value_validation():
        write_segmentation(path, slices, drawn, ("background", "lesion"))
        ds = dcmread(path)
        ds.ContentCreatorName = planted.word("segmentation: creator")
        ds.ContentDescription = planted.word("segmentation: description")
        ds.SegmentSequence[0].SegmentDescription = planted.word("segmentation: segment")
        ds.SegmentSequence[0].TrackingID = planted.word("segmentation: tracking")
        ds.save_as(path)


def identify(raw: RawFile, planted: Planted) -> str:
    """Replace every identifier the ingest needs by a canary; returns the SOP Instance UID."""
    instance = planted.uid("SOP Instance UID")
    raw.put(0x00080018, "UI", instance).put(0x00020003, "UI", instance)
    raw.put(0x0020000D, "UI", planted.uid("Study Instance UID")).put(0x0020000E, "UI", planted.uid("Series UID"))
    raw.put(PATIENT_ID, "LO", planted.word("Patient ID")).put(0x00100021, "LO", planted.word("Issuer"))
    return instance


def fill_text(raw: RawFile, planted: Planted, place: str) -> None:
    """Fill every text attribute, date and UID of the identifying groups with canaries of their own."""
    for tag, (vr, multiplicity, name, retired, _) in DicomDictionary.items():
        if tag >> 16 not in GROUPS or tag in NOT_HERE or retired or not multiplicity.startswith("1"):
            continue
        where = f"{place}: {name}"
        if vr == "PN":
            raw.put(tag, vr, f"{planted.word(where)}^{planted.word(where)}={planted.word(where)}")
        elif vr in TEXT_VRS:
            raw.put(tag, vr, planted.word(where))
        elif vr == "DA":
            raw.put(tag, vr, planted.date(where))
        elif vr == "UI":
            raw.put(tag, vr, planted.uid(where))


def fill_private(raw: RawFile, planted: Planted) -> None:
    """Add private blocks: text, bytes, UTF-16 text and a nested name (PS3.5 section 7.8)."""
    for block in range(8):
        group = (0x0009 + 2 * block) << 16
        raw.put(group | 0x10, "LO", planted.word("private creator"))
        raw.put(group | 0x1001, "LT", planted.word("private text"))
        raw.put(group | 0x1002, "UN", planted.word("private bytes").encode())
        raw.put(group | 0x1003, "OB", planted.word("private UTF-16").encode("utf-16-le"))
        raw.put(group | 0x1004, "SQ", nested(planted, "private sequence"))


def fill_nested(raw: RawFile, planted: Planted) -> None:
    """Add sequences with identities inside, three deep."""
    for tag in (0x00081110, 0x00081140, 0x00101002, 0x00400275, 0x00081084, 0x00400555, 0x00321064):
        inner = nested(planted, "nested sequence")
        middle = encoded_item({0x00081115: ("SQ", inner), PATIENT_NAME: ("PN", planted.word("nested name").encode())})
        raw.put(tag, "SQ", item(middle))


def nested(planted: Planted, place: str) -> bytes:
    """Return a sequence value of one item with a name, an id and a date."""
    ds = Dataset()
    ds.PatientName, ds.PatientID = planted.word(place), planted.word(place)
    ds.PatientBirthDate, ds.ReferencedSOPInstanceUID = planted.date(place), planted.uid(place)
    file = DicomBytesIO()
    file.is_little_endian, file.is_implicit_VR = True, False
    write_dataset(file, ds)
    return item(file.getvalue())


def encoded_item(elements: dict[int, tuple[str, bytes]]) -> bytes:
    """Encode the content of an item from raw elements, in the order of their tags."""
    raw = RawFile(b"")
    for tag, (vr, value) in elements.items():
        raw.put(tag, vr, value)
    return raw.dataset()


def fill_edges(raw: RawFile, planted: Planted) -> None:
    """Use the preamble, the file meta's private information, and an overlay's comments."""
    raw.preamble = planted.word("preamble").encode().ljust(128, b"\0") + b"DICM"
    raw.put(0x00020100, "UI", planted.uid("file meta: private creator"))
    raw.put(META_PRIVATE, "OB", planted.word("file meta: private bytes").encode())
    raw.put(0x00020016, "AE", planted.word("file meta: source").lower())
    raw.put(0x60000022, "LO", planted.word("overlay description"))
    raw.put(0x60004000, "LT", planted.word("overlay comments"))


def trailer(planted: Planted) -> bytes:
    """Return a data set trailing padding element (FFFC,FFFC) with a canary."""
    value = planted.word("trailing padding").encode() + b" "
    return b"\xfc\xff\xfc\xffOB\0\0" + len(value).to_bytes(4, "little") + value


def write_table(path: Path, rows: list[tuple[str, str, str]], planted: Planted) -> None:
    """Write the label table with a further column that the contract does not know."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("key_type", "key", "label", "remark"))
        writer.writerows((*row, planted.word("label table: remark")) for row in rows)


def plant_in_bad_files(folder: Path, planted: Planted) -> int:
    """Give the patient's name in every hostile file below ``folder`` a canary; returns how many were changed."""
    former, changed = names_of("any").patient_name.encode().ljust(24), 0
    for path in sorted(folder.rglob("*.dcm")):
        if path.is_symlink() or not path.is_file() or path.stat().st_size > 1 << 24:
            continue
        content = path.read_bytes()
        if former in content:
            path.write_bytes(content.replace(former, planted.word("a bad file").encode().ljust(24)))
            changed += 1
    return changed
