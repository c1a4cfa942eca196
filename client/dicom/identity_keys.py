"""Whom a file is about, as keyed names: what ``client.dicom.identity`` reads from a header, and all that is kept of it.

In a file of its own, because whoever opens the cache knows these names but reads no header: it imports no pydicom.
"""

from dataclasses import dataclass

DOUBTS = ("placeholder", "undeclared_characters", "from_study", "from_folder")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Keyed names of whom a file is about.

    ``patient_key``: issuer and PatientID. ``patient_id_key``: PatientID alone. ``issuer_key``: "" when nobody says.
    ``other_id_keys``: other identifiers of the same person, each a keyed PatientID, followed by the keyed issuer if
    there is one. ``likeness_key``: equal for identifiers that differ in leading zeros or punctuation only.
    ``birth_year_key``, ``sex_key``: tell whether one identifier stands for several people; they cannot be compared
    between identifiers.
    """

    patient_key: str
    patient_id_key: str
    issuer_key: str = ""
    other_id_keys: tuple[str, ...] = ()
    likeness_key: str = ""
    birth_year_key: str = ""
    sex_key: str = ""
    doubts: tuple[str, ...] = ()
