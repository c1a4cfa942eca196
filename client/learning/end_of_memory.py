"""Whether an error says that there was not enough memory: of the machine, not of a record."""

from typing import Final

import torch

# PyTorch has a class for a GPU's memory and a plain RuntimeError for the processor's.
_SENTENCES: Final = ("not enough memory", "can't allocate memory", "cannot allocate memory", "out of memory")


def is_end_of_memory(error: BaseException) -> bool:
    """Tell whether memory ended."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sentence in str(error).lower() for sentence in _SENTENCES)
