"""Random models of many families through `check` and two turns, E2 after each, as a table.

    python scripts/family_table.py [FAMILY ...] [--out data/benchmarks/families.md]

Both turns are forced: a call that reads the model's structure, then a completion. `check` and a run must
agree on every family, and nothing may end in a traceback; the script says so with its exit code.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from model_families import FAMILIES, write_family
from transformers.utils import logging

from introspect.errors import IntrospectError
from introspect.events import Audit, Event, ToolResult
from introspect.execution.opening import open_run
from introspect.execution.options import RunOptions
from introspect.execution.preflight import check_model
from introspect.execution.preparation import prepare
from introspect.phase.config import PhaseConfig

CALL = (
    'I look.\n{"reasoning": "to see", "tool_call": {"function": "get_architecture_summary", "arguments": {}}}'
)
DONE = 'All is seen.\n{"reasoning": "done", "complete": true}'
ATTENTIONS = ("sdpa", "eager")


@dataclass(frozen=True)
class Outcome:
    """What became of a family with one attention. `e2` is the largest difference of a logit."""

    family: str
    attention: str
    supported: bool
    ran: bool
    e2: float | None
    kv_bytes: int | None
    notes: tuple[str, ...]
    problem: str = ""

    @property
    def sound(self) -> bool:
        return self.supported == self.ran and not self.problem


def a_phase(folder: Path, attention: str) -> PhaseConfig:
    """One experiment of two turns, every audit after each."""
    return PhaseConfig.model_validate(
        {
            "name": "families",
            "model": {"id": str(folder), "device": "cpu", "dtype": "float32", "attention": attention},
            "generation": {"temperature": 0, "seed": 0},
            "audit": {"e0": "every_turn", "e1": "every_turn", "e2": "every_turn"},
            "system_prompt": {"detail": "brief", "text": "You examine yourself."},
            "tools": ("get_architecture_summary",),
            "experiments": ({"name": "one", "task": "Look at yourself."},),
        }
    )


def try_family(family: str, attention: str, work: Path) -> Outcome:
    """Check a family's model and run it."""
    folder = write_family(family, work / family.replace(" ", "-"))
    phase = a_phase(folder, attention)
    row: dict[str, Any] = {}
    try:
        row = check_model(phase)
        judged = row.get("model") or {}
        kv_bytes = judged["forecast"]["kv_bytes_per_token"] if judged.get("forecast") else None
        notes = judged.get("refusals") or row["reasons"]
        if row["supported"]:
            notes = [hazard for hazard in judged["hazards"] if "check_cache" not in hazard]
        notes = tuple(note.replace(str(folder), "MODEL") for note in notes)
        try:
            ran, e2, problem = run_two_turns(phase, work)
        except IntrospectError as error:
            ran, e2, problem = False, None, "" if not row["supported"] else str(error)
        return Outcome(family, attention, row["supported"], ran, e2, kv_bytes, notes, problem)
    except Exception:
        return Outcome(family, attention, bool(row.get("supported")), False, None, None, (), _traceback())


def run_two_turns(phase: PhaseConfig, work: Path) -> tuple[bool, float | None, str]:
    """Whether two turns ran to their end, the largest E2 difference, and what was wrong."""
    options = RunOptions(work / "runs")
    run = open_run(prepare(phase, options), lambda: False)
    prompt_format = run.session.prompt_format
    run.session.forced_replies = {
        (0, turn): (*prompt_format.encode(text), *sorted(prompt_format.control_ids())[-1:])
        for turn, text in enumerate((CALL, DONE), start=1)
    }
    seen: list[Event] = []
    summary = run.execute(seen.append)
    audits = [event for event in seen if isinstance(event, Audit)]
    differences = [audit.figures["max_abs_logit"] for audit in audits if audit.level == "e2"]
    wrong = [f"{audit.level}: {audit.failure}" for audit in audits if audit.codes]
    wrong += [str(event.result) for event in seen if isinstance(event, ToolResult) and not event.ok]
    wrong += [] if summary["status"] == "complete" else [f"status {summary['status']}"]
    return True, max(differences, default=None), "; ".join(wrong)


def outcomes(families: list[str], work: Path) -> list[Outcome]:
    """Each family with sdpa, and with eager where sdpa is what it lacks."""
    found = []
    for family in families:
        for attention in ATTENTIONS:
            outcome = try_family(family, attention, work)
            found.append(outcome)
            sys.stderr.write(
                f"{family} {attention} {outcome.supported} {outcome.e2} {outcome.notes} {outcome.problem}\n"
            )
            if not any("model.attention=eager" in note for note in outcome.notes):
                break
    return found


def page(found: list[Outcome]) -> str:
    """The table as Markdown."""
    families = {outcome.family for outcome in found}
    ran = {outcome.family for outcome in found if outcome.ran}
    agreed = sum(outcome.supported == outcome.ran for outcome in found)
    lines = [
        "# Families",
        "",
        f"{len(families)} small random models, fp32 on a CPU, through `introspect check` and two turns of a"
        " run: a tool call, its result, a completion. E0, E1 and E2 were made after both turns. Made by"
        " `scripts/family_table.py`; shapes in `scripts/model_families.py`.",
        "",
        f"{len(ran)} families ran, {len(families - ran)} are refused with a reason; `check` and the run agree"
        f" on {agreed} of {len(found)} rows. E2 is the largest difference of a logit between the cached run"
        " and one pass over the same ids; KV is in bytes a token, as `check` forecasts it.",
        "",
        "| family | attention | check | run | E2 | KV | notes |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for outcome in found:
        cells = [
            outcome.family,
            outcome.attention,
            "usable" if outcome.supported else "refused",
            "clean" if outcome.ran and not outcome.problem else outcome.problem or "refused",
            "" if outcome.e2 is None else f"{outcome.e2:.0e}",
            "" if outcome.kv_bytes is None or not outcome.ran else str(outcome.kv_bytes),
            "; ".join(outcome.notes),
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", help="names from scripts/model_families.py; all by default")
    parser.add_argument("--out", type=Path, help="write the table there")
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        found = outcomes(options.families or list(FAMILIES), Path(work))
    text = page(found)
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    return 0 if all(outcome.sound for outcome in found) else 1


def _traceback() -> str:
    return " ".join(traceback.format_exc(limit=-2).split())[-300:]


if __name__ == "__main__":
    sys.exit(main())
