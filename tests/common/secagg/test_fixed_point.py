import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.secagg.errors import VectorRefusedError
from common.secagg.fixed_point import Encoder, Lattice, check_no_overflow, choose_lattice
from common.secagg.words import WORD_FORMATS, word_format

WIDTHS = sorted(WORD_FORMATS)


def encode(body, lattice, width, dither=None):
    out = np.empty(body.size, np.int32)
    Encoder(lattice, word_format(width), body.size).encode(body, out, dither)
    return out


def lattice_for(width, *, sites=10, guard_bits=1, coordinate_range=1.0):
    return choose_lattice(
        word_format(width), guard_bits=guard_bits, cohort_maximum=sites, coordinate_range=coordinate_range
    )


@pytest.mark.parametrize("width", WIDTHS)
@given(
    guard_bits=st.integers(1, 6),
    sites=st.integers(1, 300),
    coordinate_range=st.floats(2.0**-40, 2.0**40, allow_subnormal=False),
)
@settings(max_examples=150, deadline=None)
def test_every_lattice_chosen_satisfies_the_proof_and_is_the_finest(width, guard_bits, sites, coordinate_range):
    try:
        lattice = lattice_for(width, sites=sites, guard_bits=guard_bits, coordinate_range=coordinate_range)
    except VectorRefusedError:
        assert ((1 << (width - 1)) - 1) // (sites << guard_bits) < 2  # refused only where there is no room
        return
    assert lattice.limit * sites * 2**guard_bits < 2 ** (width - 1)
    assert 2 * lattice.limit * sites < 2**width
    assert math.frexp(lattice.step)[0] == 0.5  # a power of two
    assert int(np.float32(lattice.limit)) == lattice.limit
    reach = Fraction(lattice.limit) * Fraction(lattice.step)
    assert reach <= Fraction(coordinate_range)
    assert reach > Fraction(coordinate_range) * (1 - Fraction(1, 2**23)) - Fraction(lattice.step)
    finest = ((1 << (width - 1)) - 1) // (sites << guard_bits)
    assert Fraction(coordinate_range) / (Fraction(lattice.step) / 2) > finest  # half the step would not fit


@pytest.mark.parametrize(
    ("settings_", "sentence"),
    [
        ({"guard_bits": 0}, "guard_bits is 0"),
        ({"guard_bits": 15}, "guard_bits is 15"),
        ({"sites": 0}, "cohort_maximum is 0"),
        ({"sites": 5000}, "cohort_maximum is 5000"),
        ({"sites": 4000, "guard_bits": 4}, "no room for 4000 sites"),
        ({"coordinate_range": 0.0}, "coordinate_range is 0.0"),
        ({"coordinate_range": -1.0}, "coordinate_range is -1.0"),
        ({"coordinate_range": math.nan}, "coordinate_range is nan"),
        ({"coordinate_range": math.inf}, "coordinate_range is inf"),
    ],
)
def test_a_setting_out_of_bounds_is_refused_by_name(settings_, sentence):
    with pytest.raises(VectorRefusedError, match=sentence):
        lattice_for(16, **settings_)


def test_one_more_unit_than_the_proof_allows_is_refused():
    room = (1 << 31) - 1
    largest = room // (10 << 4)
    check_no_overflow(word_format(32), Lattice(1.0, largest), guard_bits=4, cohort_maximum=10)
    with pytest.raises(VectorRefusedError, match="do not fit 32-bit words"):
        check_no_overflow(word_format(32), Lattice(1.0, largest + 1), guard_bits=4, cohort_maximum=10)


@given(body=st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=50))
@settings(max_examples=100, deadline=None)
def test_32_bit_encoding_is_the_nearest_lattice_point_of_the_clipped_coordinate(body):
    lattice = lattice_for(32, guard_bits=4)
    reach = Fraction(lattice.limit) * Fraction(lattice.step)
    encoded = encode(np.array(body, np.float32), lattice, 32).tolist()
    for x, value in zip(body, encoded, strict=True):
        clipped = min(max(Fraction(x), -reach), reach)
        assert value == round(clipped / Fraction(lattice.step))  # both round half to even


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_coordinate_that_is_not_finite_is_refused(bad, width):
    body = np.zeros(1000, np.float32)
    body[777] = bad
    with pytest.raises(VectorRefusedError, match="NaN or infinity"):
        encode(body, lattice_for(width), width)


@pytest.mark.filterwarnings("error")
def test_the_largest_floats_are_clipped_without_overflow():
    lattice = lattice_for(32)
    extremes = np.array([3.4e38, -3.4e38, 1e-45, -1e-45], np.float32)
    assert encode(extremes, lattice, 32).tolist() == [lattice.limit, -lattice.limit, 0, 0]


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_integers_on_the_lattice_travel_as_they_are(kind):
    lattice = lattice_for(32)
    body = np.array([lattice.limit, -lattice.limit, 0, 5], kind)
    assert encode(body, lattice, 32).tolist() == body.tolist()
    for outside in (lattice.limit + 1, -lattice.limit - 1):
        with pytest.raises(VectorRefusedError, match="outside the lattice"):
            encode(np.array([0, outside], kind), lattice, 32)


def test_an_integer_beyond_32_bits_is_refused_not_wrapped():
    with pytest.raises(VectorRefusedError, match="outside the lattice"):
        encode(np.array([1 << 32], np.int64), lattice_for(32), 32)


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.uint32])
def test_other_number_types_are_refused(kind):
    with pytest.raises(VectorRefusedError, match="must be float32"):
        encode(np.zeros(3, kind), lattice_for(32), 32)


@pytest.mark.parametrize("width", [21, 16])
@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 0.8125, -0.125, -0.75])
def test_stochastic_rounding_is_exactly_unbiased_over_all_dithers(width, fraction):
    lattice = lattice_for(width)
    bits = word_format(width).dither_bits
    dither = np.arange(1 << bits, dtype=np.uint16)
    x = np.float32((41 + fraction) * lattice.step)
    encoded = encode(np.full(dither.size, x), lattice, width, dither)
    assert set(encoded.tolist()) <= {40, 41, 42}
    assert Fraction(int(encoded.sum()), dither.size) == Fraction(41 + fraction)


@pytest.mark.parametrize("width", [21, 16])
def test_stochastic_rounding_never_leaves_the_lattice(width):
    lattice = lattice_for(width)
    bits = word_format(width).dither_bits
    for dither in (0, (1 << bits) - 1):
        body = np.array([9.0, -9.0], np.float32)
        encoded = encode(body, lattice, width, np.full(2, dither, np.uint16))
        assert encoded.tolist() == [lattice.limit, -lattice.limit]
