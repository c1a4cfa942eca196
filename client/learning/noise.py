"""Noise that hides a patient: on a lattice, from a cryptographic generator, never from a seed.

Gaussian noise is drawn on a lattice, so that no floating-point bit can tell data from noise:

    M   sum of clipped gradients, each rounded to the lattice (d,)    s   standard deviation of the noise on g M
    out = M + round(s / g z),   z ~ N(0, I)                           (integers, in units of g, the step of the lattice)

Rounding an integer plus a real rounds the real: round(m + x) = m + round(x). So ``out`` is the exact Gaussian
mechanism on the integer-valued query M, rounded afterwards (post-processing); its support is the same lattice
whatever the data. Rounding adds at most g sqrt(d) / 2 to the sensitivity; whoever rounds charges it
(``client.learning.mechanism``, which is where noise is added). No PyTorch here: the agent draws it, not the trainer.

z comes from an AES-256-CTR keystream through Box and Muller in float64 with 53-bit uniforms: no rejection loop whose
time could be measured, tails to 8.5 standard deviations (the rest has probability 1e-17).
Sources: Mironov 2012; Holohan and Braghin 2021 (float attacks); Canonne, Kamath and Steinke 2020 (discrete Gaussian).
"""

import math
import os
from collections.abc import Callable
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from client.learning.errors import NoiseError

Entropy = Callable[[int], bytes]
BLOCK: Final = 1 << 16  # values drawn at a time: they stay in the cache, and memory does not grow with the vector
LARGEST_NORMAL: Final = math.sqrt(2 * 53 * math.log(2))  # 8.57: no draw of Box and Muller's is larger


class PrivacyRandomness:
    """The noise that privacy rests on. Patients are sampled by ``client.learning.round_randomness``.

    ``entropy`` (number of bytes -> bytes) is ``os.urandom``. Only a test passes another; no setting reaches it.
    Guarantee: independent between calls, objects, processes and forks (each block has a fresh key from ``entropy``);
    no global seed has any influence.
    """

    def __init__(self, entropy: Entropy = os.urandom) -> None:
        self._entropy = entropy

    def uniforms(self, count: int) -> NDArray[np.float64]:
        """Return ``count`` uniform multiples of 2^-53 in [0, 1), all exact in float64. Shape (count,)."""
        key, nonce = self._entropy(32), self._entropy(16)
        stream = Cipher(algorithms.AES(key), modes.CTR(nonce)).encryptor().update(bytes(8 * count))
        words: NDArray[np.uint64] = np.frombuffer(stream, "<u8") >> np.uint64(11)
        return words.astype(np.float64) * 2.0**-53

    def normals(self, count: int) -> NDArray[np.float64]:
        """Return ``count`` standard normal numbers (float64). Shape (count,).

        Box and Muller 1958: sqrt(-2 ln(1 - u)) cos(2 pi v), and the same with sin. 1 - u is never 0.
        """
        pairs = (count + 1) // 2
        u, v = self.uniforms(2 * pairs).reshape(2, pairs)
        radius, angle = np.sqrt(-2 * np.log1p(-u)), 2 * math.pi * v
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]

    def integers(self, length: int, stddev: float) -> NDArray[np.int64]:
        """Return round(stddev z) in units of the lattice: (length,) int64. Raises: as ``lattice_noise``."""
        return self.lattice_noise(length, noise_stddev=stddev, step=1.0)

    def lattice_noise(self, count: int, *, noise_stddev: float, step: float) -> NDArray[np.int64]:
        """Return round(s / g z) as ``count`` integers in units of ``step``.

        Raises: NoiseError unless 0 < step and s / g lies between 1/2 and 2^48: a coarser lattice would not be Gaussian.
        """
        units = noise_stddev / step if 0 < step < math.inf else math.nan
        if not 0.5 <= units <= 2.0**48:
            raise NoiseError(
                f"noise of standard deviation {noise_stddev!r} does not fit a lattice of step {step!r}: "
                "it must be 1/2 to 2^48 steps"
            )
        noise = np.empty(count, dtype=np.int64)
        for start in range(0, count, BLOCK):
            block = noise[start : start + BLOCK]
            block[:] = np.rint(self.normals(len(block)) * units)
        return noise
