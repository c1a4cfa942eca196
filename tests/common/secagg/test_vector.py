import hashlib
import itertools
import tracemalloc

import numpy as np
import pytest
from Crypto.Cipher import AES
from hypothesis import given, settings
from hypothesis import strategies as st

from common.secagg.accumulator import Accumulator, SumCheckCode, SumCheckFailed
from common.secagg.errors import VectorRefusedError
from common.secagg.masking import encode_vector, mask_vector
from common.secagg.streams import META_SEGMENT, SEGMENT_WORDS, add_segment
from common.secagg.vector import VectorSpec
from common.secagg.words import WORD_FORMATS

WIDTHS = sorted(WORD_FORMATS)
NO_META = np.zeros(0, np.uint64)


def key(*purpose):
    return hashlib.sha256(repr(purpose).encode()).digest()


def spec_for(width, length, *, meta_words=0, cohort=10, guard_bits=1):
    return VectorSpec(
        meta_words=meta_words,
        body_length=length,
        word_bits=width,
        guard_bits=guard_bits,
        coordinate_range=1.0,
        cohort_maximum=cohort,
    )


def pairwise(site, sites):
    """The paper's sum over v of (+ for u < v, - for u > v) PRG(s_uv), as streams."""
    return [(key("pair", *sorted((site, v))), 1 if site < v else -1) for v in range(sites) if v != site]


def streams_of(site, sites):
    return [(key("self", site), 1), *pairwise(site, sites)]


def random_body(spec, seed):
    limit = spec.lattice.limit
    return np.random.default_rng(seed).integers(-limit, limit + 1, spec.body_length).astype(np.int32)


def summed(spec, bodies):
    """Accumulate bodies without masks."""
    total = Accumulator(spec)
    for body in bodies:
        total.add(encode_vector(spec, NO_META, body))
    return total


@pytest.mark.parametrize("width", WIDTHS)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_the_sum_over_the_survivors_is_exact_whoever_drops_out(width, data):
    sites = data.draw(st.integers(2, 7), label="sites")
    survivors = data.draw(st.lists(st.integers(0, sites - 1), min_size=1, unique=True), label="survivors")
    length = data.draw(st.integers(1, 30), label="length")
    spec = spec_for(width, length, meta_words=2, cohort=sites, guard_bits=data.draw(st.integers(1, 4)))
    limit = spec.lattice.limit
    numbers = st.lists(st.integers(-limit, limit), min_size=length, max_size=length)
    bodies = {u: data.draw(numbers) for u in survivors}
    metas = {u: data.draw(st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=2)) for u in survivors}
    total = Accumulator(spec)
    for u in survivors:
        masked = mask_vector(spec, np.array(metas[u], np.uint64), np.array(bodies[u]), streams_of(u, sites))
        total.add(masked.payload.tobytes())
    total.apply_streams([(key("self", u), -1) for u in survivors])
    # what the survivors' masks with the dropped ones left behind
    for dropped in set(range(sites)) - set(survivors):
        total.apply_streams([(k, s) for v, (k, s) in pairs_with(dropped, sites) if v in survivors])
    result = total.finish(len(survivors))
    assert result.body_sum.tolist() == [sum(column) for column in zip(*bodies.values(), strict=True)]
    assert result.meta.tolist() == [sum(column) % 2**64 for column in zip(*metas.values(), strict=True)]


def pairs_with(dropped, sites):
    others = [v for v in range(sites) if v != dropped]
    return zip(others, pairwise(dropped, sites), strict=True)


@pytest.mark.parametrize("width", WIDTHS)
def test_real_coordinates_come_back_as_their_mean_within_a_step(width):
    spec = spec_for(width, 1001, cohort=4)
    bodies = [np.random.default_rng(u).normal(0, 0.3, 1001).astype(np.float32) for u in range(4)]
    result = summed(spec, bodies).finish(4)
    mean = np.mean([np.clip(body, -1, 1) for body in bodies], axis=0)
    assert result.decode_mean().dtype == np.float32
    tolerance = spec.lattice.step + 2.0**-24  # the second is float32's own
    assert np.abs(result.decode_mean() - mean).max() <= tolerance
    assert np.abs(result.decode_sum(divisor=8.0) - mean / 2).max() <= tolerance / 2
    assert np.array_equal(result.decode_sum(), (result.body_sum * spec.lattice.step).astype(np.float32))


@pytest.mark.parametrize("width", WIDTHS)
def test_decoding_in_place_gives_the_same_and_uses_the_memory_of_the_sum(width):
    spec = spec_for(width, 70_001, cohort=3)  # more than two chunks
    result = summed(spec, [random_body(spec, u) for u in range(3)]).finish(3)
    apart = result.decode_mean()
    in_place = result.decode_mean(in_place=True)
    assert np.array_equal(apart, in_place)
    assert np.shares_memory(in_place, result.body_sum)
    assert not np.shares_memory(apart, result.body_sum)


def test_a_steady_drift_below_one_step_survives_16_bit_words():
    spec = spec_for(16, 200_000, cohort=10)
    drift = 0.01 * spec.lattice.step
    body = np.full(200_000, drift, np.float32)
    result = summed(spec, [body]).finish(1)
    # 200 000 coordinates: the standard deviation of their mean is 0.00022 steps
    assert result.decode_mean().mean() / spec.lattice.step == pytest.approx(0.01, abs=0.0015)


@pytest.mark.parametrize("width", WIDTHS)
def test_every_masked_word_is_what_pycryptodome_and_plain_integers_give(width):
    spec = spec_for(width, 50, meta_words=3)
    body, meta, streams = random_body(spec, 1), np.array([5, 2**64 - 1, 0], np.uint64), streams_of(2, 5)
    payload = mask_vector(spec, meta, body, streams).payload.tobytes()
    plain_meta = [1, int(body.sum()) % 2**32, *meta.tolist()]
    expected = oracle_masked(plain_meta, 64, streams, META_SEGMENT)
    expected += oracle_masked(oracle_words(body.tolist(), width, spec.lattice.limit), width, streams, 0)
    assert payload == expected


def oracle_words(values, width, limit):
    if width != 21:
        return [v % 2**width for v in values]
    plane = -(-len(values) // 3)
    padded = values + [0] * (3 * plane - len(values))
    return [sum((padded[w + k * plane] + limit) << (21 * k) for k in range(3)) for w in range(plane)]


def oracle_masked(words, width, streams, segment):
    size = {16: 2, 21: 8, 32: 4, 64: 8}[width]
    for stream_key, sign in streams:
        first_block = segment.to_bytes(12, "big") + (2).to_bytes(4, "big")
        cipher = AES.new(stream_key, AES.MODE_CTR, nonce=b"", initial_value=first_block)
        keystream = cipher.encrypt(bytes(size * len(words)))
        for i in range(len(words)):
            words[i] += sign * int.from_bytes(keystream[i * size : (i + 1) * size], "little")
    return b"".join((w % 2 ** (8 * size)).to_bytes(size, "little") for w in words)


def test_the_second_segment_starts_a_new_keystream_at_its_first_word():
    spec = spec_for(16, SEGMENT_WORDS + 7)
    streams = [(key("k"), 1)]
    payload = mask_vector(spec, NO_META, np.zeros(spec.body_length, np.int32), streams).payload.tobytes()
    tail = payload[-2 * 9 :]  # the last two words of segment 0, then the seven of segment 1
    nonce = [segment.to_bytes(12, "big") + (2).to_bytes(4, "big") for segment in (0, 1)]
    first, second = (AES.new(key("k"), AES.MODE_CTR, nonce=b"", initial_value=n) for n in nonce)
    assert tail == first.encrypt(bytes(2 * SEGMENT_WORDS))[-4:] + second.encrypt(bytes(14))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["lattice", "real"])
def test_the_result_does_not_depend_on_the_number_of_threads(width, kind):
    lanes = WORD_FORMATS[width].lanes
    spec = spec_for(width, lanes * (SEGMENT_WORDS + 1000) - 1)
    body = random_body(spec, 3)
    if kind == "real":
        body = (body * np.float32(spec.lattice.step / 3)).astype(np.float32)
    one, two = (mask_vector(spec, NO_META, body, streams_of(0, 2), dither=key(0), threads=n) for n in (1, 2))
    assert one.digest == two.digest == hashlib.sha256(one.payload.tobytes()).digest()
    total = Accumulator(spec)
    total.add(one.payload)
    total.apply_streams([(k, -s) for k, s in streams_of(0, 2)], threads=2)
    assert total.finish(1).body_sum.shape == (spec.body_length,)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_bytes_of_a_masked_constant_vector_are_uniform(width):
    spec = spec_for(width, 300_000)
    payload = mask_vector(spec, NO_META, np.full(300_000, 0.25, np.float32), streams_of(0, 3)).payload
    counts = np.bincount(payload, minlength=256)
    expected = payload.size / 256
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    # 255 degrees of freedom: outside these bounds with probability below 1e-4; the keys are fixed except for the dither
    assert 175 < chi_square < 350


def test_an_unmasked_constant_vector_would_fail_the_uniformity_test():
    payload = encode_vector(spec_for(32, 300_000), NO_META, np.full(300_000, 0.25, np.float32))
    assert np.bincount(payload, minlength=256).max() > payload.size / 5


@pytest.mark.parametrize("width", WIDTHS)
def test_changing_one_coordinate_changes_one_word_of_the_body(width):
    spec = spec_for(width, 999)
    body = random_body(spec, 4)
    changed = body.copy()
    changed[500] += -1 if changed[500] > 0 else 1
    payloads = [mask_vector(spec, NO_META, b, streams_of(1, 4)).payload for b in (body, changed)]
    (meta, words), (other_meta, other_words) = map(spec.views, payloads)
    assert np.flatnonzero(words != other_words).tolist() == [500 % words.size]
    assert np.flatnonzero(meta != other_meta).tolist() == [1]  # the checksum


@pytest.mark.parametrize("width", WIDTHS)
def test_the_pairwise_masks_of_a_complete_set_sum_to_zero(width):
    sites = 5
    spec = spec_for(width, 4001)
    body = np.zeros(4001, np.int32)
    masked, plain = Accumulator(spec), Accumulator(spec)
    for u in range(sites):
        masked.add(mask_vector(spec, NO_META, body, pairwise(u, sites)).payload)
        plain.add(encode_vector(spec, NO_META, body))
    assert np.array_equal(masked._words, plain._words)
    assert np.array_equal(masked._meta, plain._meta)


def test_meta_and_body_share_no_keystream():
    spec = spec_for(32, 1 << 12, meta_words=1 << 11)
    payload = mask_vector(spec, np.zeros(1 << 11, np.uint64), np.zeros(1 << 12, np.int32), [(key("k"), 1)]).payload
    meta, words = spec.views(payload)
    blocks = [{part.tobytes()[i : i + 16] for i in range(0, part.nbytes, 16)} for part in (meta[2:], words)]
    assert not blocks[0] & blocks[1]


def test_two_calls_round_with_different_dither_and_32_bit_words_need_none():
    body = np.full(1000, 0.3, np.float32)
    for width, equal in ((32, True), (21, False), (16, False)):
        spec = spec_for(width, 1000)
        first, second = (encode_vector(spec, NO_META, body) for _ in range(2))
        assert np.array_equal(first, second) is equal


def code_of_refused_sum(total, participants):
    with pytest.raises(SumCheckFailed) as refused:
        total.finish(participants)
    return refused.value.code


@pytest.mark.parametrize("width", WIDTHS)
def test_guard_bits_catch_a_body_that_was_unmasked_wrongly(width):
    spec = spec_for(width, 1000)
    total = summed(spec, [random_body(spec, u) for u in range(3)])
    add_segment(total._words, [(key("wrong"), 1)], 0)  # the meta segment is right: only the coordinates can tell
    assert code_of_refused_sum(total, 3) is SumCheckCode.RANGE


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("side", [1, -1])
def test_one_coordinate_beyond_what_the_participants_can_reach_is_refused(width, side):
    spec = spec_for(width, 1000)
    most = spec.lattice.limit
    body = np.zeros(1000, np.int32)
    body[7] = side * most
    total = summed(spec, [body] * 3)
    total._words[7] += np.array(side).astype(total._words.dtype)
    assert code_of_refused_sum(total, 3) is SumCheckCode.RANGE


def test_bit_63_of_a_sum_in_three_lanes_is_refused_although_no_lane_holds_it():
    spec = spec_for(21, 1000)
    total = summed(spec, [random_body(spec, u) for u in range(3)])
    total._words[100] |= np.uint64(1 << 63)
    assert code_of_refused_sum(total, 3) is SumCheckCode.RANGE


@pytest.mark.parametrize("bad", [(bytes(16), 1), (bytes(32), 0)], ids=["a short key", "no sign"])
def test_a_stream_that_cannot_be_is_refused_at_once_and_none_is_noted(bad):
    spec = spec_for(32, 100)
    total = summed(spec, [random_body(spec, 0)])
    with pytest.raises(VectorRefusedError):
        total.apply_streams([(key("k"), 1), bad])
    assert np.array_equal(total.finish(1).body_sum, random_body(spec, 0))


def test_no_two_coordinates_are_rounded_with_the_same_dither():
    body = np.full(2 * SEGMENT_WORDS, 0.3001, np.float32)
    _, words = (spec := spec_for(16, body.size)).views(encode_vector(spec, NO_META, body))
    assert not np.array_equal(words[:SEGMENT_WORDS], words[SEGMENT_WORDS:])
    packed = spec_for(21, 30_000)
    total = Accumulator(packed)
    total.add(encode_vector(packed, NO_META, body[:30_000]))
    planes = total.finish(1).body_sum.reshape(3, 10_000)
    assert not any(np.array_equal(planes[a], planes[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_four_guard_bits_let_a_wrong_coordinate_pass_once_in_sixteen_times():
    spec = spec_for(32, 20_000, guard_bits=4, cohort=10)
    total = summed(spec, [np.zeros(20_000, np.int32)] * 10)
    add_segment(total._words, [(key("wrong"), 1)], 0)
    in_range = np.abs(total._words.view(np.int32)) <= 10 * spec.lattice.limit
    assert in_range.mean() <= 1 / 16 + 0.007  # four standard deviations


@pytest.mark.parametrize("width", WIDTHS)
def test_the_checksum_catches_one_unit_in_one_coordinate(width):
    spec = spec_for(width, 1000)
    total = summed(spec, [random_body(spec, u) // 2 for u in range(3)])
    total._words[321] += total._words.dtype.type(1)
    assert code_of_refused_sum(total, 3) is SumCheckCode.CHECKSUM


def test_a_missing_unmasking_shows_in_the_participant_counter():
    spec = spec_for(32, 100)
    total = Accumulator(spec)
    for u in range(3):
        total.add(mask_vector(spec, NO_META, random_body(spec, u), streams_of(u, 3)).payload)
    total.apply_streams([(key("self", u), -1) for u in (0, 1)])
    assert code_of_refused_sum(total, 3) is SumCheckCode.PARTICIPANTS


def test_a_sum_over_another_number_of_sites_than_announced_is_refused():
    spec = spec_for(32, 100)
    for announced in (2, 4):
        total = summed(spec, [random_body(spec, u) for u in range(3)])
        assert code_of_refused_sum(total, announced) is SumCheckCode.PARTICIPANTS
    for impossible in (0, -1, spec.cohort_maximum + 1):
        with pytest.raises(VectorRefusedError, match="the plan allows 1 to 10"):
            summed(spec, [random_body(spec, 0)]).finish(impossible)


def test_a_payload_of_another_length_is_refused_before_anything_is_added():
    spec = spec_for(32, 100)
    total = Accumulator(spec)
    for length in (0, spec.payload_bytes - 1, spec.payload_bytes + 1):
        with pytest.raises(VectorRefusedError, match="this round's have 416"):
            total.add(bytes(length))
    assert not total._words.any()


BAD_FIELDS = {
    "a negative body": ({"body_length": -1}, "body_length is -1"),
    "an empty body": ({"body_length": 0}, "body_length is 0"),
    "a body of a terabyte": ({"body_length": 1 << 38}, "body_length is"),
    "a huge meta segment": ({"meta_words": 1 << 20}, "meta_words is"),
    "a negative meta segment": ({"meta_words": -1}, "meta_words is"),
    "a width that does not exist": ({"word_bits": 8}, "word_bits is 8"),
    "no guard bits": ({"guard_bits": 0}, "guard_bits is 0"),
    "a cohort that does not fit": ({"word_bits": 16, "cohort_maximum": 4000, "guard_bits": 4}, "no room"),
    "a truth value for a number": ({"guard_bits": True}, "guard_bits is of type bool"),
    "a fraction for a count": ({"body_length": 10.0}, "body_length is of type float"),
    "an integer for a range": ({"coordinate_range": 1}, "coordinate_range is of type int"),
    "a range that is not a number": ({"coordinate_range": float("nan")}, "coordinate_range is nan"),
    "a setting nobody knows": ({"modulus": 2}, "missing or unknown"),
}


@pytest.mark.parametrize("case", BAD_FIELDS, ids=str)
def test_a_specification_is_refused_for(case):
    changes, sentence = BAD_FIELDS[case]
    with pytest.raises(VectorRefusedError, match=sentence):
        VectorSpec.from_fields({**spec_for(32, 100).to_fields(), **changes})


def test_a_specification_survives_the_way_through_its_fields():
    for width, length in itertools.product(WIDTHS, (1, 2, 100)):
        spec = spec_for(width, length, meta_words=3)
        assert VectorSpec.from_fields(spec.to_fields()) == spec
        body, meta = np.zeros(length, np.float32), np.zeros(3, np.uint64)
        assert encode_vector(spec, meta, body).nbytes == spec.payload_bytes


BAD_INPUTS = {
    "a body of another length": (np.zeros(0, np.uint64), np.zeros(99, np.float32), r"shape \(99,\)"),
    "a body of two dimensions": (np.zeros(0, np.uint64), np.zeros((10, 10), np.float32), r"shape \(10, 10\)"),
    "a meta segment of another length": (np.zeros(1, np.uint64), np.zeros(100, np.float32), "meta is uint64"),
    "a meta segment of signed integers": (np.zeros(0, np.int64), np.zeros(100, np.float32), "meta is int64"),
    "a NaN in the last coordinate": (
        np.zeros(0, np.uint64),
        np.append(np.zeros(99), np.nan).astype(np.float32),
        "NaN or infinity",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUTS, ids=str)
def test_nothing_is_masked_for(case):
    meta, body, sentence = BAD_INPUTS[case]
    with pytest.raises(VectorRefusedError, match=sentence):
        encode_vector(spec_for(32, 100), meta, body)


MASKS_THAT_HIDE_NOTHING = {
    "no mask": ([], None),
    "two masks that cancel": ([(key("k"), 1), (key("k"), -1)], None),
    "a mask from the key of the dither": ([(key("k"), 1)], key("k")),
}


@pytest.mark.parametrize("case", MASKS_THAT_HIDE_NOTHING, ids=str)
def test_no_vector_leaves_with(case):
    streams, dither = MASKS_THAT_HIDE_NOTHING[case]
    with pytest.raises(VectorRefusedError, match="each mask a key of its own"):
        mask_vector(spec_for(16, 100), NO_META, np.zeros(100, np.float32), streams, dither=dither)


@pytest.fixture
def traced():
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_site_holds_two_copies_of_the_vector_and_the_server_two(width, traced):
    """Tracemalloc sees the memory of numpy, so the peak counts every temporary."""
    length, some_chunks = 3_000_000, 3 << 20
    spec = spec_for(width, length)
    body = np.full(length, 0.1, np.float32)
    copy_bytes = body.nbytes
    payload = mask_vector(spec, NO_META, body, streams_of(0, 10)).payload
    assert traced() <= 2 * copy_bytes + some_chunks  # the body and the payload
    del body
    tracemalloc.reset_peak()
    total = Accumulator(spec)
    total.add(payload)
    total.apply_streams([(k, -s) for k, s in streams_of(0, 10)])
    assert traced() <= 2 * spec.payload_bytes + some_chunks  # the accumulator and the incoming vector
    del payload
    tracemalloc.reset_peak()
    total.finish(1).decode_mean(in_place=True)
    assert traced() <= spec.payload_bytes + (0 if width == 32 else copy_bytes) + some_chunks  # what became the mean
