"""Lookup tables of a data set: the modality table (grey -> number), the palette (grey -> colour).

Writers disagree about widths: 16-bit entries of which only the low byte is used, 8-bit entries packed or one to a word.
So the width of an entry comes from the length of the data, and the scale of a palette from the values in it.
Sources: PS3.3 sections C.7.6.3.1.5 and .6 (palette), C.11.1.1 (modality).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from client.dicom.attributes import value_of
from client.dicom.decode import Array
from client.dicom.reject import RejectCode, Rejected

Entries = npt.NDArray[np.uint16]
MOST_ENTRIES = 65536
CHANNELS = ("Red", "Green", "Blue")


@dataclass(frozen=True, slots=True)
class Table:
    """``entries`` from stored value ``first`` on; values outside take the nearest end.

    ``bits``: as described. ``width``: of an entry as it lies there, 8 or 16 bits.
    """

    entries: Entries
    first: int
    bits: int
    width: int = 16

    def looked_up(self, stored: Array) -> Entries:
        """Return the entry of each stored value."""
        places = np.clip(stored.astype(np.int64) - self.first, 0, len(self.entries) - 1)
        return self.entries[places]


def table_of(descriptor: Any, data: Any, *, signed: bool, little: bool) -> Table:
    """Read a table from its descriptor and its data.

    Raises: Rejected(rescale) when the two do not fit.
    """
    try:
        count, first, bits = (int(number) for number in descriptor)
        entries, width = _entries(data, (count & 0xFFFF) or MOST_ENTRIES, little=little)
    except (TypeError, ValueError):
        raise Rejected(RejectCode.RESCALE) from None
    if not 1 <= bits <= 16:
        raise Rejected(RejectCode.RESCALE)
    if signed and first >= MOST_ENTRIES // 2:
        first -= MOST_ENTRIES
    elif not signed and first < 0:
        first += MOST_ENTRIES
    return Table(entries, first, bits, width)


def _entries(data: Any, count: int, *, little: bool) -> tuple[Entries, int]:
    if isinstance(data, (bytes, bytearray)):
        if len(data) in (count, count + 1):
            return np.frombuffer(data, np.uint8, count).astype(np.uint16), 8
        return np.frombuffer(data, "<u2" if little else ">u2", count).astype(np.uint16), 16
    words = np.asarray(data if isinstance(data, Sequence) else [data], np.int64)
    if len(words) in (count // 2, (count + 1) // 2) and count > 1:  # two entries in each word
        return words.astype("<u2").view(np.uint8)[:count].astype(np.uint16), 8
    if len(words) < count or words.min() < 0 or words.max() >= MOST_ENTRIES:
        raise ValueError
    return words[:count].astype(np.uint16), 16


def modality_table(dataset: Dataset, *, signed: bool) -> Table | None:
    """Return the modality lookup table, or None when there is none.

    Raises: Rejected(rescale).
    """
    sequence = value_of(dataset, "ModalityLUTSequence")
    if not sequence:
        return None
    item = sequence[0]
    return table_of(value_of(item, "LUTDescriptor"), value_of(item, "LUTData"), signed=signed, little=_little(dataset))


def palette_colours(dataset: Dataset, stored: Array, *, signed: bool) -> tuple[npt.NDArray[Any], int]:
    """Return the colours (rows, columns, 3) of palette indices, and their full scale (255 or 65535).

    Where tables differ in width, the narrow ones are widened, so that full red is as bright as full blue.

    Raises: Rejected(palette).
    """
    try:
        if value_of(dataset, "RedPaletteColorLookupTableData") is None:
            colours = apply_color_lut(stored, dataset)[..., :3]  # segmented tables (PS3.3 section C.7.9.2)
            return colours, int(np.iinfo(colours.dtype).max)
        tables = [_channel(dataset, name, signed=signed) for name in CHANNELS]
        if len({table.width for table in tables}) > 1:
            tables = [table if table.width == 16 else replace(table, entries=table.entries * 257) for table in tables]
        colours = np.stack([table.looked_up(stored) for table in tables], axis=-1)
    except Exception:  # noqa: BLE001 (a parser may throw anything)
        raise Rejected(RejectCode.PALETTE) from None
    largest = max(int(table.entries.max()) for table in tables)
    return colours, 255 if largest <= 255 else 65535


def _channel(dataset: Dataset, name: str, *, signed: bool) -> Table:
    descriptor = value_of(dataset, f"{name}PaletteColorLookupTableDescriptor")
    data = value_of(dataset, f"{name}PaletteColorLookupTableData")
    return table_of(descriptor, data, signed=signed, little=_little(dataset))


def _little(dataset: Dataset) -> bool:
    return dataset.original_encoding[1] is not False
