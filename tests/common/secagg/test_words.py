import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.secagg.errors import VectorRefusedError
from common.secagg.words import WORD_FORMATS, word_format

WIDTHS = sorted(WORD_FORMATS)


def pack(values, width, limit):
    form = word_format(width)
    words = np.full(form.word_count(values.size), 0x5A, form.dtype)  # old content must not shine through
    for lane in reversed(range(form.lanes)):
        plane = values[lane * words.size : (lane + 1) * words.size]
        form.pack(plane, words, lane=lane, limit=limit)
    return form, words


def unpack(form, words, length, *, offset):
    values = form.memory_for_values(words, length)
    for lane in range(form.lanes):
        form.unpack(words, values[lane * words.size : (lane + 1) * words.size], lane=lane, offset=offset)
    return values.tolist()


@pytest.mark.parametrize("width", WIDTHS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_sums_of_packed_words_unpack_to_sums_of_integers(width, data):
    sites = data.draw(st.integers(1, 12), label="sites")
    length = data.draw(st.integers(1, 40), label="length")
    limit = ((1 << (width - 1)) - 1) // sites
    numbers = st.lists(st.integers(-limit, limit), min_size=length, max_size=length)
    bodies = [data.draw(numbers) for _ in range(sites)]
    form, total = pack(np.array(bodies[0], np.int32), width, limit)
    for body in bodies[1:]:
        total += pack(np.array(body, np.int32), width, limit)[1]
    expected = [sum(column) for column in zip(*bodies, strict=True)]
    assert unpack(form, total, length, offset=sites * limit) == expected
    assert form.spare_bits_are_zero(total)


@pytest.mark.parametrize("width", WIDTHS)
def test_extreme_values_on_every_site_do_not_reach_a_neighbour(width):
    sites = 7
    limit = ((1 << (width - 1)) - 1) // sites
    signs = np.array([1, -1, 1, 1, -1, -1, 0, 1, -1], np.int32)
    form, words = pack(signs * limit, width, limit)
    total = sum([words] * sites, start=np.zeros_like(words))
    assert unpack(form, total, signs.size, offset=sites * limit) == (signs * limit * sites).tolist()


def test_three_lanes_are_planes_of_the_body_in_the_documented_bits():
    limit = 100
    body = np.array([1, -2, 3, 4, -5, 6, 7], np.int32)  # 7 coordinates: 3 words, the last plane holds one
    _, words = pack(body, 21, limit)
    padded = [*body.tolist(), 0, 0]
    expected = [sum((padded[w + 3 * k] + limit) << (21 * k) for k in range(3)) for w in range(3)]
    assert words.tolist() == expected


def test_bit_63_betrays_a_lane_word_that_is_no_sum():
    form, words = pack(np.arange(9, dtype=np.int32), 21, 100)
    words[1] |= np.uint64(1 << 63)
    assert not form.spare_bits_are_zero(words)


def test_an_unknown_width_is_refused():
    with pytest.raises(VectorRefusedError, match="word_bits is 24"):
        word_format(24)
