"""The store behind the model's notes: an SQLite index that can be rebuilt from the events at any time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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


class NoteStore:
    """Notes in a file of their own, or in memory. The same note written twice is one note."""

    def __init__(self, path: Path | None = None) -> None:
        self._connection = sqlite3.connect(path or ":memory:", isolation_level=None)
        self._connection.execute(_SCHEMA)

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

    def extend(self, notes: Iterable[Mapping[str, Any]]) -> None:
        """Record many notes at once, each by the names of the arguments of `add`; other keys are left out."""
        names = ("obs_type", "category", "description", "importance", "data", "tags")
        self._connection.execute("BEGIN")
        for note in notes:
            self.add(**{name: note[name] for name in names})
        self._connection.execute("COMMIT")

    def all(self) -> list[Note]:
        """Every note, oldest first."""
        rows = self._connection.execute(
            "SELECT id, obs_type, category, description, importance, data, tags FROM notes ORDER BY id"
        )
        return [Note(*row[:5], *map(json.loads, row[5:])) for row in rows]

    def count(self) -> int:
        return int(self._connection.execute("SELECT count(*) FROM notes").fetchone()[0])

    def clear(self) -> None:
        """Forget every note: the first step of rebuilding the index."""
        self._connection.execute("DELETE FROM notes")

    def close(self) -> None:
        self._connection.close()


def _canonical(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
