"""Tools with which the model saves and finds its own notes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from introspect.errors import ToolError
from introspect.events import Event, RunStart, ToolCall, ToolResult
from introspect.tools.context import ToolContext
from introspect.tools.note_store import Note, NoteStore

_DEFAULTS: dict[str, Any] = {"importance": 5, "data": {}, "tags": []}


def rebuild_notes(store: NoteStore, record: Iterable[Event]) -> None:
    """Fill a store anew from the events of a run: the file of notes is an index of them and nothing more."""
    store.clear()
    call: ToolCall | None = None
    for event in record:
        if isinstance(event, RunStart):
            store.extend(event.notes_before)
        elif isinstance(event, ToolCall):
            call = event
        elif isinstance(event, ToolResult) and event.ok and event.function == "record_observation" and call:
            given = {**_DEFAULTS, **call.arguments}
            store.add(**{name: given[name] if given[name] is not None else _DEFAULTS[name] for name in given})


def record_observation(
    context: ToolContext,
    obs_type: str,
    category: str,
    description: str,
    importance: int = 5,
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
    if not description.strip():
        raise ToolError("description is empty; write what you observed")
    if not 1 <= importance <= 10:
        raise ToolError(f"importance {importance} is not from 1 to 10")
    note = context.notes.add(obs_type, category, description, importance, data or {}, tags or [])
    return {"saved": True, "note_id": note, "notes": context.notes.count()}


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
        if start + shown < len(found):
            result |= {"left_out": len(found) - start - shown, "next_start": start + shown}
        return result

    return context.fit_page(page, len(rest))


def _matches(note: Note, category: str | None, text: str | None, tags: list[str] | None) -> bool:
    wanted = {tag.casefold() for tag in tags or []}
    return (
        (not category or note.category.casefold() == category.casefold())
        and (not text or text.casefold() in note.description.casefold())
        and (not wanted or bool(wanted & {tag.casefold() for tag in note.tags}))
    )
