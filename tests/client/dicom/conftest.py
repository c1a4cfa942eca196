"""Small scans made on the spot: complete DICOM files whose header each test may change."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from client.dicom.settings import IngestSettings
from simulation.hospitals.dicom_writer import Form, Names, Template, uid_for

SIDE = 32
CT_SETTINGS: dict[str, Any] = {
    "kind": "classification",
    "classes": ("normal", "lesion"),
    "modalities": ("CT",),
    "dimensions": 2,
    "size_px": (SIDE, SIDE),
    "intensity": "ct_window",
    "window_hu": (0.0, 4000.0),
}
VOLUME = {"dimensions": 3, "size_px": (8, SIDE, SIDE), "spacing_mm": (1.0, 1.0, 1.0)}


@pytest.fixture(scope="session")
def secret() -> bytes:
    return bytes(range(32))


@pytest.fixture(scope="session")
def settings_with():
    """Settings of a small CT study, changed as a test needs them; ``volume=True`` for 3-D."""

    def make(*, volume: bool = False, **changes: Any) -> IngestSettings:
        return IngestSettings(**(CT_SETTINGS | (VOLUME if volume else {}) | changes))

    return make


@pytest.fixture(scope="session")
def names_for():
    """Names of one image: equal arguments, equal names."""

    def make(patient: str = "P1", series: str = "S1", number: int = 1, **more: Any) -> Names:
        return Names(
            patient_id=patient,
            study_uid=uid_for(patient, "study"),
            series_uid=uid_for(patient, series),
            instance_uid=uid_for(patient, series, number),
            instance_number=number,
            position_mm=(0.0, 0.0, float(number)),
            **more,
        )

    return make


@pytest.fixture(scope="session")
def scan(names_for):
    """The bytes of one image file; ``form`` goes to the writer's Form, the rest to ``names_for``."""
    templates: dict[Form, Template] = {}

    def make(frame: np.ndarray | None = None, form: dict[str, Any] | None = None, **names: Any) -> bytes:
        kind = Form(**({"modality": "CT", "rows": SIDE, "columns": SIDE, "intercept": -1024.0} | (form or {})))
        template = templates.setdefault(kind, Template(kind))
        if frame is None:
            number = names.get("number", 1)
            frame = np.add.outer(np.arange(SIDE) * 8, np.arange(SIDE) + 16 * number).astype(np.uint16)
        return template.file(names_for(**names), frame)

    return make


@pytest.fixture(scope="session")
def changed():
    """A file with attributes changed: ``changed(content, PatientID="", Rows=9)``; None deletes."""

    def make(content: bytes, **attributes: Any) -> bytes:
        dataset = dcmread(BytesIO(content))
        change(dataset, attributes)
        out = BytesIO()
        dataset.save_as(out, enforce_file_format=False)
        return out.getvalue()

    return make


def change(dataset: Dataset, attributes: dict[str, Any]) -> None:
    """Set or delete attributes of a dataset."""
    for keyword, value in attributes.items():
        if value is None:
            delattr(dataset, keyword)
        elif keyword == "PixelPaddingValue":  # its VR depends on PixelRepresentation; our writer's pixels are unsigned
            dataset.add_new(keyword, "US", value)
        else:
            setattr(dataset, keyword, value)
