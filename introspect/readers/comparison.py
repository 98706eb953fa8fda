"""What one run did, in figures that can stand beside those of another: all of it counted from its events."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from introspect import events as ev
from introspect.errors import ConfigError, RecordError
from introspect.events import JSON, Event
from introspect.phase.paths import shown
from introspect.phase.shown_paths import shell_path
from introspect.readers.dotted import as_json, dotted
from introspect.readers.predictions import Predictions
from introspect.readers.quoted_figures import VERDICTS, judged_quotes
from introspect.readers.run_list import state_of
from introspect.runlog.loop_events import run_seconds
from introspect.runlog.reader import EVENTS, EventLog, read_events, start_of
from introspect.runlog.sources import find_source, is_event_log
from introspect.tally import Tally, saved_note


def measured_run(source: str, output: Path) -> JSON:
    """The figures of the run that `source` means. Raises RecordError where there is no event log of one."""
    path = find_source(source, output)
    if not is_event_log(path):
        raise RecordError(
            f"{shell_path(path)}: no event log, so no figures to compare; give a run directory or its"
            " events.jsonl"
        )
    log = read_events(path)
    name = path.resolve().parent.name if path.name == EVENTS else str(path)
    start_of(log, path)
    figures = {**figures_of(log), "status": state_of(log, path)}
    return {"source": source, "run": name, "path": str(path), **figures}


def figures_of(log: EventLog) -> JSON:
    """The figures of a record that has a `run_start`; the status of one without an end is `open`."""
    stream = [read.event for read in log.events]
    start = next(event for event in stream if isinstance(event, ev.RunStart))
    end = stream[-1]
    damage = [f"line {f.line}: {f.message}" for f in log.damage]
    tally = Tally.of(stream)
    return {
        "phase": start.phase,
        "model": start.model,
        "model_revision": _text(start.environment.get("model_revision")),
        "weight_hash": _text(start.environment.get("weight_hash")),
        "seed": start.seed,
        "fault": start.fault,
        "settings": _settings(start),
        "constrain": _text(start.environment.get("constrain")) or "none",
        "no_repeat_tools": start.environment.get("no_repeat_tools") is True,
        "grammars": _grammars(start.environment.get("grammars")),
        "forced_from": start.forced_from,
        "requirement": _requirement(start.requirement),
        "status": end.status if isinstance(end, ev.RunEnd) else "open",
        "seconds": _seconds(log),
        "experiments": tally.rows("open"),
        "turns": tally.turns,
        "prunes": tally.prunes,
        "tokens": {"system": start.system_tokens, **tally.tokens()},
        "tokens_per_second": tally.tokens_per_second,
        "tool_calls": {**tally.tool_calls(), "by_tool": tally.by_tool},
        "no_tool_used": tally.no_tool_used,
        "predictions": Predictions.of(stream).to_json(),
        "notes": _notes(stream),
        "notes_before": len(start.notes_before),
        "audits": {**tally.audits, "codes": tally.codes},
        "documents": [*_pinned(start, stream), *_documents(stream)],
        "numbers": _numbers(stream),
        "damage": damage,
    }


def recorded_summary(log: EventLog, directory: Path) -> JSON:
    """What `run --json` prints at the end of a run, as far as a record that has a `run_start` tells it.

    Counted from the events, so that there is one also where the run broke off: its status is then
    `running`, `killed`, or `open` where the system cannot say.
    """
    figures = figures_of(log) | {"status": state_of(log, directory / EVENTS)}
    tally = Tally.of(read.event for read in log.events)
    notes = figures["notes"]
    return figures | {
        "run": str(directory),
        "failures": tally.failures,
        "skipped_levels": list(tally.skipped_reasons),
        "skipped_reasons": dict(tally.skipped_reasons),
        "audits": dict(tally.audits),
        "saved_notes": notes,
        "notes": len(notes),
    }


def baseline_of(figures: JSON) -> Path:
    """The directory of the run that a run builds on, as its record says.

    Beside its own first, where a moved output directory has it; else where it was when it was named. Raises
    ConfigError where the record names none, RecordError where it is gone.
    """
    found = figures["requirement"]
    name = found["run"] if found is not None else None
    if name is None:
        raise ConfigError(
            f"{shown(figures['source'])}: its record names no run that it builds on; compare takes two runs"
            " or more, such as `introspect compare phase1a phase1b`"
        )
    beside = Path(figures["path"]).resolve().parent.parent / Path(name).name
    places = [beside, *([Path(found["path"])] if found["path"] is not None else [])]
    for place in places:
        if os.path.isfile(place / EVENTS):
            return place
    raise RecordError(
        f"{shown(figures['source'])} builds on {shown(name)}, and that is not at"
        f" {' or '.join(shell_path(place) for place in places)}; name the run to compare it with"
    )


def same_weights(runs: Sequence[JSON]) -> bool | None:
    """Whether runs have the same weights, by their hashes; None where a record does not say."""
    hashes = {run["weight_hash"] for run in runs}
    if None in hashes:
        return False if len(hashes) > 2 else None
    return len(hashes) == 1


def is_corrupt(figures: JSON) -> bool:
    """Whether a record shows corruption: a failed audit, or damage to the record itself."""
    return bool(figures["damage"] or figures["audits"]["failed"])


def _seconds(log: EventLog) -> float:
    """As `run_seconds` has them; nought where the record's times are none."""
    try:
        return round(run_seconds(log.events), 3)
    except ValueError:
        return 0.0


def _settings(start: ev.RunStart) -> dict[str, str]:
    """What a run was set to, by dotted keys, each as JSON has it; what it ran on under its own names."""
    ran_on = {name: start.environment.get(name) for name in ("dtype", "device", "threads", "attention")}
    return as_json(dotted(start.settings) | dotted(ran_on))


def _requirement(found: JSON | None) -> JSON | None:
    """What a record says of a required phase, in values of the types that a run writes."""
    if found is None:
        return None
    fields: JSON = {key: _text(found.get(key)) for key in ("phase", "run", "unmet", "path")}
    return fields | {"forced": found.get("forced") is True}


def _grammars(recorded: object) -> JSON:
    """The hash of the grammar of each experiment whose replies were constrained."""
    found = recorded if isinstance(recorded, dict) else {}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _notes(stream: Sequence[Event]) -> list[JSON]:
    """The notes that were saved, each once, in the experiment that saved it first."""
    found: dict[str, JSON] = {}
    call: ev.ToolCall | None = None
    for event in stream:
        if isinstance(event, ev.ToolCall):
            call = event
        elif isinstance(event, ev.ToolResult) and (number := saved_note(event)) is not None:
            given = call.arguments if call is not None else {}
            fields = {key: str(given.get(key, "")) for key in ("category", "description")}
            found.setdefault(number, {"experiment": event.experiment, "id": number, **fields})
    return list(found.values())


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
                row["lines"] = covered_count(spans[name])
                row["experiments"] += [event.experiment] * (event.experiment not in row["experiments"])
    return list(rows.values())


def _pinned(start: ev.RunStart, stream: Sequence[Event]) -> list[JSON]:
    """The documents that stood in the system prompt, whole, and in which experiments."""
    settings = start.settings
    if settings.get("documents_pinned") is not True:
        return []
    listed = settings.get("experiments")
    narrowed = dict(enumerate(listed if isinstance(listed, list) else []))
    begun = [event.experiment for event in stream if isinstance(event, ev.ExperimentStart)]
    rows: list[JSON] = []
    for document in start.documents:
        name, text = str(document.get("id")), str(document.get("text"))
        offered = {e: narrowed[e].get("documents") for e in begun if isinstance(narrowed.get(e), dict)}
        shown = [e for e, names in offered.items() if names is None or name in names]
        lines = len(text.removeprefix("\ufeff").splitlines())
        row = {"document": name, "lines": lines, "total": lines, "experiments": shown}
        rows += [{**row, "pinned": True}] if shown else []
    return rows


def covered_count(spans: Iterable[tuple[int, int]]) -> int:
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
