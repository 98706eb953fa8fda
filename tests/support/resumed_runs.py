"""Runs that are cut where one wants, taken up again, and compared with what they would have been."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from introspect.checkpoint.loading import LoadedModel
from introspect.engine.interrupts import Interrupts
from introspect.execution.opening import open_run
from introspect.execution.options import RunOptions
from introspect.execution.preparation import prepare
from introspect.execution.recorded_run import recorded_run
from introspect.execution.resuming import open_again, prepare_again
from introspect.phase.config import PhaseConfig
from introspect.runlog.codec import canonical, checksum
from support.sessions import DONE, call_text, phase_for

# Times, and what a writer stamps: all else of two runs has to be the same.
STAMPED = {"time", "seq", "prev", "checksum", "seconds", "digest_seconds", "traceback"}
BESIDE = {"run_resumed", "run_end"}


REPLIES = (
    (
        call_text("record_observation", obs_type="finding", category="weights", description="std 0.3"),
        call_text("process_text", text="Hello", layer_names=["model.layers.0"]),
        "I forgot what to do.",
        call_text("get_activation_statistics", layer_name="model.layers.0"),
        call_text("get_layer_names", filter_pattern=5),
        call_text("update_observation", note_id=1, description="std 0.31"),
        DONE,
    ),
    (
        DONE,
        call_text("query_memory"),
        call_text("record_observation", obs_type="question", category="weights", description="why"),
        DONE,
    ),
)
"""Of two experiments: notes, a text that a later call is about, a miss, a bad argument, a claim too early."""


def small_phase(model_dir: Path, **changes: Any) -> PhaseConfig:
    """Two experiments that offer different tools, with a prune in each."""
    notes = ("record_observation", "update_observation", "query_memory")
    base: dict[str, Any] = {
        "generation": {"max_new_tokens": 24, "seed": 5, "temperature": 1.0},
        "memory": {"max_turns": 2, "keep_recent_turns": 1, "max_conversation_tokens": 3000},
        "limits": {"max_turns": 9, "max_result_tokens": 60},
        "tools": ("get_layer_names", "process_text", "get_activation_statistics", *notes),
        "experiments": (
            {"name": "one", "task": "Look at yourself."},
            {"name": "two", "task": "Look again.", "tools": notes},
        ),
    }
    return phase_for(model_dir, **(base | changes))


def donor(phase: PhaseConfig, loaded: LoadedModel, output: Path) -> Path:
    """A record with the replies that other runs are forced to."""
    run = open_run(prepare(phase, RunOptions(output), loaded=loaded), Interrupts())
    prompt_format = run.session.prompt_format
    run.session.forced_replies = {
        (experiment, turn): (*prompt_format.encode(text), prompt_format.end_id)
        for experiment, texts in enumerate(REPLIES)
        for turn, text in enumerate(texts, start=1)
    }
    run.execute(lambda event: None)
    return run.writer.directory


def made_run(phase: PhaseConfig, loaded: LoadedModel, output: Path, **options: Any) -> Path:
    """The directory of a run of a phase that nothing has disturbed."""
    run = open_run(prepare(phase, RunOptions(output, **options), loaded=loaded), Interrupts())
    run.execute(lambda event: None)
    return run.writer.directory


def record_lines(directory: Path) -> list[bytes]:
    return (directory / "events.jsonl").read_bytes().splitlines(keepends=True)


def cut_run(directory: Path, to: Path, lines: int, torn: int = 0) -> Path:
    """A copy of a run whose record has its first lines, and some bytes of the one after them."""
    shutil.copytree(directory, to)
    whole = record_lines(directory)
    rest = whole[lines][:torn] if lines < len(whole) else b""
    (to / "events.jsonl").write_bytes(b"".join(whole[:lines]) + rest)
    return to


def resumed(
    directory: Path,
    loaded: LoadedModel,
    watch: Any = lambda event: None,
    interrupts: Interrupts | None = None,
) -> dict[str, Any]:
    """Take a run up and let it end; its summary."""
    record = recorded_run(directory / "events.jsonl")
    return open_again(record, prepare_again(record, loaded), interrupts or Interrupts()).execute(watch)


def said(directory: Path, among: set[str] = BESIDE) -> list[dict[str, Any]]:
    """The records of a run without what a clock gave, and without those that tell of its parts."""
    records = [json.loads(line) for line in record_lines(directory)]
    return [{k: v for k, v in r.items() if k not in STAMPED} for r in records if r["event"] not in among]


def first_difference(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> Any:
    """Where two records differ, for a person who reads a failed test; None where they do not."""
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place, {
                key: (a.get(key), b.get(key)) for key in a.keys() | b.keys() if a.get(key) != b.get(key)
            }
    return None if len(one) == len(other) else ("lengths", len(one), len(other))


def rewritten(run: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The record of a run with each event changed, and sealed again as its writer would have."""
    prev, lines = "", []
    for line in record_lines(run):
        record = json.loads(line)
        change(record)
        del record["checksum"]
        record["prev"] = prev
        prev = record["checksum"] = checksum(record)
        lines.append(canonical(record) + "\n")
    (run / "events.jsonl").write_text("".join(lines))
    return run


def at(event: str, place: int, **changes: Any) -> Callable[[dict[str, Any]], None]:
    """Change an event of a kind, the one of that place among them."""
    left = [place]

    def change(record: dict[str, Any]) -> None:
        if record["event"] == event:
            left[0] -= 1
            if left[0] == -1:
                record.update({k: v(record[k]) if callable(v) else v for k, v in changes.items()})

    return change
