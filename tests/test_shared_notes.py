"""Notes that runs share: only where the configuration says so, and never at the price of the record."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sessions import DONE, call_text, opened_run, phase_for

from introspect import events
from introspect.errors import ConfigError
from introspect.execution.run import Run
from introspect.runlog.reader import read_events
from introspect.tools.note_store import Note, NoteStore
from introspect.tools.notes import rebuild_notes
from introspect.tools.shared_notes import SharedNotes, own_notes

words = st.text(st.characters(codec="utf-8"), max_size=20)
fields = st.fixed_dictionaries(
    {
        "obs_type": words,
        "category": words,
        "description": words,
        "importance": st.integers(1, 10),
        "data": st.dictionaries(words, st.integers() | words, max_size=3),
        "tags": st.lists(words, max_size=3),
    }
)


def opened(model: Path, output: Path, *notes: str, shared: bool) -> Run:
    """A run that saves these notes, one in each turn, looks for all, and is done."""
    run = opened_run(phase_for(model, notes={"shared": shared}), output)
    encode, end = run.session.prompt_format.encode, run.session.prompt_format.end_id
    saving = [
        call_text("record_observation", obs_type="finding", category="c", description=note) for note in notes
    ]
    texts = [*saving, call_text("query_memory"), DONE]
    run.session.forced_replies = {(0, i): (*encode(text), end) for i, text in enumerate(texts, 1)}
    return run


def ran(model: Path, output: Path, *notes: str, shared: bool) -> tuple[dict[str, Any], list[events.Event]]:
    stream: list[events.Event] = []
    return opened(model, output, *notes, shared=shared).execute(stream.append), stream


def found_by_query(stream: list[events.Event]) -> list[str]:
    results = [e.result for e in stream if isinstance(e, events.ToolResult) and e.function == "query_memory"]
    return [note["description"] for note in results[0]["notes"]]


def record_of(summary: dict[str, Any]) -> list[events.Event]:
    return [read.event for read in read_events(Path(summary["run"]) / "events.jsonl").events]


def test_a_run_starts_with_no_notes_by_default(model_dir: Path, tmp_path: Path) -> None:
    ran(model_dir, tmp_path, "old", shared=True)
    ran(model_dir, tmp_path, "old too", shared=False)
    summary, stream = ran(model_dir, tmp_path, "new", shared=False)
    assert found_by_query(stream) == ["new"]
    assert (summary["notes"], summary["notes_before"]) == (1, 0)
    assert [note["description"] for note in SharedNotes(tmp_path).read()] == ["old"]


def test_runs_that_share_find_the_notes_of_earlier_ones(model_dir: Path, tmp_path: Path) -> None:
    first, _ = ran(model_dir, tmp_path, "a 1", "b 2", shared=True)
    second, stream = ran(model_dir, tmp_path, "b 2", "c 3", shared=True)
    assert found_by_query(stream) == ["c 3", "b 2", "a 1"]
    assert (second["notes"], second["notes_before"]) == (1, 2)
    assert [note["description"] for note in second["saved_notes"]] == ["c 3"]
    assert second["experiments"][0]["notes"] == 2
    assert first["notes"] == 2 and first["notes_before"] == 0
    shared = [(note["run"], note["description"]) for note in SharedNotes(tmp_path).read()]
    names = [Path(summary["run"]).name for summary in (first, second)]
    assert sorted(shared) == sorted([(names[0], "a 1"), (names[0], "b 2"), (names[1], "c 3")])


def test_the_record_alone_gives_the_notes_of_a_sharing_run(model_dir: Path, tmp_path: Path) -> None:
    ran(model_dir, tmp_path, "a", shared=True)
    summary, _ = ran(model_dir, tmp_path, "b", shared=True)
    (tmp_path / "notes.sqlite").unlink()
    record = record_of(summary)
    assert [note["description"] for note in record[0].notes_before] == ["a"]  # type: ignore[union-attr]
    rebuilt, written = NoteStore(), NoteStore(Path(summary["run"]) / "notes.sqlite")
    rebuild_notes(rebuilt, record)
    assert rebuilt.all() == written.all() and len(rebuilt.all()) == 2


def test_a_run_sees_nothing_of_one_that_goes_on_beside_it(model_dir: Path, tmp_path: Path) -> None:
    slow = opened(model_dir, tmp_path, "slow", shared=True)
    ran(model_dir, tmp_path, "quick", shared=True)
    stream: list[events.Event] = []
    slow.execute(stream.append)
    assert found_by_query(stream) == ["slow"]
    assert sorted(note["description"] for note in SharedNotes(tmp_path).read()) == ["quick", "slow"]


def test_a_store_that_goes_away_costs_a_warning_and_no_note(model_dir: Path, tmp_path: Path) -> None:
    run = opened(model_dir, tmp_path, "kept", shared=True)
    (tmp_path / "notes.sqlite").mkdir()
    stream: list[events.Event] = []
    summary = run.execute(stream.append)
    warned = [event.code for event in stream if isinstance(event, events.Warning)]
    assert summary["status"] == "complete"
    assert [code for code in warned if code != "settings"] == ["template-injects", "note-not-shared"]
    assert [note.description for note in NoteStore(Path(summary["run"]) / "notes.sqlite").all()] == ["kept"]


def _rows(*rows: tuple[object, object, object]) -> Any:
    def write(path: Path) -> None:
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE shared_notes (run, id, note)")
            connection.executemany("INSERT INTO shared_notes VALUES (?, ?, ?)", rows)

    return write


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b"no database at all, but longer than a header is" * 9),
        lambda path: path.mkdir(),
        lambda path: sqlite3.connect(path).execute("CREATE TABLE other (x)"),
        _rows((b"\xff", 1, "{}")),
        _rows(("r", 1, "[1]")),
        _rows(("r", 1, "{")),
        _rows(("r", 1, b"\xff\xfe")),
        _rows(("r", 1, None)),
        _rows(("r", 1, '{"obs_type": "a", "category": "c", "description": 3, "importance": 1}')),
        _rows(("r", 1, "[" * 5000 + "]" * 5000)),
    ],
)
def test_a_file_that_is_no_store_is_refused_in_one_line(
    model_dir: Path,
    tmp_path: Path,
    write: Any,
) -> None:
    write(tmp_path / "notes.sqlite")
    with pytest.raises(ConfigError, match=r"no shared notes of runs") as raised:
        opened(model_dir, tmp_path, "x", shared=True)
    assert "\n" not in str(raised.value) and str(tmp_path / "notes.sqlite") in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.sqlite"]
    assert ran(model_dir, tmp_path, "x", shared=False)[0]["notes"] == 1


@given(first=st.lists(fields, max_size=5), second=st.lists(fields, max_size=5))
def test_what_is_published_is_read_whatever_it_says(
    tmp_path_factory: pytest.TempPathFactory, first: list[dict[str, Any]], second: list[dict[str, Any]]
) -> None:
    store = SharedNotes(tmp_path_factory.mktemp("output"))
    for run, notes in (("b", second[:1]), ("a", first), ("b", second)):
        store.publish(run, [Note(i, **note) for i, note in enumerate(notes, 1)])
    assert list(store.read()) == [{"run": "a"} | n for n in first] + [{"run": "b"} | n for n in second]
    inherited, together = NoteStore(), store.read()
    inherited.extend(together)
    assert own_notes(inherited.all(), together) == []
    inherited.add("finding", "of its own", "longer than any that is drawn here", 1, {}, [])
    assert [note.category for note in own_notes(inherited.all(), together)] == ["of its own"]
