"""The store behind the model's notes: an SQLite index that can be rebuilt from the events at any time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS notes (
    id INTEGER PRIMARY KEY,
    obs_type TEXT NOT NULL,
    category TEXT NOT NULL,
    description TEXT NOT NULL,
    importance INTEGER NOT NULL,
    data TEXT NOT NULL,
    tags TEXT NOT NULL,
    UNIQUE (obs_type, category, description, importance, data, tags)
)"""


WRITERS = frozenset({"record_observation", "update_observation"})
"""Tools after which the notes of a run are others than before."""


@dataclass(frozen=True)
class Note:
    """One recorded observation; ids count from 1."""

    id: int
    obs_type: str
    category: str
    description: str
    importance: int
    data: dict[str, Any]
    tags: list[str]


class StoreFailed(Exception):
    """The file of notes cannot be read or written: no fault of whoever wants to note something."""


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.Error as error:
        raise StoreFailed(str(error)) from error


class NoteStore:
    """Notes in a file of their own, or in memory. The same note written twice is one note.

    Once it is open, every method raises StoreFailed where the file fails.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._connection = sqlite3.connect(path or ":memory:", isolation_level=None)
        self._connection.execute(_SCHEMA)

    @_reported()
    def add(
        self,
        obs_type: str,
        category: str,
        description: str,
        importance: int,
        data: dict[str, Any],
        tags: list[str],
    ) -> int:
        """Record a note and return its id; a note that is there already keeps the id it has."""
        values = (obs_type, category, description, importance, _canonical(data), _canonical(tags))
        self._connection.execute(
            "INSERT OR IGNORE INTO notes (obs_type, category, description, importance, data, tags)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            values,
        )
        row = self._connection.execute(
            "SELECT id FROM notes WHERE (obs_type, category, description, importance, data, tags)"
            " = (?, ?, ?, ?, ?, ?)",
            values,
        ).fetchone()
        return int(row[0])

    @_reported()
    def update(self, note_id: int, changes: dict[str, Any]) -> Note:
        """Change some fields of a note and return it; `changes` by the names of Note's fields.

        Raises KeyError for an id that is not there, ValueError where another note says the same already.
        """
        old = self.get(note_id)
        new = replace(old, **changes)
        values = (new.obs_type, new.category, new.description, new.importance)
        try:
            self._connection.execute(
                "UPDATE notes SET (obs_type, category, description, importance, data, tags)"
                " = (?, ?, ?, ?, ?, ?) WHERE id = ?",
                (*values, _canonical(new.data), _canonical(new.tags), note_id),
            )
        except sqlite3.IntegrityError:
            raise ValueError(f"another note says the same as note {note_id} would") from None
        return new

    @_reported()
    def get(self, note_id: int) -> Note:
        """The note of an id. Raises KeyError where there is none."""
        row = self._connection.execute(
            "SELECT id, obs_type, category, description, importance, data, tags FROM notes WHERE id = ?",
            (note_id,),
        ).fetchone()
        if row is None:
            raise KeyError(note_id)
        return Note(*row[:5], *map(json.loads, row[5:]))

    @_reported()
    def extend(self, notes: Iterable[Mapping[str, Any]]) -> None:
        """Record many notes at once, each by the names of the arguments of `add`; other keys are left out."""
        names = ("obs_type", "category", "description", "importance", "data", "tags")
        self._connection.execute("BEGIN")
        for note in notes:
            self.add(**{name: note[name] for name in names})
        self._connection.execute("COMMIT")

    @_reported()
    def all(self) -> list[Note]:
        """Every note, oldest first."""
        rows = self._connection.execute(
            "SELECT id, obs_type, category, description, importance, data, tags FROM notes ORDER BY id"
        )
        return [Note(*row[:5], *map(json.loads, row[5:])) for row in rows]

    @_reported()
    def count(self) -> int:
        return int(self._connection.execute("SELECT count(*) FROM notes").fetchone()[0])

    @_reported()
    def clear(self) -> None:
        """Forget every note: the first step of rebuilding the index."""
        self._connection.execute("DELETE FROM notes")

    def close(self) -> None:
        self._connection.close()


def _canonical(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
