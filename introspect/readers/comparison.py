"""What one run did, in figures that can stand beside those of another: all of it counted from its events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from introspect import events as ev
from introspect.errors import RecordError
from introspect.events import JSON, Event
from introspect.readers.quoted_figures import VERDICTS, judged_quotes
from introspect.runlog.reader import EVENTS, EventLog, read_events
from introspect.runlog.sources import find_source, is_event_log
from introspect.tools.calls.actions import NOTHING_DONE


def measured_run(source: str, output: Path) -> JSON:
    """The figures of the run that `source` means. Raises RecordError where there is no event log of one."""
    path = find_source(source, output)
    if not is_event_log(path):
        raise RecordError(
            f"{path}: no event log, so no figures to compare; give a run directory or its events.jsonl"
        )
    log = read_events(path)
    name = path.resolve().parent.name if path.name == EVENTS else str(path)
    if not any(isinstance(read.event, ev.RunStart) for read in log.events):
        raise RecordError(f"{path}: has no run_start, so nothing says what it is of; give another run")
    return {"source": source, "run": name, "path": str(path), **figures_of(log)}


def figures_of(log: EventLog) -> JSON:
    """The figures of a record that has a `run_start`, whatever state the run is in."""
    stream = [read.event for read in log.events]
    start = next(event for event in stream if isinstance(event, ev.RunStart))
    end = stream[-1]
    damage = [f"line {f.line}: {f.message}" for f in log.findings if f.severity == "corrupt"]
    tool_calls = _tool_calls(stream)
    return {
        "phase": start.phase,
        "model": start.model,
        "model_revision": _text(start.environment.get("model_revision")),
        "weight_hash": _text(start.environment.get("weight_hash")),
        "seed": start.seed,
        "fault": start.fault,
        "forced_from": start.forced_from,
        "requirement": _requirement(start.requirement),
        "status": end.status if isinstance(end, ev.RunEnd) else "open",
        "seconds": _seconds(log),
        "experiments": _experiments(stream),
        "turns": sum(isinstance(event, ev.Generation) for event in stream),
        "prunes": sum(isinstance(event, ev.Prune) and bool(event.dropped_messages) for event in stream),
        "tokens": {"system": start.system_tokens, **_tokens(stream)},
        "tool_calls": tool_calls,
        "no_tool_used": tool_calls["ok"] == 0,
        "notes": _notes(stream),
        "notes_before": len(start.notes_before),
        "audits": _audits(stream),
        "documents": _documents(stream),
        "numbers": _numbers(stream),
        "damage": damage,
    }


def is_corrupt(figures: JSON) -> bool:
    """Whether a record shows corruption: a failed audit, or damage to the record itself."""
    return bool(figures["damage"] or figures["audits"]["failed"])


def _seconds(log: EventLog) -> float:
    """From the first record to the last, by the clock of the writer."""
    try:
        first, last = (datetime.fromisoformat(log.events[i].time.replace("Z", "+00:00")) for i in (0, -1))
    except ValueError:
        return 0.0
    return round((last - first).total_seconds(), 3)


def _requirement(found: JSON | None) -> JSON | None:
    """What a record says of a required phase, in values of the types that a run writes."""
    if found is None:
        return None
    told: JSON = {key: _text(found.get(key)) for key in ("phase", "run", "unmet")}
    return told | {"forced": found.get("forced") is True}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _experiments(stream: Sequence[Event]) -> list[JSON]:
    """One row for each experiment that was begun; `open` where the record has no end of it."""
    rows: dict[int, JSON] = {}
    misses = _misses(stream)
    for place, event in enumerate(stream):
        if isinstance(event, ev.ExperimentStart):
            row = {"name": event.name, "status": "open", "turns": 0, "tool_calls": 0, "notes": 0}
            rows.setdefault(event.experiment, row | {"no_tool_used": True})
        elif isinstance(event, ev.ExperimentEnd) and event.experiment in rows:
            rows[event.experiment]["status"] = event.status
        elif isinstance(event, ev.Generation) and event.experiment in rows:
            rows[event.experiment]["turns"] += 1
        elif isinstance(event, ev.ToolResult | ev.UserMessage) and event.experiment in rows:
            result = isinstance(event, ev.ToolResult)
            rows[event.experiment]["tool_calls"] += result or place in misses
            rows[event.experiment]["no_tool_used"] &= not (isinstance(event, ev.ToolResult) and event.ok)
    for note in _notes(stream):
        if note["experiment"] in rows:
            rows[note["experiment"]]["notes"] += 1
    return [rows[index] for index in sorted(rows)]


def _misses(stream: Sequence[Event]) -> set[int]:
    """Places of the events that answer a reply in which neither a call nor a completion was found."""
    return {
        place
        for place, event in enumerate(stream)
        if isinstance(event, ev.UserMessage)
        and event.kind == "feedback"
        and not (place and _answers_claim(stream[place - 1]))
    }


def _answers_claim(event: Event) -> bool:
    return isinstance(event, ev.Warning) and event.code == NOTHING_DONE.code


def _tokens(stream: Sequence[Event]) -> JSON:
    """Tokens generated and prefilled, the least that any exact cache must prefill, and the longest cache.

    A prompt is what the cache kept of the ids before it, and what was prefilled after that.
    """
    generated = prefilled = minimum = peak = 0
    held: tuple[int, ...] = ()
    prompt: tuple[int, ...] = ()
    for event in stream:
        if isinstance(event, ev.Prefill):
            prompt = (*held[: max(0, event.start)], *event.token_ids)
            prefilled += len(event.token_ids)
            minimum += max(1, len(prompt) - _common(prompt, held))
            held = prompt
        elif isinstance(event, ev.Generation):
            generated += len(event.token_ids)
            held = (*prompt, *event.token_ids[:-1])
            peak = max(peak, len(held))
    return {"generated": generated, "prefilled": prefilled, "minimum": minimum, "cached_peak": peak}


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


def _tool_calls(stream: Sequence[Event]) -> JSON:
    by_tool: dict[str, JSON] = {}
    malformed = len(_misses(stream))
    for event in stream:
        if isinstance(event, ev.ToolResult):
            row = by_tool.setdefault(event.function, {"calls": 0, "ok": 0})
            row["calls"] += 1
            row["ok"] += event.ok
    ran, ok = (sum(row[key] for row in by_tool.values()) for key in ("calls", "ok"))
    return {"total": ran + malformed, "ok": ok, "malformed": malformed, "by_tool": by_tool}


def _notes(stream: Sequence[Event]) -> list[JSON]:
    """The notes that were saved, each once, in the experiment that saved it first."""
    found: dict[str, JSON] = {}
    call: ev.ToolCall | None = None
    for event in stream:
        if isinstance(event, ev.ToolCall):
            call = event
        elif isinstance(event, ev.ToolResult) and event.ok and event.function == "record_observation":
            number = str(event.result.get("note_id")) if isinstance(event.result, dict) else "?"
            given = call.arguments if call is not None else {}
            told = {key: str(given.get(key, "")) for key in ("category", "description")}
            found.setdefault(number, {"experiment": event.experiment, "id": number, **told})
    return list(found.values())


def _audits(stream: Sequence[Event]) -> JSON:
    counts: JSON = {"e0": 0, "e1": 0, "e2": 0, "failed": 0, "skipped": 0, "codes": []}
    for event in stream:
        if isinstance(event, ev.Audit):
            counts["failed"] += bool(event.codes)
            counts["codes"] += [code for code in event.codes if code not in counts["codes"]]
            if event.skipped is not None:
                counts["skipped"] += 1
            elif event.level in ("e0", "e1", "e2"):
                counts[event.level] += 1
    return counts


def _documents(stream: Sequence[Event]) -> list[JSON]:
    """Which documents were read: lines seen, each counted once, of how many, and in which experiments."""
    spans: dict[str, list[tuple[int, int]]] = {}
    rows: dict[str, JSON] = {}
    for event in stream:
        if isinstance(event, ev.ToolResult) and event.ok and event.function == "read_heritage_document":
            page = event.result if isinstance(event.result, dict) else {}
            name, first, last, total = (page.get(key) for key in ("document", "first", "last", "total"))
            if isinstance(name, str) and all(isinstance(n, int) for n in (first, last, total)):
                row = rows.setdefault(name, {"document": name, "lines": 0, "total": total, "experiments": []})
                spans.setdefault(name, []).append((first, last))  # type: ignore[arg-type]
                row["lines"] = _covered(spans[name])
                row["experiments"] += [event.experiment] * (event.experiment not in row["experiments"])
    return list(rows.values())


def _covered(spans: Iterable[tuple[int, int]]) -> int:
    """How many whole numbers lie in at least one of the spans, both ends included."""
    count, reached = 0, None
    for first, last in sorted(spans):
        begin = first if reached is None else max(first, reached + 1)
        if last >= begin:
            count += last - begin + 1
            reached = last
    return count


def _numbers(stream: Sequence[Event]) -> JSON:
    """How many quoted numbers have each verdict, and every one that is not simply right."""
    counts: JSON = {"quoted": 0, **dict.fromkeys(VERDICTS, 0)}
    others = []
    for seen in judged_quotes(stream):
        verdict = seen.quote.verdict
        counts["quoted"] += 1
        counts[verdict] += 1
        if verdict != "right":
            place = {"experiment": seen.experiment, "turn": seen.turn}
            others.append({**place, "number": seen.quote.number, "verdict": verdict})
    return counts | {"not_right": others}
