"""Who a file is about: what in it tells persons apart, as keyed names. Runs in a worker.

``client.dicom.persons`` brings the identifiers of one person together; this file only reads what one header says.
Sources: DICOM PS3.3 section C.7.1.1 (patient module), PS3.5 section 6.1 (character sets).
"""

from pydicom.dataset import Dataset

from client.dicom.attributes import instance_uid, value_of, word
from client.dicom.identity_keys import DOUBTS, Identity
from client.dicom.person_rules import PersonFrom
from client.dicom.pseudonyms import Pseudonyms, likeness
from client.dicom.reject import RejectCode, Rejected

MAX_OTHER_IDS = 16
# Words that de-identifying programs and consoles write where a person should be named.
PLACEHOLDERS = frozenset({
    "ANON", "ANONYM", "ANONYMOUS", "ANONYMOUSPATIENT", "ANONYMIZED", "ANONYMISED", "DEIDENTIFIED", "REMOVED", "BLANK",
    "UNKNOWN", "UNK", "NONE", "NULL", "NIL", "NA", "NAN", "NOID", "NONAME", "NOTAVAILABLE", "NOTAPPLICABLE", "TBD",
    "EMPTY", "PATIENT", "PATIENTID", "ID", "DUMMY", "TEST", "TESTPATIENT", "PHANTOM", "EMERGENCY", "0",
})  # fmt: skip
REPEATED = "X9"


def identity_of(dataset: Dataset, names: Pseudonyms) -> Identity:
    """Return whom a header is about.

    Raises: Rejected(no_patient_id) when it does not say and nobody decided that a study or a folder is a person: a key
    made from the study instead would count one person as several, and privacy is promised to persons.
    """
    patient_id, doubtful = identifier(dataset, "PatientID")
    alike = likeness(patient_id)
    is_placeholder = bool(patient_id) and not (doubtful and not alike) and _is_placeholder(alike, names)
    if names.rules.person_from is not PersonFrom.IDENTIFIER and (not patient_id or is_placeholder):
        return _named_by_place(dataset, names)
    if not patient_id:
        raise Rejected(RejectCode.NO_PATIENT_ID)
    issuer = _issuer(dataset)
    birth_year, sex = identifier(dataset, "PatientBirthDate")[0][:4], word(dataset, "PatientSex")
    found = {"placeholder": is_placeholder, "undeclared_characters": doubtful}
    return Identity(
        patient_key=names.patient(issuer, patient_id),
        patient_id_key=names.label_key("PatientID", patient_id),
        issuer_key=names.issuer(issuer),
        other_id_keys=_other_ids(dataset, patient_id, names),
        likeness_key=names.key("likeness", alike.encode()) if alike else "",
        birth_year_key=_trait("birth year", birth_year, patient_id, names) if birth_year.isdigit() else "",
        sex_key=_trait("sex", sex, patient_id, names) if sex in ("F", "M") else "",
        doubts=tuple(name for name in DOUBTS if found.get(name)),
    )


def identifier(dataset: Dataset, keyword: str) -> tuple[str, bool]:
    """Return an identifier as text ("" when missing), and whether its characters are in doubt."""
    value = value_of(dataset, keyword)
    text = value.decode("latin-1") if isinstance(value, bytes) else "" if value is None else str(value)
    read, doubtful = _as_meant(text.strip(" \0"), dataset)
    return read, doubtful


def _as_meant(text: str, dataset: Dataset) -> tuple[str, bool]:
    """Undo a character set that is missing or wrong, where the bytes can only be UTF-8."""
    if text.isascii():
        return text, False
    try:
        meant = text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        meant = text
    declared = value_of(dataset, "SpecificCharacterSet")
    return meant, meant != text or not declared or "\ufffd" in text


def _is_placeholder(alike: str, names: Pseudonyms) -> bool:
    repeated = len(alike) > 2 and len(set(alike)) == 1 and alike[0] in REPEATED
    return not alike or alike in PLACEHOLDERS or alike in names.rules.placeholders or repeated


def _issuer(dataset: Dataset) -> str:
    """Return who gave the PatientID out: in words, else by the identifier of the authority."""
    issuer = identifier(dataset, "IssuerOfPatientID")[0]
    qualifiers = value_of(dataset, "IssuerOfPatientIDQualifiersSequence")
    return issuer or (identifier(qualifiers[0], "UniversalEntityID")[0] if qualifiers else "")


def _other_ids(dataset: Dataset, patient_id: str, names: Pseudonyms) -> tuple[str, ...]:
    values = value_of(dataset, "OtherPatientIDs")
    plain = [values] if isinstance(values, str) else list(values or ())
    found = [(str(value), "") for value in plain]
    items = value_of(dataset, "OtherPatientIDsSequence") or ()
    found += [(identifier(item, "PatientID")[0], _issuer(item)) for item in items]
    keys = []
    for text, issuer in found[:MAX_OTHER_IDS]:
        other = _as_meant(text.strip(" \0"), dataset)[0]
        alike = likeness(other)
        if other and not _is_placeholder(alike, names):
            keys.append(names.label_key("PatientID", other) + names.issuer(issuer))
    own = names.label_key("PatientID", patient_id)
    return tuple(sorted(set(keys) - {own}))


def _trait(kind: str, value: str, patient_id: str, names: Pseudonyms) -> str:
    return names.key(kind, patient_id.encode("utf-8", "surrogatepass"), value.encode())


def _named_by_place(dataset: Dataset, names: Pseudonyms) -> Identity:
    if names.rules.person_from is PersonFrom.STUDY:
        key = names.person_of_study(instance_uid(dataset, "StudyInstanceUID"))
        return Identity(patient_key=key, patient_id_key=key, doubts=("from_study",))
    if not names.folder:
        raise Rejected(RejectCode.NO_PATIENT_ID)
    key = names.person_of_folder(names.folder)
    return Identity(patient_key=key, patient_id_key=key, doubts=("from_folder",))
