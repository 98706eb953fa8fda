"""Kill a run at every write and at random moments, take it up again, and compare it with what it would be.

    scripts/crash_suite.py [--kills 200] [--signals 200] [--out DIR]

Every run is a process of its own, forked from this one, which has loaded the libraries. Prints a line for
each suite and one for each failure; exits with 1 where there was one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from introspect import cli
from introspect.commands import resume, run  # noqa: F401 - loaded once, for all that is forked
from introspect.execution import opening, resuming  # noqa: F401
from introspect.runlog.reader import read_events

PHASE = """\
name: crash
model: {id: tiny}
generation: {max_new_tokens: 90, seed: 7}
memory: {max_turns: 2, keep_recent_turns: 1}
limits: {max_turns: 4, max_misses: 9}
tools: [get_architecture_summary, get_weight_statistics, record_observation, query_memory]
experiments:
  - {name: one, task: Look at your weights and note what you see.}
"""
STAMPED = {"time", "seq", "prev", "checksum", "seconds", "digest_seconds", "traceback"}
BESIDE = {"run_resumed", "run_end"}
MOST_SECONDS = 2.0
"""Between a signal and the end of the program, the interpreter's own included."""
Hook = Callable[[], None]


def started(arguments: list[str], folder: Path, hook: Hook = lambda: None) -> int:
    """Start the command line in a process of its own; returns its number."""
    child = os.fork()
    if child:
        return child
    code: Any = 70
    try:
        out = os.open(folder / "out.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.argv = ["introspect", *arguments]
        hook()
        cli.main()
    except SystemExit as ended:
        code = ended.code or 0
    finally:
        os._exit(code if isinstance(code, int) else 70)


def ended(child: int) -> int:
    """Wait for a process; its exit code, negative where a signal killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def record_of(folder: Path) -> Path | None:
    """The record of the one run in a folder; None where there is none yet."""
    return next(iter(sorted(folder.glob("runs/2*-crash-*/events.jsonl"))), None)


def said(path: Path) -> list[dict[str, Any]]:
    """The records of a run, without what a clock gave and without those that tell of its parts."""
    records = [json.loads(line) for line in path.read_bytes().splitlines()]
    return [{k: v for k, v in r.items() if k not in STAMPED} for r in records if r["event"] not in BESIDE]


class Suite:
    """Runs of one phase; `whole` is the record of the one that nothing disturbed."""

    def __init__(self, out: Path, seed: int) -> None:
        self.out, self.random, self.failures = out, random.Random(seed), 0
        self.phase = out / "crash.yaml"
        self.phase.write_text(PHASE)
        folder = self.folder("whole")
        began = time.monotonic()
        code = ended(started(self.new(folder), folder))
        self.seconds = time.monotonic() - began
        path = record_of(folder)
        assert code == 0 and path is not None, (folder / "out.txt").read_text()
        self.whole = said(path)
        self.lines = len(path.read_bytes().splitlines())

    def folder(self, name: str) -> Path:
        folder = self.out / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def new(self, folder: Path) -> list[str]:
        return ["run", str(self.phase), "-o", str(folder / "runs"), "--quiet"]

    def again(self, folder: Path) -> list[str]:
        return ["run", "--resume", "latest", "-o", str(folder / "runs"), "--quiet"]

    def check(self, folder: Path, before: list[bytes]) -> None:
        """Let a run that was broken off come to its end: what was whole is there, and the rest exact."""
        path = record_of(folder)
        if path is None:
            return
        code = ended(started(self.again(folder), folder))
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [line for line in before if line.endswith(b"\n")]
        log = read_events(path)
        wrong = [
            "a whole record was lost" * (lines[: len(kept)] != kept),
            f"exit code {code}" * (code != 0),
            f"{log.findings}" * bool(log.findings),
            "another end than that of the whole run" * (said(path) != self.whole),
        ]
        self.tell(folder, [why for why in wrong if why])

    def tell(self, folder: Path, wrong: list[str]) -> None:
        if wrong:
            self.failures += 1
            print(f"  {folder}: {'; '.join(wrong)}", flush=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)

    def killed_at_random(self, count: int) -> str:
        """SIGKILL at any moment of a run, and of taking it up, twice where it comes to that."""
        for number in range(count):
            folder = self.folder(f"kill-{number}")
            before: list[bytes] = []
            for arguments in (self.new, self.again, self.again)[: 1 + number % 3]:
                child = started(arguments(folder), folder)
                time.sleep(self.random.uniform(0, self.seconds))
                os.kill(child, signal.SIGKILL)
                ended(child)
                path = record_of(folder)
                before = path.read_bytes().splitlines(keepends=True) if path else []
                if path is None:
                    break
            self.check(folder, before)
        return f"{count} runs killed at random moments, two thirds of them while they were taken up too"

    def killed_at_writes(self, resumed: bool, every: int) -> str:
        """SIGKILL at each write: before it, in its midst, after it; in a run, or as it is taken up."""
        count = 0
        for place in range(0, 2 * self.lines, every):
            for part in (0.0, 0.5, 1.0):
                folder = self.folder(f"write-{place}-{part}")
                if resumed:
                    ended(started(self.new(folder), folder, killing(place // 2, 0.5)))
                child = started(
                    self.again(folder) if resumed and record_of(folder) else self.new(folder),
                    folder,
                    killing(place, part),
                )
                ended(child)
                path = record_of(folder)
                self.check(folder, path.read_bytes().splitlines(keepends=True) if path else [])
                count += 1
        return f"{count} kills at writes{' of runs that were taken up' * resumed}"

    def refused(self, every: int) -> str:
        """A disk that refuses each write and each sync: exit 1 and one line, or 2 where no run exists yet."""
        count = 0
        for name, error in (("write", 28), ("write", 5), ("fdatasync", 28), ("fdatasync", 5)):
            for place in range(0, 2 * self.lines, every):
                folder = self.folder(f"{name}-{error}-{place}")
                code = ended(started(self.new(folder), folder, refusing(name, place, error)))
                path = record_of(folder)
                told = (folder / "out.txt").read_text().strip().splitlines()[-1:]
                expected = (1, "records are safe on the disk") if path else (2, "cannot write a run")
                if code == 0:  # the run made fewer calls
                    self.tell(folder, [])
                elif code != expected[0] or not told or expected[1] not in told[0]:
                    self.tell(folder, [f"exit code {code}: {told}"])
                else:
                    self.check(folder, path.read_bytes().splitlines(keepends=True) if path else [])
                count += 1
        return f"{count} writes and syncs refused"

    def signalled(self, count: int) -> str:
        """SIGINT or SIGTERM at any moment: 130 or 143, soon, and a record with its end."""
        longest = 0.0
        for number in range(count):
            folder = self.folder(f"signal-{number}")
            sent, code = ((signal.SIGINT, 130), (signal.SIGTERM, 143))[number % 2]
            child = started(self.new(folder), folder)
            time.sleep(self.random.uniform(0.2, self.seconds))
            os.kill(child, sent)
            began = time.monotonic()
            got = ended(child)
            longest = max(longest, time.monotonic() - began)
            path = record_of(folder)
            if got not in (code, 0) or (path and read_events(path).findings):
                self.tell(folder, [f"exit code {got} after {sent.name}"])
                continue
            self.check(folder, path.read_bytes().splitlines(keepends=True) if path else [])
        late = " (too long)" * (longest > MOST_SECONDS)
        return f"{count} signals; the program ended at most {longest:.2f} s later{late}"


def is_record(descriptor: int) -> bool:
    return os.readlink(f"/proc/self/fd/{descriptor}").endswith(("events.jsonl", ".log"))


def killing(place: int, part: float) -> Hook:
    """The process kills itself at a write to the record or its log, when a part of it is written."""

    def hook() -> None:
        true, made = os.write, [0]

        def write(descriptor: int, data: bytes) -> int:
            if is_record(descriptor):
                made[0] += 1
                if made[0] > place:
                    true(descriptor, data[: int(len(data) * part)])
                    os.kill(os.getpid(), signal.SIGKILL)
            return true(descriptor, data)

        os.write = write

    return hook


def refusing(name: str, place: int, error: int) -> Hook:
    """From a call on the system refuses what is written to the record or its log."""

    def hook() -> None:
        true, made = getattr(os, name), [0]

        def call(descriptor: int, *rest: Any) -> Any:
            if is_record(descriptor):
                made[0] += 1
                if made[0] > place:
                    raise OSError(error, os.strerror(error))
            return true(descriptor, *rest)

        setattr(os, name, call)

    return hook


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--signals", type=int, default=200)
    parser.add_argument("--every", type=int, default=1, help="of the writes, each N-th")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("crash-suite"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    suite = Suite(given.out.resolve(), given.seed)
    print(f"a whole run: {suite.lines} records in {suite.seconds:.1f} s", flush=True)
    for made in (
        lambda: suite.killed_at_random(given.kills),
        lambda: suite.killed_at_writes(False, given.every),
        lambda: suite.killed_at_writes(True, given.every),
        lambda: suite.refused(given.every),
        lambda: suite.signalled(given.signals),
    ):
        before = suite.failures
        print(f"{made()}: {suite.failures - before} failures", flush=True)
    raise SystemExit(suite.failures > 0)


if __name__ == "__main__":
    main()
