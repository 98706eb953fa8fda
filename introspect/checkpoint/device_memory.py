"""How much memory a device has left, in bytes, as far as the system tells."""

from __future__ import annotations

import os
from pathlib import Path

from introspect.checkpoint.memory_limits import left_by_limits

_MEMINFO = Path("/proc/meminfo")
_STATM = Path("/proc/self/statm")


def room_for_run(device: str, limit: int | None = None) -> int | None:
    """Bytes that this process can still take on a device, of `limit` in all; None where nobody says.

    What torch has freed on a GPU and keeps counts as room. Negative where more than the limit is taken.
    """
    free, taken = free_memory(device), taken_memory(device)
    if free is not None and device.startswith("cuda"):
        import torch

        free += torch.cuda.memory_reserved(torch.device(device)) - (taken or 0)
    left = None if limit is None or taken is None else limit - taken
    known = [size for size in (free, left) if size is not None]
    return min(known) if known else None


def taken_memory(device: str) -> int | None:
    """Bytes that this process holds: of tensors on a GPU, in all on `cpu`; None where nobody says."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.memory_allocated(torch.device(device)))
    if device == "mps":
        import torch

        return int(torch.mps.current_allocated_memory())
    try:
        return int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError, AttributeError):
        return None


def free_memory(device: str) -> int | None:
    """Bytes that a process could still take on `cpu`, `cuda`, `cuda:N` or `mps`; None where nobody says."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    if device == "mps":
        import torch

        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    known = [size for size in (_available(), left_by_limits()) if size is not None]
    return min(known) if known else None


def _available() -> int | None:
    """What Linux could give without swapping."""
    try:
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None
