"""Counts that may be shown, and the picture for local eyes."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from client.dicom.cache import Cache
from client.dicom.census import SMALL_CELL, suppressed, take_census
from client.dicom.contact_sheet import contact_sheet
from client.dicom.ingest import ingest

COUNTS = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(0, 60), max_size=8)


@given(COUNTS)
def test_no_small_count_is_shown_and_none_follows_from_the_total(counts):
    cells = suppressed(counts)
    assert set(cells) == set(counts)
    assert not [name for name, count in cells.items() if count is not None and 0 < count < SMALL_CELL]
    hidden = [name for name, count in cells.items() if count is None]
    assert len(hidden) != 1 or all(count in (0, None) for count in cells.values())


@given(COUNTS)
def test_what_is_shown_is_true(counts):
    assert all(count is None or count == counts[name] for name, count in suppressed(counts).items())


@pytest.fixture(scope="module")
def held(tmp_path_factory, scan, settings_with, secret):
    """Twelve patients of one maker, three of them labelled; one file that is no scan."""
    folder = tmp_path_factory.mktemp("held")
    (folder / "scans").mkdir()
    for number in range(12):
        (folder / "scans" / f"{number}.dcm").write_bytes(
            scan(patient=f"P{number}", number=number, form={"maker": "GE"})
        )
    (folder / "scans" / "notes.txt").write_bytes(b"Wang " * 60)
    labels = folder / "labels.csv"
    labels.write_text("key_type,key,label\n" + "".join(f"PatientID,P{n},lesion\n" for n in range(3)))
    ingest(folder / "scans", folder / "cache", settings=settings_with(), secret=secret, labels=labels)
    return folder / "cache"


def test_a_census_counts_patients_images_makers_and_quarantine(held, secret):
    census = take_census(held, secret)
    assert (census["patients"], census["images"]) == (12, 12)
    assert census["images_by_maker"] == {"GE": 12}
    assert census["patients_by_stratum"] == {"labelled": None, "unlabelled": None}
    assert census["patients_by_class"] == {"lesion": None, "normal": 0}
    assert census["quarantined_files"] == {"not_part10": None}


def test_the_contact_sheet_is_a_picture_of_the_records_and_nothing_else(held, secret):
    sheet = Image.open(BytesIO(contact_sheet(Cache.open(held, secret), 5)))
    assert sheet.format == "PNG"
    assert not sheet.info
    assert len(np.unique(np.asarray(sheet))) > 50
