"""Shamir's secret sharing over the prime field of p = 2^521 - 1.

    f(x) = secret + a_1 x + ... + a_(t-1) x^(t-1)  (mod p),   a_i uniform in [0, p)
    share of site number x (x >= 1):  f(x)
    secret = f(0) = sum over any t shares of  f(x_i) * w_i,   w_i = product over j != i of x_j / (x_j - x_i)

One prime for everything: a Mersenne prime has cheap reduction and a 256-bit secret fits with room, so nothing is cut
into pieces. The weights w_i depend only on who answers, so they are computed once for all secrets.

Guarantee: t - 1 shares are independent of the secret. Limit: Python's integers are not constant-time and cannot be
wiped; the secrets live for one round, in one process, and no peer can time this code at will.
Source: Shamir, How to share a secret, CACM 1979.
"""

from collections.abc import Callable, Sequence

PRIME = 2**521 - 1
SHARE_BYTES = 66
SECRET_BYTES = 32


def split_secret(
    secret: bytes, *, threshold: int, indices: Sequence[int], entropy: Callable[[int], bytes]
) -> list[int]:
    """Cut ``secret`` into one share for each index, any ``threshold`` of which rebuild it.

    Args: secret 32 bytes, read big-endian; indices distinct and >= 1; entropy(k) returns k fresh random bytes.
    Raises: ValueError if the secret has another length, an index is below 1 or repeated, or threshold < 1.
    """
    if len(secret) != SECRET_BYTES or threshold < 1 or len(set(indices)) != len(indices) or min(indices) < 1:
        raise ValueError("a 32-byte secret, distinct indices from 1 and a threshold from 1 are needed")
    coefficients = [_random_element(entropy) for _ in range(threshold - 1)]
    constant = int.from_bytes(secret, "big")
    return [_evaluate(constant, coefficients, index) for index in indices]


def _random_element(entropy: Callable[[int], bytes]) -> int:
    # 528 random bits cut to 521: uniform on [0, p], and p itself (chance 2^-521) is drawn again.
    while True:
        element = int.from_bytes(entropy(SHARE_BYTES), "big") & PRIME
        if element != PRIME:
            return element


def _evaluate(constant: int, coefficients: Sequence[int], x: int) -> int:
    # Horner from the highest power; the reduction waits for the end of each step.
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * x + coefficient) % PRIME
    return (value * x + constant) % PRIME


def weights_at(point: int, indices: Sequence[int]) -> list[int]:
    """Return w_i such that f(point) = sum f(x_i) w_i for every polynomial of degree below ``len(indices)``.

    Raises: ValueError if an index is repeated (its weight would divide by zero).
    """
    if len(set(indices)) != len(indices):
        raise ValueError("the indices must be distinct")
    return [_weight(point, index, indices) for index in indices]


def _weight(point: int, index: int, indices: Sequence[int]) -> int:
    numerator, denominator = 1, 1
    for other in indices:
        if other != index:
            numerator = numerator * (point - other) % PRIME
            denominator = denominator * (index - other) % PRIME
    return numerator * pow(denominator, -1, PRIME) % PRIME


def combine(weights: Sequence[int], shares: Sequence[int]) -> int:
    """Return the sum of share times weight: f at the point the weights were made for."""
    return sum(weight * share for weight, share in zip(weights, shares, strict=True)) % PRIME


def secret_from_element(element: int) -> bytes | None:
    """Return the 32 bytes of a rebuilt secret, or None where the field element is too large to be one."""
    return element.to_bytes(SECRET_BYTES, "big") if element < 1 << (8 * SECRET_BYTES) else None


def share_to_bytes(share: int) -> bytes:
    """Return a share as 66 bytes, big-endian."""
    return share.to_bytes(SHARE_BYTES, "big")


def share_from_bytes(octets: bytes) -> int | None:
    """Return the share, or None where the bytes are not one of the field's p elements in 66 bytes."""
    element = int.from_bytes(octets, "big")
    return element if len(octets) == SHARE_BYTES and element < PRIME else None
