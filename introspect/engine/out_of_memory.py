"""Want of memory: how it is told from other errors, and what is given back after it.

Each device says it in its own way. CUDA, ROCm and XPU raise `torch.OutOfMemoryError`, their drivers and
libraries a RuntimeError with words of their own; MPS and the CPU have the RuntimeError alone; Python has
MemoryError.
"""

from __future__ import annotations

import gc

OUT_OF_MEMORY = "out-of-memory"
"""The code of a warning, in a record, that a computation was refused memory."""
FORECAST = "memory-forecast"
"""The code of a warning that a reply was not tried, since it would take more memory than there is."""
_NO_MEMORY = (
    "out of memory",  # CUDA, HIP, XPU, "MPS backend out of memory", and the drivers' own error
    "can't allocate memory",  # the CPU's allocator on Linux and macOS
    "cannot allocate memory",  # ENOMEM, as the system words it
    "not enough memory",  # the CPU's allocator on Windows, and files mapped into memory
    "std::bad_alloc",  # C++ behind torch
    "alloc_failed",  # cuBLAS, cuDNN and cuSPARSE: their workspaces
    "invalid buffer size",  # MPS: more than one buffer may have
)
"""What the errors say that have no class of their own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a computation was refused memory, as torch, a library below it, or Python says it."""
    # By its name, so that a module without torch can ask.
    named = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
    if named or isinstance(error, MemoryError):
        return True
    try:
        said = str(error).lower()
    except Exception:  # an error that cannot say what it is
        return False
    return any(words in said for words in _NO_MEMORY)


def release_memory() -> None:
    """Give back what a failed computation held, once no `except` block holds its error any more.

    An error holds its traceback, that the frames, those the activations: they go with the error, but for
    those in cycles. What torch keeps of freed memory is in pieces that may be too small for what comes next.
    """
    import torch

    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
