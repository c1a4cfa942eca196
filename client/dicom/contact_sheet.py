"""A picture of what training sees, for eyes inside the hospital: images in rows, no name, no number of a patient.

Pixels can show a face or burned-in text: that is what the sheet is looked at for, and why it never leaves the site.
Pages show every image, at a size at which a person sees text, those most like text first (``text_likeness``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from client.dicom.cache import Cache
from client.dicom.record import RecordInfo
from client.dicom.text_likeness import text_likeness

CAPTION_PX = 14
TITLE_PX = 20


@dataclass(frozen=True, slots=True)
class Layout:
    """Images in a row, rows of a page (0: as many as it takes), and the side of an image in pixels."""

    columns: int
    rows: int
    tile_px: int

    @property
    def images(self) -> int:
        """Images of one page."""
        return self.columns * self.rows


SAMPLE = Layout(6, 0, 160)
PAGE = Layout(5, 4, 256)


def contact_sheet(cache: Cache, count: int) -> bytes:
    """Return a PNG of up to ``count`` records, spread evenly over the cache; of volumes the middle slice.

    Label maps are drawn over their image in red.
    """
    step = max(1, len(cache) // max(1, count))
    return _drawn(cache, cache.records[::step][:count], SAMPLE, "")


def most_like_text_first(cache: Cache) -> list[str]:
    """Return all records, those whose image looks most like text first (of volumes any slice)."""
    scores = {record.record_id: _likeness(cache.read(record.record_id)) for record in cache.records}
    return sorted(scores, key=lambda record_id: (-scores[record_id], record_id))


def page_count(images: int) -> int:
    """Return how many pages show so many images (at least one)."""
    return max(1, -(-images // PAGE.images))


def sheet_page(cache: Cache, order: Sequence[str], number: int) -> bytes:
    """Return page ``number`` (from 1) of all images in ``order`` as a PNG."""
    shown = order[(number - 1) * PAGE.images : number * PAGE.images]
    title = f", page {number} of {page_count(len(order))}"
    return _drawn(cache, [cache[record_id] for record_id in shown], PAGE, title)


def _likeness(array: npt.NDArray[np.float32]) -> float:
    pictures = array if array.ndim > 2 else array[None]  # the slices of a volume, or the colours of a picture
    return max(text_likeness(picture) for picture in pictures)


def _drawn(cache: Cache, chosen: Sequence[RecordInfo], layout: Layout, title: str) -> bytes:
    rows = layout.rows or max(1, -(-len(chosen) // layout.columns))
    side = layout.tile_px
    sheet = Image.new("RGB", (layout.columns * side, TITLE_PX + rows * (side + CAPTION_PX)), "black")
    draw = ImageDraw.Draw(sheet)
    draw.text((4, 4), f"for eyes inside this hospital only; not for reports{title}", fill="yellow")
    for place, record in enumerate(chosen):
        left, top = place % layout.columns * side, TITLE_PX + place // layout.columns * (side + CAPTION_PX)
        sheet.paste(_tile(cache, record, side - 2), (left, top))
        draw.text((left + 2, top + side), _caption(cache, record), fill="white")
    out = BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()


def _tile(cache: Cache, record: RecordInfo, side_px: int) -> Image.Image:
    array = cache.read(record.record_id)
    is_volume = cache.settings.dimensions == 3
    shown = _most_like_text(array) if is_volume and side_px > SAMPLE.tile_px else len(array) // 2
    picture = array[shown] if is_volume else array
    planes = np.broadcast_to(picture, (3, *picture.shape[-2:]))  # of grey the same three times
    colours = np.ascontiguousarray(np.moveaxis((planes * 255).astype(np.uint8), 0, 2))
    if record.has_label_map:
        label_map = cache.read_label_map(record.record_id)
        drawn = (label_map[shown] if is_volume else label_map) > 0
        colours[drawn, 0] = np.maximum(colours[drawn, 0], 160)
    scale = side_px / max(colours.shape[:2])
    size = (max(1, round(colours.shape[1] * scale)), max(1, round(colours.shape[0] * scale)))
    return Image.fromarray(colours).resize(size, Image.Resampling.BILINEAR)


def _most_like_text(array: npt.NDArray[Any]) -> int:
    """Return the slice to be shown of a volume: the one most like text, else the middle."""
    scores = [text_likeness(picture) for picture in array]
    return int(np.argmax(scores)) if max(scores) > 0 else len(array) // 2


def _caption(cache: Cache, record: RecordInfo) -> str:
    if isinstance(record.label, tuple):
        label = "+".join(name for name, present in zip(cache.settings.classes, record.label, strict=True) if present)
    elif record.label is not None:
        label = cache.settings.classes[record.label]
    else:
        label = "segmented" if record.has_label_map else "unlabelled"
    return f"{record.modality} {label} {record.split.value}"
