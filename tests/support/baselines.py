"""Records that a phase may require, and the judgement of them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from introspect.events import Event, RunEnd
from introspect.execution.requirements import SameModel, judge_requirement
from introspect.runlog.writer import RunWriter
from support.record_examples import START, conversation, run_start

MODEL = SameModel("tiny", "r1", "w1")
SUMMARY: dict[str, Any] = {
    "experiments": [{"name": "one", "status": "complete", "notes": 1}],
    "audits": {"e0": 3, "e1": 1, "e2": 0, "failed": 0},
}


def baseline(
    output: Path, minutes: int = 0, status: str = "complete", ended: bool = True, **changes: Any
) -> Path:
    """A run of phase1a, `minutes` after the first one; `changes` are of its first record or its summary."""
    start: dict[str, Any] = {
        "environment": {"model_revision": "r1", "weight_hash": "w1"},
        "settings": {"experiments": [{"name": "one"}]},
    }
    summary = SUMMARY | {key: changes.pop(key) for key in SUMMARY.keys() & changes.keys()}
    events: list[Event] = [
        *conversation("One reply.")[:-1],
        *([RunEnd(status=status, summary=summary)] if ended else []),
    ]
    clock = START + timedelta(minutes=minutes)
    with RunWriter.create(output, run_start(**(start | changes)), {}, lambda: clock) as writer:
        for event in events:
            writer.write(event)
        return writer.directory


def judged(output: Path, model: SameModel = MODEL) -> Any:
    return judge_requirement("phase1a", output, model)


def two(**changes: Any) -> dict[str, Any]:
    return {"settings": {"experiments": [{"name": "one"}, {"name": "two"}]}, **changes}
