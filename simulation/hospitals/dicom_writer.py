"""Valid DICOM Part 10 files for simulated hospitals, quickly: one header is built and serialised, then patched.

Building a pydicom dataset costs about a millisecond; a hospital has thousands of files that differ in a dozen values.
So ``Template`` serialises the header once with placeholders of fixed length (the values that differ), and each file is
the patched bytes plus the pixels. Every result is a complete object of its SOP class as far as a reader needs: file
meta, patient, study, series, equipment, geometry, Image Pixel module (PS3.3 A.2, A.3, A.4, A.26; PS3.10 section 7).
"""

import hashlib
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import UID

from simulation.hospitals.dicom_syntaxes import SYNTAXES, Stored, Syntax

SOP_CLASSES = {
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "MG": "1.2.840.10008.5.1.4.1.1.1.2",
    "US": "1.2.840.10008.5.1.4.1.1.6.1",
    "OP": "1.2.840.10008.5.1.4.1.1.77.1.5.1",
    "XC": "1.2.840.10008.5.1.4.1.1.77.1.4",
}
IMPLEMENTATION_UID = "2.25.232938410523420150211187427632450120001"


@dataclass(frozen=True, slots=True)
class Form:
    """What all images of one series kind have in common.

    ``modality`` is a key of ``SOP_CLASSES``; ``colours`` 1 (grey) or 3 (red, green, blue; 8 bits); ``bits_stored`` 8 or
    9 to 16 (unsigned); ``spacing_mm`` is (slice, row, column); ``slope`` and ``intercept`` give the rescaled value (HU
    for CT).
    """

    modality: str
    rows: int
    columns: int
    bits_stored: int = 12
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    slope: float = 1.0
    intercept: float = 0.0
    monochrome1: bool = False
    syntax: str = "explicit"
    maker: str = "Reference"
    model: str = "R1"
    institution: str = "Simulated Hospital"
    colours: int = 1


@dataclass(frozen=True, slots=True)
class Names:
    """What differs between the images of a hospital. UIDs have the 44 characters of ``uid_for``."""

    patient_id: str
    study_uid: str
    series_uid: str
    instance_uid: str
    patient_name: str = "Phantom^One"
    accession: str = ""
    study_date: str = "20240102"
    instance_number: int = 1
    position_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)


def uid_for(*parts: object) -> str:
    """Derive a UID of exactly 44 characters from ``parts``: 2.25.<39 digits>, PS3.5 B.2 (same parts, same UID)."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return f"2.25.{10**38 + int.from_bytes(digest[:16], 'big') % (2 * 10**38)}"


# Placeholders: each as long as the value that replaces it, none a part of another.
STUDY, SERIES, INSTANCE = (f"2.25.1{digit * 38}" for digit in "357")
PATIENT, NAME, ACCESSION = "PATIENTPATIENT..", "NAMENAMENAMENAMENAMENAME", "ACCESSION......."
DATE, NUMBER, POSITION = "10101010", "979797", ("-1111.1111", "-2222.2222", "-3333.3333")


class Template:
    """A serialised header of one ``Form``, ready to be patched for each image."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self.syntax: Syntax = SYNTAXES[form.syntax]
        self.meta, self.header = serialise(header(form), self.syntax)

    def file(self, names: Names, frame: Stored) -> bytes:
        """Return the whole file for one frame (rows, columns), in colour (rows, columns, 3), of stored values.

        Raises: ValueError if the frame's shape or a name's length does not fit the template.
        """
        form = self.form
        if frame.shape != (form.rows, form.columns, form.colours)[: 2 + (form.colours > 1)]:
            raise ValueError(f"this template is for {form.rows} x {form.columns} pixels, not {frame.shape}")
        body = patch(self.header, names) + pixel_element(frame, self.form.bits_stored, self.syntax)
        if self.syntax.deflated:
            body = deflate(body)
        return self.meta.replace(INSTANCE.encode(), exactly(names.instance_uid, 44)) + body

    def write(self, path: Path, names: Names, frame: Stored) -> None:
        """Write the file for one frame to ``path``."""
        path.write_bytes(self.file(names, frame))


def header(form: Form) -> Dataset:
    """Build the dataset of one ``form`` without pixels; what differs between images holds placeholders."""
    ds = Dataset()
    for module in (identity_module(), equipment_module(form), pixel_module(form), geometry_module(form)):
        for keyword, value in module.items():
            setattr(ds, keyword, value)
    return ds


def identity_module() -> dict[str, object]:
    """Patient, Study and Series modules, PS3.3 C.7.1 to C.7.3."""
    return {
        "SpecificCharacterSet": "ISO_IR 192",
        "SOPInstanceUID": INSTANCE,
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": SERIES,
        "PatientID": PATIENT,
        "PatientName": NAME,
        "PatientBirthDate": "19700101",
        "PatientSex": "O",
        "StudyDate": DATE,
        "StudyTime": "080000",
        "ContentDate": DATE,
        "ContentTime": "080000",
        "AccessionNumber": ACCESSION,
        "ReferringPhysicianName": "",
        "StudyID": "1",
        "SeriesNumber": "1",
        "InstanceNumber": NUMBER,
        "PatientOrientation": "",
    }


def equipment_module(form: Form) -> dict[str, object]:
    """SOP Common, General Equipment, and what the modality asks for (PS3.3 C.7.5, C.8)."""
    fields: dict[str, object] = {
        "SOPClassUID": SOP_CLASSES[form.modality],
        "Modality": form.modality,
        "Manufacturer": form.maker,
        "ManufacturerModelName": form.model,
        "InstitutionName": form.institution,
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"] if form.modality in {"CT", "MR"} else ["ORIGINAL", "PRIMARY", ""],
        "BurnedInAnnotation": "NO",
    }
    if form.modality == "CT":
        fields |= {"KVP": "120", "PatientPosition": "HFS", "BodyPartExamined": "CHEST"}
    elif form.modality == "MR":
        fields |= {"ScanningSequence": "SE", "SequenceVariant": "NONE", "ScanOptions": "", "MRAcquisitionType": "2D"}
        fields |= {"EchoTime": "90", "RepetitionTime": "4000", "EchoTrainLength": "1", "PatientPosition": "HFS"}
    else:
        fields |= {"BodyPartExamined": "CHEST", "ViewPosition": "PA", "ImageLaterality": "U"}
    if form.modality == "US":
        fields |= {"SequenceOfUltrasoundRegions": [whole_region(form)]}
    if form.modality in {"DX", "MG"}:
        fields |= {"PresentationIntentType": "FOR PRESENTATION", "PixelIntensityRelationship": "LIN"}
        fields |= {"PixelIntensityRelationshipSign": 1, "LossyImageCompression": "00"}
        fields |= {"PresentationLUTShape": "INVERSE" if form.monochrome1 else "IDENTITY"}
    return fields


def whole_region(form: Form) -> Dataset:
    """Return an ultrasound region that holds the whole picture, PS3.3 C.8.5.5."""
    region = Dataset()
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 0, 0
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = form.columns - 1, form.rows - 1
    return region


def pixel_module(form: Form) -> dict[str, object]:
    """Image Pixel and Modality LUT modules, PS3.3 C.7.6.3 and C.11.1."""
    fields: dict[str, object] = {
        "SamplesPerPixel": form.colours,
        "PhotometricInterpretation": "MONOCHROME1" if form.monochrome1 else "MONOCHROME2",
        "Rows": form.rows,
        "Columns": form.columns,
        "BitsAllocated": 8 if form.bits_stored == 8 else 16,
        "BitsStored": form.bits_stored,
        "HighBit": form.bits_stored - 1,
        "PixelRepresentation": 0,
    }
    if form.colours > 1:
        return fields | {"PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    fields |= {
        "RescaleSlope": f"{form.slope:.10g}",
        "RescaleIntercept": f"{form.intercept:.10g}",
    }
    return fields if form.modality == "MR" else fields | {"RescaleType": "HU" if form.modality == "CT" else "US"}


def geometry_module(form: Form) -> dict[str, object]:
    """Image Plane module (PS3.3 C.7.6.2) for CT and MR, the detector's spacing for projections."""
    slice_mm, row_mm, column_mm = (f"{value:.6g}" for value in form.spacing_mm)
    if form.modality in {"OP", "XC", "US"}:
        return {}
    if form.modality in {"CR", "DX", "MG"}:
        return {"ImagerPixelSpacing": [row_mm, column_mm]}
    return {
        "PixelSpacing": [row_mm, column_mm],
        "SliceThickness": slice_mm,
        "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"],
        "ImagePositionPatient": list(POSITION),
        "FrameOfReferenceUID": STUDY,
        "PositionReferenceIndicator": "",
    }


def serialise(ds: Dataset, syntax: Syntax) -> tuple[bytes, bytes]:
    """Write file meta (with preamble) and dataset in the syntax's encoding; deflating is left to the caller."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = UID(syntax.uid)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_UID)
    meta.ImplementationVersionName = "FEDWARD SIM"
    head = DicomBytesIO()
    head.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(head, meta)
    body = DicomBytesIO()
    body.is_little_endian, body.is_implicit_VR = not syntax.big_endian, syntax.implicit
    write_dataset(body, ds)
    return head.getvalue(), body.getvalue()


def patch(encoded: bytes, names: Names) -> bytes:
    """Replace every placeholder of ``encoded`` by the image's value, length for length."""
    values = (  # numbers first: a patched UID may hold their digits by chance
        (DATE, names.study_date, 8),
        (NUMBER, str(names.instance_number), 6),
        *((place, f"{value:.4f}", 10) for place, value in zip(POSITION, names.position_mm, strict=True)),
        (STUDY, names.study_uid, 44),
        (SERIES, names.series_uid, 44),
        (INSTANCE, names.instance_uid, 44),
        (PATIENT, names.patient_id, 16),
        (NAME, names.patient_name, 24),
        (ACCESSION, names.accession, 16),
    )
    for placeholder, value, length in values:
        encoded = encoded.replace(placeholder.encode(), exactly(value, length))
    return encoded


def exactly(value: str, length: int) -> bytes:
    """Encode and pad with spaces to ``length`` bytes; longer values and UIDs of another length are refused."""
    encoded = value.encode()
    if len(encoded) > length or (length == 44 and len(encoded) != 44):
        raise ValueError(f"a value of {len(encoded)} bytes does not fit its place of {length} bytes")
    return encoded.ljust(length)


def pixel_element(frame: Stored, bits_stored: int, syntax: Syntax) -> bytes:
    """Encode the Pixel Data element (7FE0,0010) of one frame, native or encapsulated (PS3.5 A.4)."""
    if syntax.encode is not None:
        fragments = encapsulate([syntax.encode(np.ascontiguousarray(frame), bits_stored)], has_bot=False)
        return struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF) + fragments + b"\xfe\xff\xdd\xe0\0\0\0\0"
    order: Literal["<", ">"] = ">" if syntax.big_endian else "<"
    pixels = frame.astype(frame.dtype.newbyteorder(order), copy=False).tobytes()
    pixels += b"\0" * (len(pixels) % 2)
    if syntax.implicit:
        return struct.pack("<HHI", 0x7FE0, 0x10, len(pixels)) + pixels
    return struct.pack(f"{order}HH2sHI", 0x7FE0, 0x10, b"OW", 0, len(pixels)) + pixels


def deflate(body: bytes) -> bytes:
    """Compress a dataset for the deflated syntax, raw deflate padded to even length (PS3.5 A.5)."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = compressor.compress(body) + compressor.flush()
    return packed + b"\0" * (len(packed) % 2)
