"""The room left: the tightest of the system, of every group around this process, and of its rlimits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.places import ROOT

from introspect.checkpoint.device_memory import free_memory
from introspect.checkpoint.memory_limits import left_by_limits

GIB = 1 << 30
UNSET = 9223372036854771712
V1_MOUNT = "35 31 0:32 {top} {mount} rw,relatime - cgroup cgroup rw,memory\n"
V2_MOUNT = "41 31 0:38 {top} {mount} rw,relatime - cgroup2 cgroup2 rw\n"
OTHER = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
OTHER += "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"


def system(root: Path, own: str, mounts: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(own)
    (root / "proc/self/mountinfo").write_text(OTHER + mounts)
    return root


def v1(place: Path, limit: int, used: int, cache: int = 0, around: int = UNSET) -> None:
    place.mkdir(parents=True, exist_ok=True)
    (place / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (place / "memory.usage_in_bytes").write_text(f"{used}\n")
    text = f"inactive_file 1\nhierarchical_memory_limit {around}\ntotal_inactive_file {cache}\n"
    (place / "memory.stat").write_text(text)


def v2(place: Path, limit: object, used: int, cache: int = 0, high: object = "max") -> None:
    place.mkdir(parents=True, exist_ok=True)
    (place / "memory.max").write_text(f"{limit}\n")
    (place / "memory.high").write_text(f"{high}\n")
    (place / "memory.current").write_text(f"{used}\n")
    (place / "memory.stat").write_text(f"anon 7\ninactive_file {cache}\n")


def test_no_limit_is_none(tmp_path: Path) -> None:
    root = system(
        tmp_path,
        "4:memory:/a\n0::/b\n",
        V1_MOUNT.format(top="/", mount="/m1") + V2_MOUNT.format(top="/", mount="/m2"),
    )
    assert left_by_limits(root) is None
    v1(root / "m1", UNSET, 5)
    v1(root / "m1/a", UNSET, 5)
    v2(root / "m2/b", "max", 5)
    assert left_by_limits(root) is None


@pytest.mark.parametrize("level", ["", "a", "a/b"])
def test_the_tightest_group_around_counts(tmp_path: Path, level: str) -> None:
    for version, mount in ((1, V1_MOUNT), (2, V2_MOUNT)):
        own = "4:memory:/a/b\n" if version == 1 else "0::/a/b\n"
        root = system(tmp_path / str(version), own, mount.format(top="/", mount="/sys/fs/cgroup/memory"))
        top = root / "sys/fs/cgroup/memory"
        for place in ("", "a", "a/b"):
            limit = 4 * GIB if place == level else 64 * GIB
            (v1 if version == 1 else v2)(top / place, limit, GIB, GIB // 2)
        (v1 if version == 1 else v2)(top / "a/sibling", GIB, GIB)
        assert left_by_limits(root) == 4 * GIB - GIB + GIB // 2


def test_a_container_that_sees_its_own_group_alone(tmp_path: Path) -> None:
    root = system(
        tmp_path,
        "4:memory:/docker/ab12\n",
        V1_MOUNT.format(top="/docker/ab12", mount="/sys/fs/cgroup/memory"),
    )
    v1(root / "sys/fs/cgroup/memory", UNSET, GIB, around=3 * GIB)
    assert left_by_limits(root) == 2 * GIB
    other = system(tmp_path / "2", "0::/../../x\n", V2_MOUNT.format(top="/", mount="/sys/fs/cgroup"))
    v2(other / "sys/fs/cgroup", 3 * GIB, GIB)
    assert left_by_limits(other) == 2 * GIB


def test_what_slows_a_group_down_counts_and_nothing_is_below_0(tmp_path: Path) -> None:
    root = system(tmp_path, "0::/\n", V2_MOUNT.format(top="/", mount="/sys/fs\\040cgroup"))
    v2(root / "sys/fs cgroup", 8 * GIB, GIB, high=2 * GIB)
    assert left_by_limits(root) == GIB
    v2(root / "sys/fs cgroup", GIB, 2 * GIB)
    assert left_by_limits(root) == 0


@pytest.mark.parametrize("text", ["", "\n::\n4:memory\n", "0::/\n4:memory:/\n" * 3])
@pytest.mark.parametrize(
    "mounts", ["", " - \n", "a b c d e - cgroup2\n", V2_MOUNT.format(top="/", mount="/m")]
)
def test_files_that_say_nothing_are_no_limit(tmp_path: Path, text: str, mounts: str) -> None:
    root = system(tmp_path, text, mounts)
    (root / "m").mkdir()
    (root / "m/memory.max").write_text("much\n")
    (root / "m/memory.current").write_text("\xb2\n")
    assert left_by_limits(root) is None


RLIMIT = """
import resource, sys
kind = getattr(resource, sys.argv[1])
resource.setrlimit(kind, (int(sys.argv[2]), resource.RLIM_INFINITY))
from introspect.checkpoint.device_memory import free_memory
free = free_memory("cpu")
block = bytearray(int(sys.argv[3]))
print(free, free_memory("cpu"))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc tells what a process has taken")
@pytest.mark.parametrize("kind", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_a_limit_of_the_process_counts(kind: str) -> None:
    taken = 64 << 20
    done = subprocess.run(
        [sys.executable, "-c", RLIMIT, kind, str(GIB), str(taken)], capture_output=True, text=True, cwd=ROOT
    )
    before, after = map(int, done.stdout.split())
    assert 0 < after < before < GIB, done.stderr
    assert abs(before - after - taken) < 8 << 20


def test_no_more_is_free_than_the_limits_leave() -> None:
    free, left = free_memory("cpu"), left_by_limits()
    assert left is None or (free is not None and free <= left + (256 << 20))
