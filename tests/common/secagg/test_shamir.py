"""Shamir's scheme: any t shares rebuild, fewer say nothing, and the package ``shamirs`` agrees in both directions."""

import itertools
import os

import pytest
import shamirs
from hypothesis import given, settings
from hypothesis import strategies as st

from common.secagg import shamir

SECRET = bytes(range(32))


def rebuild(shares: dict[int, int]) -> bytes | None:
    indices = list(shares)
    return shamir.secret_from_element(shamir.combine(shamir.weights_at(0, indices), [shares[i] for i in indices]))


def test_every_subset_of_t_shares_rebuilds_the_secret() -> None:
    indices = [1, 2, 5, 9, 17]
    shares = shamir.split_secret(SECRET, threshold=3, indices=indices, entropy=os.urandom)
    by_index = dict(zip(indices, shares, strict=True))
    for size in (3, 4, 5):
        for subset in itertools.combinations(indices, size):
            assert rebuild({index: by_index[index] for index in subset}) == SECRET


def test_fewer_than_t_shares_rebuild_something_else() -> None:
    shares = shamir.split_secret(SECRET, threshold=3, indices=[1, 2, 3], entropy=os.urandom)
    assert rebuild({1: shares[0], 2: shares[1]}) != SECRET


def test_t_minus_one_shares_fit_every_secret() -> None:
    """Perfect secrecy, shown by building the polynomial: for any other secret there is one through the same shares."""
    shares = shamir.split_secret(SECRET, threshold=3, indices=[1, 2, 3], entropy=os.urandom)
    for other in (0, 1, 2**256 - 1):
        points = {0: other, 1: shares[0], 2: shares[1]}
        third = shamir.combine(shamir.weights_at(3, [0, 1, 2]), list(points.values()))
        assert rebuild({1: shares[0], 2: shares[1], 3: third}) == other.to_bytes(32, "big")


@settings(max_examples=25, deadline=None)
@given(secret=st.binary(min_size=32, max_size=32), n=st.integers(2, 12), data=st.data())
def test_the_package_shamirs_rebuilds_our_shares_and_we_rebuild_its(secret: bytes, n: int, data: st.DataObject) -> None:
    threshold = data.draw(st.integers(1, n))
    indices = list(range(1, n + 1))
    ours = shamir.split_secret(secret, threshold=threshold, indices=indices, entropy=os.urandom)
    as_theirs = [shamirs.share(i, value, shamir.PRIME) for i, value in zip(indices, ours, strict=True)]
    assert shamirs.interpolate(as_theirs[-threshold:]) == int.from_bytes(secret, "big")
    theirs = shamirs.shares(int.from_bytes(secret, "big"), quantity=n, modulus=shamir.PRIME, threshold=threshold)
    assert rebuild({each.index: each.value for each in theirs[-threshold:]}) == secret


def test_coefficients_take_all_521_bits_and_never_the_prime_itself() -> None:
    tape = iter([b"\xff" * 66, bytes(66), b"\x01" * 66])
    element = shamir._random_element(lambda count: next(tape))
    assert element == 0  # the first draw was the prime itself and was drawn again
    drawn = [shamir._random_element(os.urandom) for _ in range(64)]
    assert max(drawn).bit_length() > 515
    assert max(drawn) < shamir.PRIME


@pytest.mark.parametrize(
    ("secret", "threshold", "indices"),
    [(SECRET[1:], 2, [1, 2]), (SECRET, 0, [1, 2]), (SECRET, 2, [1, 1]), (SECRET, 2, [0, 1])],
    ids=["a short secret", "no threshold", "a repeated index", "index 0, the secret itself"],
)
def test_a_split_is_refused_for(secret: bytes, threshold: int, indices: list[int]) -> None:
    with pytest.raises(ValueError, match="secret"):
        shamir.split_secret(secret, threshold=threshold, indices=indices, entropy=os.urandom)


def test_weights_for_a_repeated_index_are_refused() -> None:
    with pytest.raises(ValueError, match="distinct"):
        shamir.weights_at(0, [1, 2, 2])


@pytest.mark.parametrize(
    ("octets", "share"),
    [
        (bytes(66), 0),
        (shamir.share_to_bytes(shamir.PRIME - 1), shamir.PRIME - 1),
        (shamir.PRIME.to_bytes(66, "big"), None),
        (b"\xff" * 66, None),
        (bytes(65), None),
        (bytes(67), None),
    ],
)
def test_a_share_is_66_bytes_below_the_prime(octets: bytes, share: int | None) -> None:
    assert shamir.share_from_bytes(octets) == share


def test_a_field_element_above_256_bits_is_no_secret() -> None:
    assert shamir.secret_from_element(2**256) is None
    assert shamir.secret_from_element(2**256 - 1) == b"\xff" * 32
