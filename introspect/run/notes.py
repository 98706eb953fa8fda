"""The notes of a run as it goes on: its own, how many each experiment left, and where they are shared."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

from introspect import events
from introspect.events import JSON, Event
from introspect.tools.note_store import WRITERS, Note, NoteStore, StoreFailed
from introspect.tools.shared_notes import SharedNotes, own_notes


@dataclass
class RunNotes:
    """`run` is the name under which they are shared, `before` the notes that the run began with."""

    run: str
    before: tuple[JSON, ...] = ()
    shared: SharedNotes | None = None
    saved: dict[int, set[int]] = field(default_factory=dict)

    def take(self, event: Event, store: NoteStore) -> events.Warning | None:
        """Count and share what a tool has saved; a warning where it cannot be shared."""
        if not isinstance(event, events.ToolResult) or not event.ok or event.function not in WRITERS:
            return None
        if event.function == "record_observation":
            self.saved.setdefault(event.experiment, set()).add(event.result["note_id"])
        if self.shared is None:
            return None
        try:
            self.shared.publish(self.run, self.own(store))
        except sqlite3.Error as error:
            # The note is in the record and in the run's own file; the next one shares them all again.
            what = f"{self.shared.path} cannot be written ({error}). The note is kept in this run alone"
            return events.Warning(
                experiment=event.experiment, turn=event.turn, code="note-not-shared", message=what
            )
        return None

    def own(self, store: NoteStore) -> list[Note]:
        """The notes that this run has saved, without those that it began with."""
        return own_notes(store.all(), self.before)

    def saved_in(self, experiment: int) -> int:
        """How many notes an experiment has left."""
        return len(self.saved.get(experiment, ()))

    def summary(self, store: NoteStore) -> JSON:
        """What the summary of a run has about its notes: their number alone where they cannot be read."""
        count: int | None = None
        try:
            own = self.own(store)
        except StoreFailed:
            own, count = [], sum(map(len, self.saved.values()))
        return {
            "notes": len(own) if count is None else count,
            "notes_before": len(self.before),
            "saved_notes": [
                {"id": note.id, "category": note.category, "description": note.description} for note in own
            ],
        }
