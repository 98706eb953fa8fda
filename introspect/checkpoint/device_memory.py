"""How much memory a device has left, in bytes, as far as the system tells."""

from __future__ import annotations

from pathlib import Path

from introspect.checkpoint.memory_limits import left_by_limits

_MEMINFO = Path("/proc/meminfo")


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
