"""The arithmetic that decides who may be missing: n sites in the cohort, t shares to rebuild, c colluding sites.

    2t > n + c              both secrets of one site can never be rebuilt: each honest site answers one kind of share
                            for a peer, each colluder both, and both kinds would need 2t <= (n - c) + 2c
    t <= n                  otherwise nobody could ever unmask
    s_min >= max(3, c + 2)  at least two honest updates in every sum that is opened

Source: Bonawitz et al., CCS 2017, Theorem 6.5 (malicious server, t > 2n/3 there for c = n/3), solved for c.
"""

SMALLEST_SUM = 3


def default_threshold(cohort_size: int, colluders: int) -> int:
    """Return the least t with 2t > n + c, floor((n + c) / 2) + 1.

    Edge cases: n = 3, c = 1 gives 3: no dropout is tolerated. More colluders than c < n gives a t above n, which
    ``is_reachable`` refuses.
    """
    return (cohort_size + colluders) // 2 + 1


def never_both_kinds(cohort_size: int, threshold: int, colluders: int) -> bool:
    """Tell whether 2t > n + c: no coalition of the server and c sites rebuilds both secrets of one site."""
    return 2 * threshold > cohort_size + colluders


def is_reachable(cohort_size: int, threshold: int) -> bool:
    """Tell whether t <= n (and t >= 1)."""
    return 1 <= threshold <= cohort_size


def least_survivors(colluders: int) -> int:
    """Return max(3, c + 2): the fewest updates a sum may hold so that two honest ones hide each other."""
    return max(SMALLEST_SUM, colluders + 2)
