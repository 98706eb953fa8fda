"""A run as a table for analysis: one row for each turn and for each tool call, in the order of the record."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from introspect import events as ev
from introspect.runlog.reader import ReadEvent
from introspect.tally import passes_per_second

COLUMNS: dict[str, type] = {
    "run": str,
    "kind": str,
    "experiment": int,
    "experiment_name": str,
    "turn": int,
    "line": int,
    "time": str,
    "seconds": float,
    "prompt_tokens": int,
    "cached_tokens": int,
    "prefilled_tokens": int,
    "generated_tokens": int,
    "tokens_per_second": float,
    "finish_reason": str,
    "decode_path": str,
    "forced": bool,
    "pruned_turns": int,
    "audits_passed": int,
    "audits_failed": int,
    "text": str,
    "function": str,
    "ok": bool,
    "reasoning": str,
    "arguments": str,
    "result": str,
}
"""The columns, in order, and the type of each; a cell without a value is None.

`kind` is `turn` or `tool_call`; `experiment` counts from 0, `turn` and `line` (of the record) from 1.
`seconds` are those of decoding, or of the tool; in records of schema 1 a reply's have those of its prefill
too. `arguments` and `result` are JSON. `audits_*` count the checks of a turn's cache, `pruned_turns` those
that were dropped before its reply.
"""

Row = dict[str, Any]


def rows_of(run: str, events: Iterable[ReadEvent]) -> list[Row]:
    """The rows of a record. `run` is the name of the run, which each row has."""
    rows = list(_rows(events))
    return [{**dict.fromkeys(COLUMNS), "run": run, **row} for row in rows]


def _rows(events: Iterable[ReadEvent]) -> Iterator[Row]:
    names: dict[int, str] = {}
    turn: Row = {}
    call: ev.ToolCall | None = None
    pruned = prefilled = 0
    held: list[Row] = []
    for read in events:
        event = read.event
        if isinstance(event, ev.ExperimentStart):
            names[event.experiment] = event.name
        elif isinstance(event, ev.Prune):
            pruned += event.dropped_turns if event.dropped_messages else 0
        elif isinstance(event, ev.Prefill):
            prefilled += len(event.token_ids)
        elif isinstance(event, ev.Generation):
            # Audits of a reply come after it: its row is given away with those that follow.
            yield from held
            turn = _turn(event, read, names) | {"pruned_turns": pruned, "prefilled_tokens": prefilled}
            held, pruned, prefilled = [turn], 0, 0
        elif isinstance(event, ev.Audit) and turn and event.turn == turn["turn"] and event.skipped is None:
            turn["audits_failed" if event.codes else "audits_passed"] += 1
        elif isinstance(event, ev.ToolCall):
            call = event
        elif isinstance(event, ev.ToolResult):
            held.append(_call(event, call, read, names))
            call = None
    yield from held


def _turn(event: ev.Generation, read: ReadEvent, names: dict[int, str]) -> Row:
    return _place(event, read, names) | {
        "kind": "turn",
        "seconds": event.seconds,
        "prompt_tokens": event.prompt_tokens,
        "cached_tokens": event.cached_tokens,
        "generated_tokens": len(event.token_ids),
        "tokens_per_second": passes_per_second(len(event.token_ids), event.seconds),
        "finish_reason": event.finish_reason,
        "decode_path": event.decode_path,
        "forced": event.forced,
        "audits_passed": 0,
        "audits_failed": 0,
        "text": event.text,
    }


def _call(event: ev.ToolResult, call: ev.ToolCall | None, read: ReadEvent, names: dict[int, str]) -> Row:
    return _place(event, read, names) | {
        "kind": "tool_call",
        "seconds": event.seconds,
        "function": event.function,
        "ok": event.ok,
        "reasoning": call.reasoning if call else None,
        "arguments": _json(call.arguments) if call else None,
        "result": _json(event.result),
    }


def _place(event: ev.Generation | ev.ToolResult, read: ReadEvent, names: dict[int, str]) -> Row:
    return {
        "experiment": event.experiment,
        "experiment_name": names.get(event.experiment),
        "turn": event.turn,
        "line": read.line,
        "time": read.time,
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
