"""The parent's part of a 3-D (or segmentation) ingest."""

from collections.abc import Sequence

from client.dicom.labels import LabelSource
from client.dicom.report import Tally
from client.dicom.store import Readers, Store
from client.dicom.walk import FoundFile


def read_stacks(
    found: Sequence[FoundFile], store: Store, readers: Readers, tally: Tally, labels: LabelSource | None
) -> None:
    """Placeholder until volumes land."""
    raise NotImplementedError
