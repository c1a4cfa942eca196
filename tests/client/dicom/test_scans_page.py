"""docs/scans.md against the code: every reject code, every key type, every accepted kind of image."""

import re

from pydicom.uid import UID

from client.dicom.header import ENCAPSULATED, NATIVE
from client.dicom.kinds import MODALITY_OF_CLASS
from client.dicom.labels import KEY_TYPES
from client.dicom.reject import RejectCode


def page(repository) -> str:
    return (repository / "docs" / "scans.md").read_text()


def test_the_table_of_codes_lists_exactly_the_codes_there_are(repository):
    table = page(repository).partition("## Codes")[2].partition("\n## ")[0]
    documented = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert sorted(documented) == sorted(code.value for code in RejectCode)


def test_every_key_type_of_the_label_table_is_explained(repository):
    assert not [key_type for key_type in KEY_TYPES if f"`{key_type}`" not in page(repository)]


def test_every_accepted_transfer_syntax_and_kind_of_image_is_listed(repository):
    text = page(repository)
    syntaxes = {str(uid) for uid in NATIVE | ENCAPSULATED}
    assert set(re.findall(r"`(1\.2\.840\.10008\.1\.2[\d.]*)`", text)) == syntaxes
    assert not [uid for uid in MODALITY_OF_CLASS if UID(uid).name.replace(" Image Storage", "") not in text]
