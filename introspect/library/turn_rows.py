"""The turns of a run as rows of a table: one for each reply, with the call that it made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from introspect import events as ev
from introspect.runlog.plain_values import NonFinite
from introspect.runlog.reader import EventLog

COLUMNS = {
    "experiment": "name of the experiment",
    "turn": "of the experiment, from 1",
    "time": "when the reply was written down, UTC in ISO 8601",
    "text": "the reply",
    "finish_reason": "stop, length or non-finite",
    "tokens": "sampled, the end token included",
    "prompt_tokens": "of the prompt",
    "cached_tokens": "of the prompt, found in the cache",
    "seconds": "that decoding took",
    "mean_logprob": "natural logarithm at temperature 1, over the sampled tokens",
    "pruned": "whether messages were dropped just before",
    "tool": "that was called; None where none was",
    "arguments": "of the call",
    "reasoning": "that the model gave for the call",
    "ok": "whether the call succeeded",
    "result": "of the call, whole",
    "tool_seconds": "that the call took",
    "failed_at": "FILE:LINE where a tool of one's own failed",
    "failed_audits": "codes that checks of the cache found, after the turn",
}
"""What stands in the columns of a row, in their order."""


def turn_rows(log: EventLog) -> list[dict[str, Any]]:
    """A row for each reply of a record, with the keys of COLUMNS."""
    rows: dict[tuple[int, int], dict[str, Any]] = {}
    names: dict[int, str] = {}
    pruned = False
    for read in log.events:
        event = read.event
        match event:
            case ev.ExperimentStart():
                names[event.experiment] = event.name
            case ev.Prune():
                pruned = pruned or bool(event.dropped_messages)
            case ev.Generation():
                row = _reply(event, names.get(event.experiment, ""), read.time)
                rows[event.experiment, event.turn] = row | {"pruned": pruned}
                pruned = False
            case ev.ToolCall() | ev.ToolResult() | ev.Audit():
                # What belongs to no reply, such as an audit before the first, is in no row.
                if (event.experiment, event.turn) in rows:
                    _add(rows[event.experiment, event.turn], event)
            case _:
                pass
    return [{name: row[name] for name in COLUMNS} for row in rows.values()]


def spread_results(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Add to each row, as `result.KEY`, what its result has under a key and is no list or object.

    Returns the names of these columns, in the order in which they come first.
    """
    columns: dict[str, None] = {}
    for row in rows:
        result = row["result"] if isinstance(row["result"], dict) else {}
        for key, value in result.items():
            if not isinstance(value, dict | list):
                row[f"result.{key}"] = float(value) if value in get_args(NonFinite) else value
                columns[f"result.{key}"] = None
    return list(columns)


def _reply(event: ev.Generation, experiment: str, time: str) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    return row | {
        "experiment": experiment,
        "turn": event.turn,
        "time": time,
        "text": event.text,
        "finish_reason": event.finish_reason,
        "tokens": len(event.token_ids),
        "prompt_tokens": event.prompt_tokens,
        "cached_tokens": event.cached_tokens,
        "seconds": event.seconds,
        "mean_logprob": sum(event.logprobs) / len(event.logprobs) if event.logprobs else None,
        "failed_audits": [],
    }


def _add(row: dict[str, Any], event: ev.ToolCall | ev.ToolResult | ev.Audit) -> None:
    match event:
        case ev.ToolCall():
            row |= {"tool": event.function, "arguments": event.arguments, "reasoning": event.reasoning}
        case ev.ToolResult():
            row |= {"tool": event.function, "ok": event.ok, "result": event.result}
            row |= {"tool_seconds": event.seconds, "failed_at": event.failed_at}
        case ev.Audit():
            row["failed_audits"] += event.codes
