"""What the limits of this process leave of the memory: control groups of both versions, and rlimits.

Every function reads files below `root`, which is `/` but in tests. Sizes are bytes; None says no limit.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

_NO_LIMIT = 1 << 60
"""A limit from here on is none: version 1 writes 2^63 rounded down to a page where nobody set one."""


def left_by_limits(root: Path = Path("/")) -> int | None:
    """The least that any limit leaves to this process, never below 0."""
    left = [*_left_in_groups(root), *_left_by_rlimits(root)]
    return max(0, min(left)) if left else None


def _left_in_groups(root: Path) -> Iterator[int]:
    """What each control group leaves that this process is in: its own, and those around it."""
    for version, mount, group in _memory_groups(root):
        left_in = _left_in_v2 if version == 2 else _left_in_v1
        for place in (group, *group.parents):
            left = left_in(place)
            if left is not None:
                yield left
            if place == mount:
                break


def _memory_groups(root: Path) -> Iterator[tuple[int, Path, Path]]:
    """Version, mount point and own directory of each hierarchy of groups that may bound memory."""
    own = {}
    for line in _lines(root / "proc/self/cgroup"):
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if number == "0" and not controllers:
            own[2] = path
        elif "memory" in controllers.split(","):
            own[1] = path
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        version = 2 if kind[0] == "cgroup2" else 1
        if version == 1 and (kind[0] != "cgroup" or "memory" not in kind[2].split(",")):
            continue
        if version in own:
            mount = root / _unescaped(fields[4]).lstrip("/")
            yield version, mount, mount / _below(own[version], _unescaped(fields[3]))


def _below(path: str, top: str) -> str:
    """A group's path below `top`, which is what stands at the mount point; a container may not see more."""
    inside = os.path.relpath(path, top) if path.startswith("/") else "."
    return "." if inside.startswith("..") else inside


def _unescaped(text: str) -> str:
    """A path of mountinfo, whose blanks are written in octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _left_in_v2(group: Path) -> int | None:
    """`memory.high` counts as a limit: from there on a process is slowed down until it barely moves."""
    limits = [_number(group / name) for name in ("memory.max", "memory.high")]
    return _left(limits, _number(group / "memory.current"), _stat(group).get("inactive_file", 0))


def _left_in_v1(group: Path) -> int | None:
    counts = _stat(group)
    limits = [_number(group / "memory.limit_in_bytes"), counts.get("hierarchical_memory_limit")]
    reclaimable = counts.get("total_inactive_file", counts.get("inactive_file", 0))
    return _left(limits, _number(group / "memory.usage_in_bytes"), reclaimable)


def _left(limits: list[int | None], used: int | None, reclaimable: int) -> int | None:
    """What the lowest limit leaves; pages of files that could be given back count as left."""
    set_limits = [limit for limit in limits if limit is not None and limit < _NO_LIMIT]
    if not set_limits or used is None:
        return None
    return min(set_limits) - used + min(reclaimable, used)


def _left_by_rlimits(root: Path) -> Iterator[int]:
    """What `ulimit -v` and `ulimit -d` leave beside what this process has taken."""
    try:
        import resource
    except ImportError:
        return
    status = dict(line.partition(":")[::2] for line in _lines(root / "proc/self/status"))
    for kind, name in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        most = resource.getrlimit(kind)[0]
        words = status.get(name, "").split()
        if most != resource.RLIM_INFINITY and most < _NO_LIMIT and words and words[0].isdecimal():
            yield most - (int(words[0]) << 10)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    text = "".join(_lines(path)).strip()
    return int(text) if text.isascii() and text.isdecimal() else None


def _stat(group: Path) -> dict[str, int]:
    pairs = [line.split() for line in _lines(group / "memory.stat")]
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}
