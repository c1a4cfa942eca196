"""Slices with outlines: what the expert drew and what the model answered.

For eyes inside the hospital, and of public images in a report.
The slice shown of a volume is the one in which expert and model together marked most. The expert's outline is light
blue, the model's orange; where both run, orange lies above.
"""

from io import BytesIO
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

Labels = npt.NDArray[np.integer[Any]]
EXPERT: Final = (80, 190, 255)
MODEL: Final = (255, 150, 30)
SIDE_PX: Final = 240


def outlined_slice(image: npt.NDArray[np.floating[Any]], expert: Labels, answer: Labels) -> bytes:
    """Return a PNG of about ``SIDE_PX`` pixels.

    Shapes: image (D, H, W) or (H, W) or (3, H, W) float in [0, 1]; expert, answer (D, H, W) or (H, W) class numbers.
    """
    if expert.ndim == 3:
        marked = ((expert > 0) | (answer > 0)).sum((1, 2))
        place = int(marked.argmax()) if marked.any() else len(marked) // 2
        image, expert, answer = image[place], expert[place], answer[place]
    planes = image if image.ndim == 3 else np.stack([image] * 3)
    times = max(1, SIDE_PX // max(expert.shape))
    picture = _enlarged(np.moveaxis(np.rint(np.clip(planes, 0, 1) * 255).astype(np.uint8), 0, -1), times)
    for labels, colour in ((expert, EXPERT), (answer, MODEL)):
        picture[_outline(_enlarged(labels, times))] = colour
    out = BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return out.getvalue()


def _enlarged(array: npt.NDArray[Any], times: int) -> npt.NDArray[Any]:
    return np.repeat(np.repeat(array, times, axis=0), times, axis=1)


def _outline(labels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return the pixels of a structure that have a pixel of something else beside them."""
    around = np.pad(labels, 1, mode="edge")
    inner = around[1:-1, 1:-1]
    sides = (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:])
    edge: npt.NDArray[np.bool_] = np.logical_or.reduce([side != inner for side in sides]) & (inner > 0)
    return edge
