"""Rebuilding secrets from shares of which some are wrong."""

import os
import secrets

import pytest

from common.secagg.shamir import PRIME, split_secret
from server.secagg.recovery import ShareRebuilder, WrongShare

SECRET = bytes(range(32))
VALUE = int.from_bytes(SECRET, "big")


def dealt(n: int, t: int) -> tuple[ShareRebuilder, dict[str, int]]:
    indices = {f"site-{number:03}": number for number in range(1, n + 1)}
    shares = split_secret(SECRET, threshold=t, indices=list(indices.values()), entropy=os.urandom)
    return ShareRebuilder(t, indices), dict(zip(indices, shares, strict=True))


def spoil(shares: dict[str, int], count: int) -> set[str]:
    liars = set(sorted(shares)[:count])
    # Unrelated lies: small ones (a bit each) can cancel in a subset of liars, which then passes for honest.
    shares.update({name: (shares[name] + 1 + secrets.randbelow(PRIME - 1)) % PRIME for name in liars})
    return liars


@pytest.mark.parametrize(("n", "t", "liars"), [(5, 4, 1), (10, 6, 4), (30, 17, 4), (100, 56, 5)])
def test_wrong_shares_are_overcome_while_t_right_ones_are_there_and_each_is_named(n: int, t: int, liars: int) -> None:
    rebuilder, shares = dealt(n, t)
    lied = spoil(shares, liars)
    assert rebuilder.rebuild("dealer", shares, lambda value: value == VALUE) == VALUE
    assert set(rebuilder.wrong) == {WrongShare("dealer", holder) for holder in lied}
    # Those who lied once are asked last: the next secret opens at the first try.
    tries: list[int] = []
    assert rebuilder.rebuild("next", shares, lambda value: bool(tries.append(value)) or value == VALUE) == VALUE
    assert len(tries) == 1


def test_a_dealer_whose_shares_never_fit_gives_nothing_after_every_subset_was_tried() -> None:
    rebuilder, shares = dealt(6, 4)
    tries: list[int] = []
    assert rebuilder.rebuild("dealer", shares, lambda value: bool(tries.append(value))) is None
    assert len(tries) == 1 + 15
    assert rebuilder.wrong == []


def test_the_search_ends_where_there_are_too_many_subsets() -> None:
    rebuilder, shares = dealt(20, 11)
    tries: list[int] = []
    assert rebuilder.rebuild("dealer", shares, lambda value: bool(tries.append(value))) is None
    assert len(tries) == 1 + 2000


def test_fewer_than_t_shares_give_nothing() -> None:
    rebuilder, shares = dealt(5, 4)
    assert rebuilder.rebuild("dealer", dict(list(shares.items())[:3]), lambda value: True) is None
