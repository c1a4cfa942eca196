"""What a class of a study is in DICOM's terms: property category and type of a segment (PS3.3 section C.8.20.4).

A class whose name is a concept of DICOM's own lists (PS3.16: CID 7192 of anatomical structures, CID 7194 of abnormal
ones) gets its code, with the side where the name says one (``left_lung``); any other keeps its name under a private
scheme, so that nobody is told a wrong code.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes

PRIVATE_SCHEME: Final = "99FEDWARD"  # PS3.3 section 8.2: private schemes begin with 99
LONGEST_CODE: Final = 16  # of a private code: value representation SH
SIDES: Final = {"left": codes.SCT.Left, "right": codes.SCT.Right}
SPELLINGS: Final = {"tumour": "neoplasm", "tumor": "neoplasm", "haemorrhage": "hemorrhage", "oedema": "edema"}


@dataclass(frozen=True)
class SegmentCodes:
    """Codes of one segment; ``side`` is None where the name has none."""

    category: Any
    kind: CodedConcept
    side: Any = None


def codes_of(name: str, *, is_lesion: bool = False) -> SegmentCodes:
    """Return the codes of a class by its name in the plan. ``is_lesion``: the plan says so; else its name may."""
    words = [SPELLINGS.get(word, word) for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    sides = [word for word in words if word in SIDES]
    keywords = ["".join(map(str.capitalize, words))]  # the side may be part of the concept: left atrium
    keywords += ["".join(word.capitalize() for word in words if word not in SIDES)] if len(sides) == 1 else []
    for keyword, side in zip(keywords, (None, *sides), strict=False):
        for concepts, category in ((codes.CID7194, ABNORMAL), (codes.CID7192, ANATOMICAL)):
            known = _known(concepts, keyword)
            if known is not None:
                return SegmentCodes(ABNORMAL if is_lesion else category, known, SIDES.get(side or ""))
    category = ABNORMAL if is_lesion else ANATOMICAL
    return SegmentCodes(category, CodedConcept(name[:LONGEST_CODE].strip(), PRIVATE_SCHEME, name))


ABNORMAL: Final = codes.SCT.MorphologicallyAbnormalStructure
ANATOMICAL: Final = codes.SCT.AnatomicalStructure


def _known(concepts: Any, keyword: str) -> CodedConcept | None:
    """Return the concept of a list that DICOM names so, exactly; a part of a longer name is another thing."""
    try:
        return CodedConcept.from_code(getattr(concepts, keyword))
    except (AttributeError, RuntimeError):  # not in the list, or of several schemes
        return None
