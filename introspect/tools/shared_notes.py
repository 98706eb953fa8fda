"""Notes that the runs of one output directory share, where their configuration says so.

The record of a run stays the truth about it, and its own `notes.sqlite` an index of that record. This store
is a third copy: a run reads it once, when it begins, writes what it found there into its first record, and
puts its own notes into it as it saves them. So what another run does meanwhile changes nothing in this one.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from introspect.errors import ConfigError
from introspect.phase.shown_paths import shell_path
from introspect.tools.note_store import Note

FILE = "notes.sqlite"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS shared_notes (
    run TEXT NOT NULL,
    id INTEGER NOT NULL,
    note TEXT NOT NULL,
    PRIMARY KEY (run, id)
)"""
_FIELDS = {
    "obs_type": str,
    "category": str,
    "description": str,
    "importance": int,
    "data": dict,
    "tags": list,
}
_WAIT_SECONDS = 10.0


class SharedNotes:
    """The store of one output directory. No connection is kept: runs may come and go at the same time."""

    def __init__(self, output: Path) -> None:
        self.path = output / FILE

    def read(self) -> tuple[dict[str, Any], ...]:
        """Every shared note with the run that saved it, in the order of the runs; none where no store is.

        Raises ConfigError for a file that holds something else.
        """
        if not self.path.exists():
            return ()
        try:
            with closing(self._connect()) as connection:
                rows = connection.execute("SELECT run, note FROM shared_notes ORDER BY run, id").fetchall()
            return tuple({"run": _text(run), **_fields(json.loads(note))} for run, note in rows)
        except (sqlite3.Error, ValueError, TypeError, RecursionError) as error:
            why = " ".join(str(error).split())[:200]
            raise ConfigError(
                f"{shell_path(self.path)}: no shared notes of runs ({why}); move it away or set"
                " notes.shared to false"
            ) from None

    def publish(self, run: str, notes: Sequence[Note]) -> None:
        """Make `notes` all that the store has of a run. Raises sqlite3.Error where it cannot be written."""
        rows = [(run, note.id, json.dumps(note_fields(note), ensure_ascii=True)) for note in notes]
        with closing(self._connect()) as connection:
            connection.execute(_SCHEMA)
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("DELETE FROM shared_notes WHERE run = ?", (run,))
            connection.executemany("INSERT INTO shared_notes VALUES (?, ?, ?)", rows)
            connection.execute("COMMIT")

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=_WAIT_SECONDS, isolation_level=None)


def note_fields(note: Note) -> dict[str, Any]:
    """A note without its id, which counts within one store only."""
    return {name: value for name, value in asdict(note).items() if name in _FIELDS}


def own_notes(notes: Iterable[Note], before: Sequence[Mapping[str, Any]]) -> list[Note]:
    """The notes that a run has saved itself: those that are not, word for word, among what it began with."""
    known = {_key({name: note[name] for name in _FIELDS}) for note in before}
    return [note for note in notes if _key(note_fields(note)) not in known]


def _fields(value: Any) -> dict[str, Any]:
    """The fields of a stored note, each of its type. Raises ValueError."""
    if not isinstance(value, dict):
        raise ValueError("a note is not an object")
    for name, kind in _FIELDS.items():
        if not isinstance(value.get(name), kind) or isinstance(value[name], bool):
            raise ValueError(f"a note has no {name} that can be read")
    if not all(isinstance(tag, str) for tag in value["tags"]):
        raise ValueError("a note has no tags that can be read")
    return {name: value[name] for name in _FIELDS}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a note does not say which run saved it")
    return value


def _key(fields: Mapping[str, Any]) -> str:
    return json.dumps(fields, sort_keys=True)
