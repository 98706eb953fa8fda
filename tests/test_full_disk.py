"""A run whose record or notes cannot be written any more: exit 1, one line, and what is there is whole."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cli_process import introspect
from support.sessions import DONE, PHASE, call_text, phase_for

from introspect import events
from introspect.checkpoint.loading import LoadedModel, load_model
from introspect.errors import RunFailed
from introspect.execution.opening import open_run
from introspect.execution.options import RunOptions
from introspect.execution.preparation import prepare
from introspect.execution.run import Run
from introspect.runlog.reader import read_events

NOTE = call_text("record_observation", obs_type="finding", category="c", description="d")


@pytest.fixture(scope="module")
def loaded(model_dir: Path) -> LoadedModel:
    return load_model(phase_for(model_dir).model)


def opened(loaded: LoadedModel, output: Path, *texts: str) -> Run:
    phase = phase_for(loaded.source.path, tools=("query_memory", "record_observation"))
    run = open_run(prepare(phase, RunOptions(output), loaded=loaded), lambda: False)
    prompt_format = run.session.prompt_format
    run.session.forced_replies = {
        (0, turn): (*prompt_format.encode(text), prompt_format.end_id)
        for turn, text in enumerate((*texts, DONE), start=1)
    }
    return run


def full(stream: Any) -> None:
    """Every write to the open file fails as on a full disk."""
    _becomes(stream, "/dev/full", os.O_WRONLY)


def broken(stream: Any) -> None:
    """Every write to the open file fails otherwise."""
    _becomes(stream, "/dev/null", os.O_RDONLY)


def _becomes(stream: Any, device: str, flags: int) -> None:
    os.dup2(os.open(device, flags), stream.fileno())
    stream.end = os.fstat(stream.fileno()).st_size


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
@pytest.mark.parametrize("where", ["_events", "_log"])
@pytest.mark.parametrize(
    ("spoil", "said"), [(full, "No space left on device"), (broken, "Bad file descriptor")]
)
@pytest.mark.parametrize("moment", [events.Prefill, events.ToolResult, events.ExperimentEnd])
def test_a_record_that_cannot_be_written_ends_the_run(
    where: str, spoil: Callable[[Any], None], said: str, moment: type, loaded: LoadedModel, tmp_path: Path
) -> None:
    run = opened(loaded, tmp_path, call_text("query_memory"))
    seen: list[events.Event] = []

    def watch(event: events.Event) -> None:
        seen.append(event)
        if isinstance(event, moment):
            spoil(getattr(run.writer, where))

    with pytest.raises(RunFailed, match=said) as failed:
        run.execute(watch)
    assert failed.value.exit_code == 1 and "\n" not in str(failed.value)
    log = read_events(run.writer.directory / "events.jsonl")
    told = re.search(r"(\d+) records are safe on the disk, the last one the (\w+)", str(failed.value))
    assert told is not None and f"--resume {run.writer.directory}" in str(failed.value)
    assert log.events[int(told[1]) - 1].event.event == told[2]
    # The text log is written after the record: its last line may fail when the record has all of its own.
    ended = where == "_log" and moment is events.ExperimentEnd
    assert [f.code for f in log.findings] == ([] if ended else ["record-open"])
    assert ended or "broke off" in log.findings[0].message
    kept = [e for e in seen if not isinstance(e, events.Token)]
    assert [type(read.event) for read in log.events][: len(kept)] == [type(e) for e in kept]


def test_a_record_that_is_removed_is_told_as_lost(loaded: LoadedModel, tmp_path: Path) -> None:
    run = opened(loaded, tmp_path, call_text("query_memory"))

    def watch(event: events.Event) -> None:
        if isinstance(event, events.ToolResult):
            shutil.rmtree(run.writer.directory)

    with pytest.raises(RunFailed, match=r"the record is lost \(it was removed") as failed:
        run.execute(watch)
    assert failed.value.exit_code == 1


def test_a_record_that_is_moved_goes_on_where_it_is(loaded: LoadedModel, tmp_path: Path) -> None:
    run = opened(loaded, tmp_path, call_text("query_memory"))
    run.execute(lambda event: isinstance(event, events.ToolResult) and _moved(run, tmp_path / "aside"))
    assert isinstance(read_events(tmp_path / "aside" / "events.jsonl").events[-1].event, events.RunEnd)


def _moved(run: Run, to: Path) -> None:
    if not to.exists():
        run.writer.directory.rename(to)


@pytest.mark.parametrize(
    ("what", "said"),
    [("", ": was moved or removed while the run went on"), ("notes.sqlite", r"any more \(it was moved")],
)
def test_notes_that_are_moved_are_told_as_that(
    what: str, said: str, loaded: LoadedModel, tmp_path: Path
) -> None:
    """What SQLite says of it is that the database is read-only, whose cure is another."""
    run = opened(loaded, tmp_path / "runs", call_text("query_memory"), NOTE)

    def watch(event: events.Event) -> None:
        if isinstance(event, events.ToolResult) and not (tmp_path / "aside").exists():
            (run.writer.directory / what).rename(tmp_path / "aside")

    with pytest.raises(RunFailed, match=said) as failed:
        run.execute(watch)
    assert "readonly" not in str(failed.value) and "introspect run --resume" in str(failed.value)


def pages(run: Run) -> None:
    """The database may not grow: what SQLite says is that it, or the disk, is full."""
    store = run.session.context.notes
    store._connection.execute("PRAGMA max_page_count = 1")


def read_only(run: Run) -> None:
    run.session.context.notes._connection.execute("PRAGMA query_only = ON")


def garbage(run: Run) -> None:
    (run.writer.directory / "notes.sqlite").write_bytes(b"\xff" * 8192)


@pytest.mark.parametrize(
    ("spoil", "said", "long"),
    [(pages, "full", 1300), (read_only, "readonly", 1), (garbage, "not a database|malformed", 1)],
)
def test_notes_that_cannot_be_kept_end_the_run_with_its_record(
    spoil: Callable[[Run], None], said: str, long: int, loaded: LoadedModel, tmp_path: Path
) -> None:
    """It is no fault of the model: it is not told to try other arguments."""
    notes = [NOTE.replace('"d"', json.dumps("x" * long + str(i))) for i in range(3)]
    run = opened(loaded, tmp_path, *notes)
    spoil(run)
    with pytest.raises(RunFailed, match=said) as failed:
        run.execute(lambda event: None)
    assert failed.value.exit_code == 1 and "notes.sqlite: notes cannot be kept" in str(failed.value)
    log = read_events(run.writer.directory / "events.jsonl")
    assert log.findings == ()
    error, end = (read.event for read in log.events[-2:])
    assert isinstance(error, events.Error) and isinstance(end, events.RunEnd) and end.status == "failed"
    told = [r.event for r in log.events if isinstance(r.event, events.ToolResult)]
    assert all(result.ok for result in told) and end.summary["notes"] == len(told)


def test_a_limit_on_the_size_of_files_is_exit_1_and_one_line(
    model_dir: Path,
    tmp_path: Path,
) -> None:
    """The real program on a disk that takes no more: the system refuses every byte beyond the limit."""
    phase = tmp_path / "small.yaml"
    tasks = "".join(f"  - {{name: more-{i}, task: Look.}}\n" for i in range(99))
    phase.write_text(PHASE.replace("MODEL", str(model_dir)) + tasks)
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))"
    arguments = ["run", str(phase), "-o", str(tmp_path / "runs"), "--quiet"]
    done = introspect(*arguments, cwd=tmp_path, before=limited)
    assert done.returncode == 1, done.stderr[-2000:]
    assert done.stderr.count("\n") == 1 and "File too large" in done.stderr
    [path] = (tmp_path / "runs").glob("*/events.jsonl")
    assert all(finding.severity == "note" for finding in read_events(path).findings)
