"""Slices with outlines: the right slice, the two colours, nothing where nobody drew."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from client.final_model.outlined_slices import EXPERT, MODEL, outlined_slice


def drawn(image, expert, answer) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(outlined_slice(image, expert, answer))))


def colours(picture) -> set:
    return {tuple(pixel) for pixel in picture.reshape(-1, 3).tolist()}


def test_of_a_volume_the_slice_with_most_marks_is_shown_with_both_outlines():
    image = np.zeros((5, 16, 16), np.float32)
    image[3] = 0.5
    expert, answer = np.zeros((2, 5, 16, 16), np.uint8)
    expert[3, 2:8, 2:8] = 1
    answer[3, 4:12, 4:12] = 1
    answer[1, 2:4, 2:4] = 1
    picture = drawn(image, expert, answer)
    assert picture.shape == (240, 240, 3)
    assert {EXPERT, MODEL, (128, 128, 128)} == colours(picture)
    assert tuple(picture[30 + 1, 30 * 2]) in {EXPERT, (128, 128, 128)}


@pytest.mark.parametrize("shape", [(16, 16), (3, 16, 16)])
def test_a_picture_that_nobody_drew_on_has_no_outline(shape):
    empty = np.zeros((16, 16), np.uint8)
    assert colours(drawn(np.full(shape, 0.2, np.float32), empty, empty)) == {(51, 51, 51)}
