"""The notes of a run as it goes on: its own, and where they are shared."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from introspect import events
from introspect.events import JSON, Event
from introspect.phase.shown_paths import shell_path
from introspect.runlog.loop_events import NOT_SHARED
from introspect.tools.note_store import WRITERS, Note, NoteStore, StoreFailed
from introspect.tools.shared_notes import SharedNotes, own_notes


@dataclass
class RunNotes:
    """`run` is the name under which they are shared, `before` the notes that the run began with."""

    run: str
    before: tuple[JSON, ...] = ()
    shared: SharedNotes | None = None

    def take(self, event: Event, store: NoteStore) -> events.Warning | None:
        """Share what a tool has saved; a warning where it cannot be shared."""
        saved = isinstance(event, events.ToolResult) and event.ok and event.function in WRITERS
        if self.shared is None or not (saved or isinstance(event, events.RunResumed)):
            return None
        try:
            self.shared.publish(self.run, self.own(store))
        except sqlite3.Error as error:
            # The note is in the record and in the run's own file; the next one shares them all again.
            shared = shell_path(self.shared.path)
            what = f"{shared} cannot be written ({error}). The note is kept in this run alone"
            experiment, turn = getattr(event, "experiment", 0), getattr(event, "turn", 0)
            return events.Warning(experiment=experiment, turn=turn, code=NOT_SHARED, message=what)
        return None

    def own(self, store: NoteStore) -> list[Note]:
        """The notes that this run has saved, without those that it began with."""
        return own_notes(store.all(), self.before)

    def summary(self, store: NoteStore, saved: int) -> JSON:
        """What the summary of a run has about its notes: `saved`, their number, where they cannot be read."""
        try:
            own = self.own(store)
            saved = len(own)
        except StoreFailed:
            own = []
        return {
            "notes": saved,
            "notes_before": len(self.before),
            "saved_notes": [
                {"id": note.id, "category": note.category, "description": note.description} for note in own
            ],
        }
