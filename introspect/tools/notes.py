"""Tools with which the model saves and finds its own notes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from unicodedata import normalize

from introspect.errors import ToolError
from introspect.events import Event, RunStart, ToolCall, ToolResult
from introspect.tools.base import Tool
from introspect.tools.context import ToolContext, left_out
from introspect.tools.domains import Importance
from introspect.tools.note_store import Note, NoteStore


def rebuild_notes(store: NoteStore, record: Iterable[Event]) -> None:
    """Fill a store anew from the events of a run: the file of notes is an index of them and nothing more."""
    store.clear()
    writers = {f.__name__: Tool.from_function(f) for f in (record_observation, update_observation)}
    context = ToolContext(None, lambda text: (), str, store)
    call: ToolCall | None = None
    for event in record:
        if isinstance(event, RunStart):
            store.extend(event.notes_before)
        elif isinstance(event, ToolCall):
            call = event
        elif isinstance(event, ToolResult) and event.ok and event.function in writers and call:
            writers[event.function].call(context, call.arguments)


def record_observation(
    context: ToolContext,
    obs_type: str,
    category: str,
    description: str,
    importance: Importance = 5,
    data: dict[str, Any] | None = None,
    tags: list[str] | None = None,
) -> dict[str, Any]:
    """Save a note that survives when older turns are dropped.

    Args:
        obs_type: what kind of note, such as finding, question or conclusion
        category: what it is about, such as weights or activations
        description: the note itself, with the figures
        importance: from 1 to 10
        data: further values
        tags: words to find it by
    """
    _refuse_empty(description, importance)
    note = context.notes.add(obs_type, category, description, importance, data or {}, tags or [])
    return {"saved": True, "note_id": note, "notes": context.notes.count()}


def update_observation(
    context: ToolContext,
    note_id: int,
    description: str,
    obs_type: str | None = None,
    category: str | None = None,
    importance: Importance | None = None,
    data: dict[str, Any] | None = None,
    tags: list[str] | None = None,
) -> dict[str, Any]:
    """Correct one of your saved notes; what you leave out stays as it is.

    Args:
        note_id: the number that record_observation or query_memory gave
        description: the note itself, as it should be now
        obs_type: another kind of note
        category: another category
        importance: from 1 to 10
        data: values in place of the old ones
        tags: words in place of the old ones
    """
    given = {
        "obs_type": obs_type,
        "category": category,
        "description": description,
        "importance": importance,
        "data": data,
        "tags": tags,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    _refuse_empty(description, importance)
    try:
        note = context.notes.update(note_id, changes)
    except KeyError:
        known = [note.id for note in context.notes.all()]
        hint = f"there are notes {known[0]} to {known[-1]}" if known else "no note is saved yet"
        raise ToolError(f"no note has the number {note_id}; {hint}") from None
    except ValueError as error:
        raise ToolError(f"{error}; nothing was changed") from None
    return {"updated": True, "note_id": note.id, "category": note.category, "description": note.description}


def query_memory(
    context: ToolContext,
    category: str | None = None,
    text: str | None = None,
    tags: list[str] | None = None,
    limit: int = 5,
    start: int = 0,
) -> dict[str, Any]:
    """Find your saved notes, newest first.

    Args:
        category: only notes of this category
        text: only notes whose description has this text
        tags: only notes that have one of these tags
        limit: how many notes at most
        start: how many of them to skip
    """
    found = [note for note in reversed(context.notes.all()) if _matches(note, category, text, tags)]
    start, limit = max(0, start), max(1, limit)
    rest = found[start : start + limit]

    def page(shown: int) -> dict[str, Any]:
        notes = [
            {"note_id": n.id, "category": n.category, "description": n.description} for n in rest[:shown]
        ]
        result: dict[str, Any] = {"found": len(found), "shown": shown, "notes": notes}
        return result | left_out(len(found) - start - shown, next_start=start + shown)

    return context.fit_page(page, len(rest))


def _refuse_empty(description: str, importance: int | None) -> None:
    if not description.strip():
        raise ToolError("description is empty; write what you observed")
    if importance is not None and not 1 <= importance <= 10:
        raise ToolError(f"importance {importance} is not from 1 to 10")


def _matches(note: Note, category: str | None, text: str | None, tags: list[str] | None) -> bool:
    wanted = {_folded(tag) for tag in tags or []}
    return (
        (not category or _folded(note.category) == _folded(category))
        and (not text or _folded(text) in _folded(note.description))
        and (not wanted or bool(wanted & {_folded(tag) for tag in note.tags}))
    )


def _folded(text: str) -> str:
    """A text as it is compared: case counts in no script, nor which way a letter is encoded."""
    return normalize("NFKC", normalize("NFKC", text).casefold()).strip()
