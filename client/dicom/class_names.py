"""What an expert called a segment or structure -> the class of the study that it is.

Names are compared without capitals and outer space. ``words``: what the hospital's own names mean
(``label_words.LabelWords.segments``): a class, or ``none`` for what is no part of the study; ``*`` is any other name.
"""

from collections.abc import Mapping, Sequence

from client.dicom.reject import RejectCode, Rejected

ANY_OTHER = "*"


def class_numbers(
    names: Mapping[int, Sequence[str]], classes: Sequence[str], words: Mapping[str, str]
) -> dict[int, int]:
    """Return the class number of each segment, by the first of its names that is known; left out: no part of the study.

    If the study has one class besides the background, a single segment is that class, whatever it is called.
    Raises: Rejected(segmentation_classes) when a name is not known, or nothing is left.
    """
    result: dict[int, int] = {}
    for number, own in names.items():
        called = [plain(name) for name in own if plain(name)]
        meanings = [name if name in classes else words[name] for name in called if name in classes or name in words]
        if not meanings and ANY_OTHER in words:
            meanings = [words[ANY_OTHER]]
        if not meanings and not (len(names) == 1 and len(classes) == 2):
            raise Rejected(RejectCode.SEGMENTATION_CLASSES)
        meaning = meanings[0] if meanings else classes[1]
        if meaning in classes:
            result[number] = classes.index(meaning)
    if not result:
        raise Rejected(RejectCode.SEGMENTATION_CLASSES)
    return result


def plain(name: str) -> str:
    """Return a name in the form in which names are compared."""
    return " ".join(name.lower().split())
