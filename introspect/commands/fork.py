"""`introspect fork`: a new run that shares the first turns of a recorded one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from introspect.commands.console import CommandConsole
from introspect.commands.run import ViewOptions, conduct
from introspect.commands.status import loading
from introspect.commands.terminal import RunView
from introspect.display import counted
from introspect.engine.interrupts import Interrupts
from introspect.errors import RecordDiverged, RecordError
from introspect.phase.paths import shipped_documents
from introspect.phase.shown_paths import shell_path
from introspect.runlog.sources import find_source, is_event_log
from introspect.tools.catalogue import TOOL_MODULES
from introspect.tools.files import Permission
from introspect.tools.library import document_ids


def fork(
    source: str,
    turns: int,
    output: Path,
    sets: Sequence[str],
    seed: int | None,
    shown: ViewOptions,
    allow_code: bool = False,
) -> int:
    """Run a fork and return its exit code. Raises IntrospectError where it cannot share those turns."""
    from introspect.execution.forking import drop, forked_phase, open_fork, shared_events
    from introspect.execution.recorded_engine import recorded_amount, recorded_weights, torch_threads
    from introspect.execution.recorded_run import recorded_run

    path = find_source(source, output)
    if not is_event_log(path):
        raise RecordError(
            f"{shell_path(path)}: a text log, which nothing can go on from; give a run directory"
        )
    run = recorded_run(path)
    shared_events(run, turns)
    known = {"tools": list(TOOL_MODULES), "documents": document_ids(shipped_documents())}
    phase = forked_phase(run, sets, seed, known)
    console, interrupts = CommandConsole(stderr=shown.as_json), Interrupts()
    with interrupts.listening(), torch_threads(recorded_amount(run.start, "threads", path)):
        try:
            quiet = shown.quiet or shown.as_json
            with interrupts.breakable, loading(f"loading {run.start.model}", quiet) as progress:
                loaded = recorded_weights(run.start, path, progress)
        except KeyboardInterrupt:
            with suppress(OSError):
                sys.stderr.write("introspect: interrupted while loading; nothing was written\n")
            return interrupts.exit_code
        view = RunView(console, shown.quiet, shown.verbose, limit=run.start.limit)
        opened = open_fork(
            run, turns, phase, output, loaded, interrupts, Permission(allow_code), view.progress
        )
        try:
            return conduct(opened, view, shown)
        except RecordDiverged as error:
            drop(opened.writer)
            shared = counted(turns, "turn")
            raise RecordDiverged(
                f"with these settings {shared} of {source} cannot be shared: {error}"
            ) from None
