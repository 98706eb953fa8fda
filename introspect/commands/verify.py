"""`introspect replay --verify`: the model of a record is loaded, and the run executed again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from introspect.commands.status import busy
from introspect.display import BAD, GOOD, WARNING, counted, one_line
from introspect.engine.interrupts import Interrupts
from introspect.errors import RecordError
from introspect.events import JSON
from introspect.phase.shown_paths import shell_path
from introspect.runlog.sources import is_event_log
from introspect.tools.files import Permission


def verified(path: Path, console: Console, allow_code: bool = False) -> JSON:
    """The value of `verify` in `replay --json`. Raises IntrospectError where it cannot be executed here."""
    if not is_event_log(path):
        raise RecordError(f"{shell_path(path)}: no event log, so nothing to execute; give a run directory")
    from introspect.checkpoint.library_output import quiet_library
    from introspect.checkpoint.loading import load_model
    from introspect.execution.recorded_engine import recorded_amount, recorded_model, torch_threads
    from introspect.execution.recorded_run import recorded_run
    from introspect.execution.verifying import verify

    run = recorded_run(path)
    threads = recorded_amount(run.start, "threads", path)
    # More threads than there are processors would be slow; that there are others is told.
    used = threads if threads <= (os.cpu_count() or 1) else None
    shown = busy(console, f"executing {run.directory.name} again")
    with shown, quiet_library(), torch_threads(used):
        loaded = load_model(recorded_model(run.start, path))
        return verify(run, loaded, Interrupts(), Permission(allow_code)).to_json()


def show_verified(found: JSON, console: Console) -> None:
    """What came out, for people."""
    compared = f"{counted(found['turns'], 'turn')}, {counted(found['tokens_compared'], 'token')} and"
    compared += f" {counted(found['tool_results'], 'tool result')}"
    diverged: dict[str, Any] | None = found["first_divergence"]
    if diverged is None:
        console.print(Text(f"verified: {compared} executed again, all the same", GOOD), soft_wrap=True)
        for line in found["conditions"]:
            console.print(Text(one_line(line), WARNING), soft_wrap=True)
        return
    where = f"line {diverged['line']}, {diverged['event']}"
    if diverged["turn"]:
        where += f" in turn {diverged['turn']} of experiment {diverged['experiment'] + 1}"
    token = "" if diverged["token"] is None else f" at {diverged['token']}"
    console.print(Text(f"DIVERGED after {compared}: {one_line(where)}", f"bold {BAD}"), soft_wrap=True)
    for name in ("recorded", "executed"):
        console.print(
            Text(one_line(f"  {diverged['field']}{token} {name}: {diverged[name]}")), soft_wrap=True
        )
    for line in diverged["why"]:
        console.print(Text(one_line(f"  {line}"), WARNING), soft_wrap=True)
