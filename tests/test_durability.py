"""Whatever a disk refuses, and whenever: what was written before is whole, and the run goes on from there."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.record_examples import CALL, PROSE, conversation, run_start, ticking_clock

from introspect.errors import ConfigError
from introspect.events import Audit, Event, ExperimentStart, Prefill, ToolCall, UserMessage, Warning
from introspect.execution.failures import record_failed
from introspect.runlog.line_file import FileChanged
from introspect.runlog.reader import read_events
from introspect.runlog.textlog import render
from introspect.runlog.writer import RunWriter

EVENTS: list[Event] = list(conversation(PROSE + CALL))
Call = Callable[..., Any]


def refuses(number: int) -> Callable[[Call], Call]:
    """The system refuses."""

    def of(call: Call) -> Call:
        def refused(*arguments: Any) -> Any:
            raise OSError(number, os.strerror(number))

        return refused

    return of


def takes_a_part(number: int) -> Callable[[Call], Call]:
    """The system takes some bytes of a write, and refuses when it is asked for the rest."""

    def of(write: Call) -> Call:
        asked = []

        def partly(descriptor: int, data: bytes) -> int:
            asked.append(data)
            if len(asked) > 1:
                raise OSError(number, os.strerror(number))
            return int(write(descriptor, data[: len(data) // 2]))

        return partly

    return of


def breaks_off_after(write: Call) -> Call:
    """All is written, and a signal comes before anybody is told."""

    def signalled(descriptor: int, data: bytes) -> int:
        write(descriptor, data)
        raise KeyboardInterrupt

    return signalled


@contextmanager
def at_call(name: str, place: int, fault: Callable[[Call], Call]) -> Iterator[list[int]]:
    """In the block, the call of that place, and those after it, of a function of the system meet a fault."""
    true, counted = getattr(os, name), [0]
    faulty = fault(true)

    def counting(*arguments: Any) -> Any:
        counted[0] += 1
        return (true if counted[0] <= place else faulty)(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, name, counting)
        yield counted


def written(writer: RunWriter, events: list[Event]) -> list[Event]:
    """Write events until one is refused; those after which the writer was told that all is well."""
    done = []
    for event in events:
        writer.write(event)
        done.append(event)
    return done


def calls_of(name: str, tmp_path: Path) -> int:
    """How often a whole record calls a function of the system."""
    writer = RunWriter.create(tmp_path, run_start(), {}, ticking_clock())
    with writer, at_call(name, 10**9, refuses(errno.EIO)) as counted:
        written(writer, EVENTS)
    return counted[0]


FAULTS = [
    pytest.param("write", refuses(errno.ENOSPC), id="no-room"),
    pytest.param("write", refuses(errno.EIO), id="write-fails"),
    pytest.param("write", takes_a_part(errno.ENOSPC), id="room-for-a-part"),
    pytest.param("write", takes_a_part(errno.EFBIG), id="limit-of-size"),
    pytest.param("write", breaks_off_after, id="signal"),
    pytest.param("fdatasync", refuses(errno.EIO), id="sync-fails"),
    pytest.param("fdatasync", refuses(errno.ENOSPC), id="sync-has-no-room"),
]


@pytest.mark.parametrize(("name", "fault"), FAULTS)
def test_a_fault_at_any_call_leaves_whole_lines_and_a_record_that_goes_on(
    name: str, fault: Callable[[Call], Call], tmp_path: Path
) -> None:
    places = calls_of(name, tmp_path / "counted")
    assert places >= (2 * len(EVENTS) if name == "write" else 3)
    for place in range(places):
        writer = RunWriter.create(tmp_path / str(place), run_start(), {}, ticking_clock())
        path = writer.directory / "events.jsonl"
        with at_call(name, place, fault), pytest.raises((OSError, KeyboardInterrupt)) as failed:
            written(writer, EVENTS)
        writer.close()
        assert path.read_bytes().endswith(b"\n")
        log = read_events(path)
        kept = [read.event for read in log.events][1:]
        assert kept == EVENTS[: len(kept)]
        assert [f.code for f in log.findings if f.severity == "corrupt"] == []
        assert 1 <= writer.safe <= len(log.events)
        if isinstance(failed.value, OSError):
            message = str(record_failed(writer, failed.value))
            assert f"{writer.safe} records are safe" in message and "\n" not in message
        with RunWriter.reopen(writer.directory, run_start().phase, ticking_clock()) as again:
            assert again.safe == len(log.events)
            written(again, EVENTS[len(kept) :])
        whole = read_events(path)
        assert [read.event for read in whole.events][1:] == EVENTS and whole.findings == ()
        rendered = "".join(render(read.event, read.time, read.utc_offset) for read in whole.events)
        assert writer.log_path.read_text(encoding="utf-8") == rendered


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("name", ["write", "fdatasync", "fsync", "rename"])
def test_a_run_that_a_disk_refuses_before_it_begins_leaves_nothing(
    name: str, number: int, tmp_path: Path
) -> None:
    refused = 0
    for place in range(20):
        output = tmp_path / str(place)
        with at_call(name, place, refuses(number)) as counted:
            try:
                RunWriter.create(output, run_start(), {}, ticking_clock()).close()
            except ConfigError as error:
                refused += 1
                assert os.strerror(number) in str(error) and "\n" not in str(error)
                assert list(output.iterdir()) == []
            else:
                [run] = output.iterdir()
                assert read_events(run / "events.jsonl").records == 1
        if len(counted) <= place:
            break
    assert refused


def test_each_event_is_one_write_and_what_is_acted_on_is_synced_before(tmp_path: Path) -> None:
    made: list[tuple[str, Any]] = []
    true = {name: getattr(os, name) for name in ("write", "fdatasync")}
    with pytest.MonkeyPatch.context() as patch, RunWriter.create(tmp_path, run_start(), {}) as writer:
        descriptor = writer._events.fileno()

        def noted(name: str) -> Call:
            def call(number: int, *rest: Any) -> Any:
                made.extend([(name, rest)] if number == descriptor else [])
                return true[name](number, *rest)

            return call

        for name in true:
            patch.setattr(os, name, noted(name))
        for event in EVENTS:
            made.clear()
            writer.write(event)
            synced = not isinstance(event, (ExperimentStart, UserMessage, Prefill, ToolCall, Audit, Warning))
            assert [name for name, _ in made][:2] == ["write", "fdatasync"][: 1 + synced], event
            assert made[0][1][0].endswith(b"\n") and made[0][1][0].count(b"\n") == 1


def test_a_sync_that_failed_is_not_asked_again(tmp_path: Path) -> None:
    """A system tells once that it lost something: what it says afterwards is no proof."""
    with RunWriter.create(tmp_path, run_start(), {}) as writer:
        safe = writer.safe
        with at_call("fdatasync", 0, refuses(errno.EIO)), pytest.raises(OSError, match="Input/output"):
            written(writer, EVENTS)
        message = str(record_failed(writer, OSError(errno.EIO, "Input/output error")))
        assert writer.safe == safe and f"{safe} records are safe" in message


def without_locks(patch: pytest.MonkeyPatch) -> None:
    """A file system that knows no locks, as Lustre mounted without `flock`."""
    patch.setattr(fcntl, "flock", refuses(errno.ENOSYS)(fcntl.flock))


@pytest.mark.parametrize("first", [0, 1])
def test_two_writers_that_no_lock_keeps_apart_lose_nothing(first: int, tmp_path: Path) -> None:
    """Whoever writes first goes on; the other one stops, and takes nothing away."""
    with pytest.MonkeyPatch.context() as patch:
        without_locks(patch)
        one = RunWriter.create(tmp_path, run_start(), {}, ticking_clock())
        written(one, EVENTS[:3])
        writers = [one, RunWriter.reopen(one.directory, run_start().phase, ticking_clock())]
        goes_on, stops = writers[first], writers[1 - first]
        written(goes_on, EVENTS[3:5])
        with pytest.raises(FileChanged) as refused:
            stops.write(EVENTS[3])
        written(goes_on, EVENTS[5:])
        message = str(record_failed(stops, refused.value))
        assert "another program" in message and "free space" not in message and "\n" not in message
        assert f"--resume {one.directory}` goes on" in message
        for writer in writers:
            writer.close()
    log = read_events(one.directory / "events.jsonl")
    assert log.findings == () and [read.event for read in log.events][1:] == EVENTS
    rendered = "".join(render(read.event, read.time, read.utc_offset) for read in log.events)
    assert one.log_path.read_text(encoding="utf-8") == rendered


def add(foreign: bytes) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with path.open("ab") as stream:
            stream.write(foreign)

    return change


@pytest.mark.parametrize(
    "change",
    [add(b"x"), add(b"a whole line\n"), add(b"\n" * 5000), lambda path: os.truncate(path, 100)],
    ids=["byte", "line", "page", "cut"],
)
def test_what_another_program_does_to_a_record_stops_the_run_and_is_left(
    change: Callable[[Path], None], tmp_path: Path
) -> None:
    with RunWriter.create(tmp_path, run_start(), {}, ticking_clock()) as writer:
        written(writer, EVENTS[:3])
        path = writer.directory / "events.jsonl"
        change(path)
        before = path.read_bytes()
        for _ in range(2):
            with pytest.raises(FileChanged):
                writer.write(EVENTS[3])
        assert path.read_bytes() == before


def test_an_old_length_that_a_file_system_says_stops_nothing(tmp_path: Path) -> None:
    """The attributes of a file in a network come from a memory that may lag behind."""
    with (
        RunWriter.create(tmp_path, run_start(), {}, ticking_clock()) as writer,
        pytest.MonkeyPatch.context() as patch,
    ):
        true = os.fstat

        def lags(descriptor: int) -> os.stat_result:
            found = list(true(descriptor))
            found[6] = max(0, found[6] - 700)
            return os.stat_result(found)

        patch.setattr(os, "fstat", lags)
        written(writer, EVENTS)
    log = read_events(writer.directory / "events.jsonl")
    assert log.findings == () and [read.event for read in log.events][1:] == EVENTS


@pytest.mark.parametrize("touched", ["added", "emptied", "replaced", "removed"])
def test_a_text_log_that_somebody_touches_is_written_anew(touched: str, tmp_path: Path) -> None:
    """It says what the record says, and no run ends for it."""
    with RunWriter.create(tmp_path, run_start(), {}, ticking_clock()) as writer:
        written(writer, EVENTS[:4])
        if touched == "added":
            with writer.log_path.open("a") as stream:
                stream.write("[2026-01-01 00:00:00,000] [GENERATION] forged\n")
        elif touched == "emptied":
            os.truncate(writer.log_path, 0)
        else:
            writer.log_path.unlink()
        if touched == "replaced":
            writer.log_path.write_text("a note of my own\n")
        written(writer, EVENTS[4:])
    log = read_events(writer.directory / "events.jsonl")
    rendered = "".join(render(read.event, read.time, read.utc_offset) for read in log.events)
    assert writer.log_path.read_text(encoding="utf-8") == rendered
    assert sorted(path.name for path in writer.directory.iterdir()) == sorted(
        ["events.jsonl", "manifest.json", writer.log_path.name]
    )


@pytest.mark.parametrize("torn", [1, 40, 10_000])
def test_a_torn_last_line_is_dropped_and_told(torn: int, tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, run_start(), {}, ticking_clock()) as writer:
        written(writer, EVENTS)
    path = writer.directory / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    last = lines[-1][: min(torn, len(lines[-1]) - 2)]
    path.write_bytes(b"".join(lines[:-1]) + last)
    assert "record-torn" in {f.code for f in read_events(path).findings}
    with RunWriter.reopen(writer.directory, run_start().phase) as again:
        assert again.torn == len(last)
    assert path.read_bytes() == b"".join(lines[:-1])
