"""The secret randomness of one private step: who is sampled, which scans, which views.

Everything is derived from one fresh 32-byte key through HMAC-SHA-256, a pseudo-random function, with the patient in
the message. So each patient's draws are independent of every other patient's, and a replay with one patient less
changes nothing for the rest (neighbour replay). The key never leaves this object and is never used twice: a repeated
attempt makes a new object. Noise does not come from here (``client.learning.noise``).
"""

import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch

KEY_BYTES: Final = 32
_TWO_TO_64: Final = 1 << 64


class RoundRandomness:
    """Draws of one round at one site.

    ``key``: only tests pass one; production leaves it out and gets 32 bytes from the operating system.
    Raises: ValueError for a key of another length.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = secrets.token_bytes(KEY_BYTES) if key is None else key
        if len(self._key) != KEY_BYTES:
            raise ValueError(f"the key has {len(self._key)} bytes; it must have {KEY_BYTES}")

    def sampled(self, patient_keys: Sequence[str], *, sampling_rate: float, step: int) -> list[str]:
        """Poisson-sample patients: each is in independently with probability ``sampling_rate``.

        The probability realised is floor(q 2^64) / 2^64: never above q, below it by less than 2^-64. An empty sample is
        valid. Order of the result: that of ``patient_keys``.
        Raises: ValueError unless 0 <= sampling_rate <= 1.
        """
        if not 0 <= sampling_rate <= 1:
            raise ValueError(f"sampling rate {sampling_rate} is not a probability")
        limit = int(sampling_rate * _TWO_TO_64)
        return [key for key in patient_keys if self._integer("sampling", step, key) < limit]

    def generator(self, purpose: str, *, step: int, patient_key: str) -> torch.Generator:
        """Return a fresh torch generator for one patient and purpose (choice of scans, one of the views)."""
        seed = self._integer(purpose, step, patient_key) >> 1
        return torch.Generator(device="cpu").manual_seed(seed)

    def of_patient(self, patient_key: str, *, step: int) -> "PatientRandomness":
        """Return one patient's draws of a step."""
        return PatientRandomness(self, step, patient_key)

    def _integer(self, purpose: str, step: int, patient_key: str) -> int:
        """Return 64 pseudo-random bits; purpose and step have no NUL, so messages cannot collide."""
        message = f"{purpose}\0{step}\0{patient_key}".encode()
        return int.from_bytes(hmac.digest(self._key, message, "sha256")[:8], "big")


@dataclass(frozen=True)
class PatientRandomness:
    """One patient's draws of one step: for each purpose a generator of its own, never read on for another purpose.

    So no draw depends on how many others were made: a labelled scan's view is the same with and without the view that
    the teacher was asked about, and with and without anybody else.
    """

    _round: RoundRandomness
    _step: int
    _patient_key: str

    def generator(self, purpose: str) -> torch.Generator:
        """Return a fresh generator; the same purpose gives the same draws."""
        return self._round.generator(purpose, step=self._step, patient_key=self._patient_key)
