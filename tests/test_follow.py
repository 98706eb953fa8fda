"""Following a run that died: its lock has gone with its program, and the follower ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from support.record_examples import GOOD, conversation, run_start, ticking_clock
from support.replay_output import shown

from introspect.errors import RecordError
from introspect.events import RunEnd, RunResumed
from introspect.runlog.event_history import follow_events
from introspect.runlog.lock import hold, is_held
from introspect.runlog.reader import EVENTS, read_events
from introspect.runlog.writer import RunWriter

WRITER = """
import os, sys, time
sys.path[:0] = sys.argv[2:]
from support.record_examples import conversation, run_start
from pathlib import Path
from introspect.runlog.writer import RunWriter
writer = RunWriter.create(Path(sys.argv[1]), run_start(), {})
for event in conversation("Hello.", "Hello.")[:-1]:
    writer.write(event)
print("written", flush=True)
time.sleep(600)
"""


def test_the_lock_is_held_while_a_run_is_written(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, run_start(), {}, ticking_clock()) as writer:
        path = writer.directory / EVENTS
        assert is_held(path)
        [finding] = read_events(path).findings
        assert "still going on" in finding.message and "broke off" not in finding.message
        with pytest.raises(RecordError, match="another program is writing this run"):
            RunWriter.reopen(writer.directory, "phase1a")
        assert is_held(path)
    assert is_held(path) is False
    [finding] = read_events(path).findings
    assert "broke off" in finding.message
    with RunWriter.reopen(writer.directory, "phase1a"):
        assert is_held(path)


def test_a_reader_does_not_keep_a_writer_out(tmp_path: Path) -> None:
    """Readers hold the lock for as long as a look takes."""
    run = RunWriter.create(tmp_path, run_start(), {}, ticking_clock())
    run.close()
    path = run.directory / EVENTS
    readers = [
        threading.Thread(target=lambda: [is_held(path) for _ in range(400)], daemon=True) for _ in range(3)
    ]
    for reader in readers:
        reader.start()
    for _ in range(20):
        with path.open("a") as stream:
            assert hold(stream)
    for reader in readers:
        reader.join()


def test_nobody_knows_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert is_held(tmp_path / "nothing") is None


def test_following_ends_when_the_writer_is_killed(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path), *sys.path], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == "written\n"
    [directory] = tmp_path.iterdir()
    result: list[Any] = []
    follower = threading.Thread(target=lambda: result.append(shown(directory, follow=True)), daemon=True)
    follower.start()
    follower.join(timeout=2)
    assert not result, "a writer that is only slow is waited for"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    follower.join(timeout=60)
    [(code, text)] = result
    assert code == 0 and "the run broke off" in text and "Hello." in text


@pytest.mark.parametrize("torn", [False, True])
def test_following_what_has_long_broken_off_ends_too(torn: bool, tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, run_start(), {}, ticking_clock()) as writer:
        for event in conversation(GOOD, GOOD)[:-1]:
            writer.write(event)
    if torn:
        with (writer.directory / EVENTS).open("ab") as stream:
            stream.write(b'{"event": "generation", "tok')
    code, text = shown(writer.directory, follow=True)
    assert code == 0 and "broke off" in text and text.count("  3 tokens") == 2


def test_a_record_goes_on_to_be_followed_when_it_is_taken_up_again(tmp_path: Path) -> None:
    """A writer that takes its lock again within a moment, as one does that continues a run."""
    steps = conversation(GOOD, GOOD)
    with RunWriter.create(tmp_path, run_start(), {}, ticking_clock()) as writer:
        for event in steps[:2]:
            writer.write(event)
    result: list[Any] = []
    with RunWriter.reopen(writer.directory, "phase1a", ticking_clock()) as again:
        follower = threading.Thread(
            target=lambda: result.append(shown(again.directory, follow=True)), daemon=True
        )
        follower.start()
        for event in steps[2:]:
            again.write(event)
        follower.join(timeout=60)
    [(code, text)] = result
    assert code == 0 and text.count("  3 tokens") == 2


def test_a_run_that_was_taken_up_is_followed_past_the_end_of_its_first_part(tmp_path: Path) -> None:
    first, second = conversation(GOOD)[:-1], conversation(GOOD)[1:]
    with RunWriter.create(tmp_path, run_start(), {}, ticking_clock()) as writer:
        for event in (*first, RunEnd(status="interrupted", summary={}), RunResumed(records=9, tokens=1)):
            writer.write(event)
        for event in second:
            writer.write(event)
    seen = [read.event for read in follow_events(writer.directory / EVENTS, lambda seconds: None)]
    assert sum(isinstance(event, RunEnd) for event in seen) == 2 and isinstance(seen[-1], RunEnd)
    assert seen == [read.event for read in read_events(writer.directory / EVENTS).events]
