"""Which runs an output directory has, and what became of each: read from the ends of their records.

What lies between is not looked at: `introspect replay` proves a whole record.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from introspect.display import one_line
from introspect.events import JSON, RunEnd, RunStatus
from introspect.runlog.ends import first_event, last_event, torn_bytes
from introspect.runlog.lock import is_held
from introspect.runlog.loop_events import said_seconds
from introspect.runlog.reader import EVENTS, EventLog, ReadEvent
from introspect.runlog.sources import run_id, run_name, runs_newest_first

_WITHOUT_END = {True: "running", False: "killed", None: "open"}
"""By whether some program holds the record: `open` where the system cannot say."""
DAMAGED = "damaged"
STATUSES = (*get_args(RunStatus), *_WITHOUT_END.values(), DAMAGED)
_GENERATION = b'"event":"generation"'
"""Only the key of a record spells it: within a text its quotes are escaped."""
_BLOCK = 1 << 20


def run_rows(
    output: Path,
    phase: str | None = None,
    model: str | None = None,
    status: str | None = None,
    last: int | None = None,
) -> list[JSON]:
    """A JSON object for each run under `output`, the newest first, whatever state its record is in.

    `turns` and `seconds` are counts and wall seconds, `started` is UTC in ISO 8601. What a damaged record
    does not say is null, and `why` says what is wrong with it. `phase` and `status` are filters, `model` a
    part of the model's name, capitals or not; `last` is how many runs are given at most.
    """
    rows: list[JSON] = []
    for directory in runs_newest_first(output, phase):
        if last is not None and len(rows) >= last:
            break
        row = run_row(directory)
        named = model is None or model.casefold() in (row["model"] or "").casefold()
        if named and status in (None, row["status"]):
            rows.append(row)
    return rows


def run_row(directory: Path) -> JSON:
    """The object of one run directory."""
    name = run_name(directory.name)
    row: JSON = {
        "run": str(directory),
        "id": run_id(directory.name),
        "phase": name["phase"] if name else None,
        "model": None,
        "status": DAMAGED,
        "turns": None,
        "started": _stamped(name["stamp"]) if name else None,
        "seconds": None,
        "why": None,
    }
    record = directory / EVENTS
    try:
        first, start = first_event(record)
        row |= {"phase": start.phase, "model": start.model, "started": first.time}
        last = last_event(record)
        if last is not None and isinstance(last.event, RunEnd):
            turns, seconds = last.event.summary.get("turns"), said_seconds(last.event)
            row |= {"status": last.event.status, "turns": turns if type(turns) is int else None}
            row["seconds"] = _seconds(first, last) if seconds is None else seconds
        else:
            row["turns"] = _generations(record)
            row["status"] = _WITHOUT_END[is_held(record)]
            row["seconds"] = _seconds(first, last) if last is not None else None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else None
        row |= {"status": DAMAGED, "why": one_line(why or str(error))}
    return row


def state_of(log: EventLog, record: Path) -> str:
    """How the run of a record that was read ended, or what became of one without an end."""
    last = log.events[-1].event
    return last.status if isinstance(last, RunEnd) else _WITHOUT_END[is_held(record)]


def _generations(record: Path) -> int:
    """How many replies a record has, counted without reading them."""
    count, before = 0, b""
    with record.open("rb") as stream:
        rest = stream.seek(0, os.SEEK_END) - torn_bytes(record)
        stream.seek(0)
        while block := stream.read(min(_BLOCK, rest)):
            rest -= len(block)
            count += (before + block).count(_GENERATION)
            before = block[-(len(_GENERATION) - 1) :]
    return count


def _seconds(first: ReadEvent, last: ReadEvent) -> float | None:
    try:
        began, ended = (datetime.fromisoformat(read.time.replace("Z", "+00:00")) for read in (first, last))
    except ValueError:
        return None
    return round((ended - began).total_seconds(), 3)


def _stamped(stamp: str) -> str | None:
    try:
        moment = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
    return f"{moment:%Y-%m-%dT%H:%M:%S}.000Z"
