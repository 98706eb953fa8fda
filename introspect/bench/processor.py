"""What the system says of its processors and of this process's memory; None where it says nothing."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_FLAGS = ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16", "sve")
"""What decides how fast weights are multiplied, as Linux spells it."""
_IDLE = (3, 4)
_COUNTED = 8
"""Fields of the first line of /proc/stat: idle and iowait, and how many come before those counted twice."""


def busy_seconds() -> float | None:
    """Seconds of processor time that anybody has had since the machine started, all cores together.

    Time that the host of a virtual machine took away counts too.
    """
    try:
        ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
        per_second = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return None
    busy = sum(count for place, count in enumerate(ticks[:_COUNTED]) if place not in _IDLE)
    return busy / per_second if busy else None


def processor_name() -> str:
    """The processor as it names itself."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def processor_flags() -> list[str]:
    """Those of its abilities that matter here."""
    has = (_cpuinfo("flags") or _cpuinfo("Features")).split()
    return [flag for flag in _FLAGS if flag in has]


def resident_bytes() -> int | None:
    """Memory of this process, in bytes."""
    return _status("VmRSS")


def peak_bytes() -> int | None:
    """The most memory that this process has had since it began, or since `forget_peak`, in bytes."""
    return _status("VmHWM")


def forget_peak() -> None:
    """Let the peak of memory start from what this process has now, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _cpuinfo(key: str) -> str:
    return _value("/proc/cpuinfo", key)


def _status(key: str) -> int | None:
    words = _value("/proc/self/status", key).split()
    return 1024 * int(words[0]) if words else None


def _value(file: str, key: str) -> str:
    """What stands behind the first line of such a key."""
    try:
        lines = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next(
        (rest.strip() for name, _, rest in (one.partition(":") for one in lines) if name.strip() == key), ""
    )
