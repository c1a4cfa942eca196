"""A picture of what training sees, for eyes inside the hospital: small images in rows, no name, no number of a patient.

Pixels can show a face or burned-in text: that is what the sheet is looked at for, and why it never leaves the site.
"""

from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from client.dicom.cache import Cache
from client.dicom.record import RecordInfo

TILE_PX = 160
CAPTION_PX = 14
TITLE_PX = 20
COLUMNS = 6


def contact_sheet(cache: Cache, count: int) -> bytes:
    """Return a PNG of up to ``count`` records, spread evenly over the cache; of volumes the middle slice.

    Label maps are drawn over their image in red.
    """
    step = max(1, len(cache) // max(1, count))
    chosen = cache.records[::step][:count]
    rows = max(1, -(-len(chosen) // COLUMNS))
    sheet = Image.new("RGB", (COLUMNS * TILE_PX, TITLE_PX + rows * (TILE_PX + CAPTION_PX)), "black")
    draw = ImageDraw.Draw(sheet)
    draw.text((4, 4), "for eyes inside this hospital only; not for reports", fill="yellow")
    for place, record in enumerate(chosen):
        left, top = place % COLUMNS * TILE_PX, TITLE_PX + place // COLUMNS * (TILE_PX + CAPTION_PX)
        sheet.paste(_tile(cache, record), (left, top))
        draw.text((left + 2, top + TILE_PX), _caption(cache, record), fill="white")
    out = BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()


def _tile(cache: Cache, record: RecordInfo) -> Image.Image:
    grey = _middle(cache.read(record.record_id))
    colours = np.repeat((grey * 255).astype(np.uint8)[:, :, None], 3, axis=2)
    if record.has_label_map:
        drawn = _middle(cache.read_label_map(record.record_id)) > 0
        colours[drawn, 0] = np.maximum(colours[drawn, 0], 160)
    image = Image.fromarray(colours)
    image.thumbnail((TILE_PX - 2, TILE_PX - 2))
    return image


def _middle(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array[len(array) // 2] if array.ndim > 2 else array


def _caption(cache: Cache, record: RecordInfo) -> str:
    if isinstance(record.label, tuple):
        label = "+".join(name for name, present in zip(cache.settings.classes, record.label, strict=True) if present)
    elif record.label is not None:
        label = cache.settings.classes[record.label]
    else:
        label = "segmented" if record.has_label_map else "unlabelled"
    return f"{record.modality} {label} {record.split.value}"
