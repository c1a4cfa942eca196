import numpy as np
import pytest
from Crypto.Cipher import AES

from common.secagg.errors import VectorRefusedError
from common.secagg.streams import (
    CHUNK_BYTES,
    META_SEGMENT,
    SEGMENT_WORDS,
    DitherStream,
    KeystreamMode,
    add_segment,
    fastest_mode,
    open_keystream,
)

KEY = bytes(range(32))


def oracle(key, segment, length):
    """The keystream by another library (pycryptodome), straight from the definition."""
    first_block = segment.to_bytes(12, "big") + (2).to_bytes(4, "big")
    return AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=first_block).encrypt(bytes(length))


@pytest.mark.parametrize("mode", KeystreamMode)
def test_known_answer_of_segment_7(mode):
    expected = "e06d131f17175efac45fef2f3354b1647b00c0866b6525e6c5ea85e1965fbf9d"
    assert open_keystream(KEY, 7, mode).update(bytes(32)).hex() == expected


@pytest.mark.parametrize("segment", [0, 1, 7, 255, META_SEGMENT])
@pytest.mark.parametrize("mode", KeystreamMode)
def test_both_modes_give_the_keystream_that_pycryptodome_gives(mode, segment):
    assert open_keystream(KEY, segment, mode).update(bytes(5000)) == oracle(KEY, segment, 5000)


def test_the_counter_of_a_whole_segment_agrees_in_both_modes():
    largest = SEGMENT_WORDS * 8  # 64-bit words
    by_ctr = open_keystream(KEY, 3, KeystreamMode.CTR).update(bytes(largest))
    assert open_keystream(KEY, 3, KeystreamMode.GCM).update(bytes(largest)) == by_ctr


def test_the_mode_is_one_of_the_two_and_is_chosen_once():
    assert fastest_mode() in KeystreamMode
    assert fastest_mode() is fastest_mode()
    assert fastest_mode.cache_info().misses == 1


@pytest.mark.parametrize("dtype", ["<u2", "<u4", "<u8"])
@pytest.mark.parametrize("length", [1, 17, CHUNK_BYTES // 8 + 5])
def test_adding_streams_is_addition_of_little_endian_words(dtype, length):
    words = np.arange(length, dtype=dtype) * np.array(7, dtype)
    other = bytes(reversed(KEY))
    plus = [int(x) for x in np.frombuffer(oracle(KEY, 4, words.nbytes), dtype)]
    minus = [int(x) for x in np.frombuffer(oracle(other, 4, words.nbytes), dtype)]
    modulus = 1 << (8 * words.itemsize)
    expected = [(w + p - m) % modulus for w, p, m in zip(words.tolist(), plus, minus, strict=True)]
    add_segment(words, [(KEY, 1), (other, -1)], 4)
    assert words.tolist() == expected


def test_adding_and_removing_a_stream_leaves_nothing():
    words = np.zeros(100_003, "<u4")
    add_segment(words, [(KEY, 1)], 2)
    assert words.any()
    add_segment(words, [(KEY, -1)], 2)
    assert not words.any()


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_key_of_another_length_is_refused(length):
    with pytest.raises(VectorRefusedError, match="AES-256 needs 32"):
        open_keystream(bytes(length), 0)


@pytest.mark.parametrize("sign", [0, 2, -2])
def test_a_sign_other_than_plus_or_minus_one_is_refused(sign):
    with pytest.raises(VectorRefusedError, match="has the sign"):
        add_segment(np.zeros(4, "<u4"), [(KEY, sign)], 0)


@pytest.mark.parametrize("bits", [11, 16])
def test_dither_is_the_top_bits_of_the_keystream_without_repeats(bits):
    dither = DitherStream(KEY, 9, bits=bits)
    drawn = np.concatenate([dither.next(1000).copy(), dither.next(500).copy()])
    expected = np.frombuffer(oracle(KEY, 9, 3000), "<u2") >> (16 - bits)
    assert drawn.tolist() == expected.tolist()
