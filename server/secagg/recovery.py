"""How the server opens a sum: rebuild the secrets it needs from shares, prove each right, list the masks to remove.

    sum of y_v over U3 = sum of enc(x_v) + sum of PRG(b_v) + sum over v in U3, d in U2 without U3 of (sign) PRG(k_vd)

so it takes b_v of each survivor and s_sk_d of each dropout, never both of one site. A rebuilt seed must match its
signed commitment, a rebuilt key its signed public key: wrong shares are noticed, and where more than t sites answered,
other subsets are tried.
"""

import itertools
import math
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from common.secagg.keys import agree, mask_sign, open_secret, pairwise_mask_key, self_mask_key
from common.secagg.messages import Keys
from common.secagg.shamir import combine, weights_at

_MOST_SUBSETS = 2000


@dataclass(frozen=True, slots=True)
class WrongShare:
    """A share that does not lie on the dealer's polynomial.

    Either the holder changed it or the dealer dealt it wrong; the sealed text in the transcript, opened by the holder,
    tells which.
    """

    dealer: str
    holder: str


@dataclass(slots=True)
class ShareRebuilder:
    """Rebuilds the secrets of one round; remembers the weights of a subset and who gave wrong shares.

    Attributes:
        threshold: t. indices: the x of each site. wrong: the shares that did not fit, where another subset was needed.
    """

    threshold: int
    indices: Mapping[str, int]
    wrong: list[WrongShare] = field(default_factory=list)
    _weights: dict[tuple[str, ...], list[int]] = field(default_factory=dict)

    def rebuild(self, dealer: str, shares: Mapping[str, int], is_right: Callable[[int], bool]) -> int | None:
        """Return the dealer's secret, as a field element, from shares (holder -> share); None if no subset of t fits.

        Cost: one subset where all is well. Otherwise at most 2000, drawn at random (all of them where they are fewer):
        at 100 sites about ten wrong shares are overcome.
        """
        for tries, subset in enumerate(self._subsets(sorted(shares))):
            secret = self._value_at(0, subset, shares)
            if is_right(secret):
                if tries > 0:
                    self._note_wrong(dealer, subset, shares)
                return secret
        return None

    def _subsets(self, holders: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """Yield subsets of t holders, first those of whom nothing wrong is known."""
        faults = Counter(wrong.holder for wrong in self.wrong)
        ranked = sorted(holders, key=lambda holder: faults[holder])
        if len(ranked) < self.threshold:
            return
        yield tuple(ranked[: self.threshold])
        if math.comb(len(ranked), self.threshold) <= _MOST_SUBSETS:
            yield from itertools.combinations(ranked, self.threshold)
        else:
            draw = secrets.SystemRandom()
            yield from (tuple(draw.sample(ranked, self.threshold)) for _ in range(_MOST_SUBSETS))

    def _value_at(self, point: int, subset: tuple[str, ...], shares: Mapping[str, int]) -> int:
        weights = self._weights.get(subset) if point == 0 else None
        if weights is None:
            weights = weights_at(point, [self.indices[v] for v in subset])
        if point == 0 and not self._weights:
            self._weights[subset] = weights  # the first subset serves every secret when nobody cheats
        return combine(weights, [shares[v] for v in subset])

    def _note_wrong(self, dealer: str, subset: tuple[str, ...], shares: Mapping[str, int]) -> None:
        for holder in sorted(set(shares) - set(subset)):
            if self._value_at(self.indices[holder], subset, shares) != shares[holder]:
                self.wrong.append(WrongShare(dealer, holder))


def masks_to_remove(
    session_id: bytes, *, seeds: Mapping[str, bytes], dropped_secrets: Mapping[str, bytes], keys: Mapping[str, Keys]
) -> list[tuple[bytes, int]]:
    """Return (stream key, sign) for every mask that is left in the sum of y_v over U3.

    Args: seeds, b_v for v in U3; dropped_secrets, s_sk_d for d in U2 without U3; keys, the KEYS of U1.
    """
    # - PRG(b_v)
    streams = [(self_mask_key(seed, session_id, v), -1) for v, seed in seeds.items()]
    # v had added sign(v, d) PRG(k_vd) for a d whose own vector, with the opposite sign, never came
    for dropped, octets in dropped_secrets.items():
        secret = open_secret(octets)
        for survivor in seeds:
            shared = agree(secret, keys[survivor].mask_key)
            if shared is not None:
                key = pairwise_mask_key(shared, session_id, dropped, survivor)
                streams.append((key, -mask_sign(survivor, dropped)))
    return streams
