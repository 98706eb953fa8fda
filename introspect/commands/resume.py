"""`introspect run --resume`: a run that broke off goes on in its own files."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from introspect.commands.console import CommandConsole, print_json
from introspect.commands.options import refuse_beside_resume
from introspect.commands.run import ViewOptions, conduct, read_phase
from introspect.commands.status import loading
from introspect.commands.summary import show_summary
from introspect.commands.terminal import RunView
from introspect.display import one_line
from introspect.engine.interrupts import Interrupts
from introspect.errors import ConfigError, ExitCode, RecordError
from introspect.phase.shown_paths import shell_path
from introspect.readers.comparison import recorded_summary
from introspect.runlog.lock import is_held
from introspect.runlog.sources import find_source, is_event_log
from introspect.tools.files import Permission

if TYPE_CHECKING:
    from introspect.execution.recorded_run import RecordedRun


def resume_command(
    context: typer.Context,
    source: str,
    phase: str | None,
    output: Path,
    shown: ViewOptions,
    code: Permission,
) -> int:
    """Go on with a run and return the exit code: that of the run, 0 where it has ended already.

    Raises IntrospectError where it is no run that can go on here, and nothing is changed then.
    """
    from introspect.execution.recorded_run import recorded_run
    from introspect.execution.recorded_tools import with_recorded_tools

    refuse_beside_resume(context)
    path = find_source(source, output)
    if not is_event_log(path):
        raise RecordError(
            f"{shell_path(path)}: a text log, which nothing can go on from; give a run directory"
        )
    record = recorded_run(path)
    if (
        phase is not None
        and phase != record.start.phase
        and read_phase(phase, {}, ()).name != record.start.phase
    ):
        raise ConfigError(
            f"--resume {one_line(source)}: a run of {record.start.phase}, and not of {one_line(phase)}; leave"
            " the phase out, or start another run"
        )
    console = CommandConsole(stderr=shown.as_json)
    if record.end is not None:
        console.print(Text(f"this run has ended ({record.end.status}); nothing is left to do"), style="dim")
        # Counted anew for people: what the last record says of the run may be anything.
        log = record.directory / f"{record.start.phase}.log"
        show_summary(console, recorded_summary(record.log, record.directory), log)
        if shown.as_json:
            print_json({**record.end.summary, "run": str(record.directory)})
        return ExitCode.DONE
    if is_held(path):
        raise RecordError(
            f"{shell_path(record.directory)}: another program is writing this run; wait until it has ended"
        )
    record.refuse_read_only()
    code.refuse_others(with_recorded_tools(record.phase, record).tools)
    return _go_on(record, console, shown, code)


def _go_on(record: RecordedRun, console: CommandConsole, shown: ViewOptions, code: Permission) -> int:
    from introspect.execution.recorded_engine import recorded_amount, recorded_weights, torch_threads
    from introspect.execution.resuming import open_again, prepare_again

    interrupts = Interrupts()
    start, path = record.start, record.path
    with interrupts.listening(), torch_threads(recorded_amount(start, "threads", path)):
        try:
            quiet = shown.quiet or shown.as_json
            with interrupts.breakable, loading(f"loading {start.model}", quiet) as progress:
                prepared = prepare_again(record, recorded_weights(start, path, progress), code=code)
        except KeyboardInterrupt:
            with suppress(OSError):
                sys.stderr.write("introspect: interrupted while loading; nothing was written\n")
            return interrupts.exit_code
        view = RunView(console, shown.quiet, shown.verbose, limit=start.limit)
        opened = open_again(record, prepared, interrupts, view.progress)
        for event in record.events:
            view.recall(event)
        return conduct(opened, view, shown)
