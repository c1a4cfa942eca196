"""How much does a picture look as if text stood in it? A simple, local measure, to show the likeliest ones first.

Letters are thin strokes of one strong grey: along a line of text the grey jumps up and down again and again, over a
height of several rows. Anatomy jumps seldom; noise jumps, but not far. It finds no text for certain: people look.
"""

import numpy as np
import numpy.typing as npt

STRONG_STEP = 0.25  # of the whole grey scale
CELL_ROWS, CELL_COLUMNS = 8, 24
CELLS_OF_A_WORD = 4


def text_likeness(picture: npt.NDArray[np.float32]) -> float:
    """Return a number from 0 (nothing like text) upwards: steps per pixel where the most of them stand.

    picture: (rows, columns) float32 in [0, 1], as training sees it. Edge case: smaller than one cell -> 0.
    """
    rows, columns = (picture.shape[0] // CELL_ROWS, (picture.shape[1] - 1) // CELL_COLUMNS)
    if not rows or not columns:
        return 0.0
    steps = np.diff(picture, axis=1)
    signs = np.where(np.abs(steps) >= STRONG_STEP, np.sign(steps), 0).astype(np.int8)[:, : columns * CELL_COLUMNS]
    up, down = (_cells(signs == sign, rows, columns) for sign in (1, -1))
    there_and_back = np.minimum(up, down)  # an edge of a body goes one way, a stroke both
    densest = np.sort(there_and_back, axis=None)[-CELLS_OF_A_WORD:]
    return float(densest.mean()) / (CELL_ROWS * CELL_COLUMNS)


def _cells(steps: npt.NDArray[np.bool_], rows: int, columns: int) -> npt.NDArray[np.int64]:
    cut = steps[: rows * CELL_ROWS].reshape(rows, CELL_ROWS, columns, CELL_COLUMNS)
    return np.asarray(cut.sum(axis=(1, 3), dtype=np.int64))
