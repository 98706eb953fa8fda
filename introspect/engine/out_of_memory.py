"""Whether an error is want of memory: on some devices it has no class of its own."""

from __future__ import annotations

import torch

_NO_MEMORY = ("can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory")
"""What a RuntimeError of torch says where there is no class of its own for it, as on the CPU."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether a computation was refused memory, as torch or Python says it."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(words in str(error).lower() for words in _NO_MEMORY)
