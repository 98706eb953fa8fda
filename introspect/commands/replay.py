"""`introspect replay`: a record shown once, or followed while it grows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from introspect.commands.console import CommandConsole, print_json
from introspect.engine.interrupts import Terminated
from introspect.errors import ExitCode, RecordError
from introspect.phase.paths import DEFAULT_OUTPUT
from introspect.readers.replay import load, show, tag_of, wanted_tags
from introspect.readers.replay_view import View, show_findings
from introspect.runlog.event_history import follow_events
from introspect.runlog.sources import find_source, is_event_log


def replay_command(
    source: str,
    only: Sequence[str] = (),
    *,
    follow: bool = False,
    speed: float | None = None,
    as_json: bool = False,
    output_dir: Path = DEFAULT_OUTPUT,
    console: Console | None = None,
) -> int:
    """Run `introspect replay` and return its exit code: 0, or 3 where a finding is corrupt.

    Raises RecordError for a source that is missing, empty or holds no record, and for an option that cannot
    be served.
    """
    if speed is not None and not 0 < speed < float("inf"):
        raise RecordError("--speed has to be a number above 0; 1 is as it was, 10 ten times as fast")
    if console is None:
        console = CommandConsole(stderr=as_json)
    if follow:
        _follow(find_source(source, output_dir), only, console)
    replay = load(source, output_dir)
    if as_json:
        print_json(replay.json_rows())
    elif follow:
        show_findings(replay.findings, console)
    else:
        show(replay, console, only, speed)
    return ExitCode.CORRUPT if replay.corrupt else ExitCode.DONE


def _follow(path: Path, only: Sequence[str], console: Console) -> None:
    """Show a run while it grows, until it ends or the reader interrupts."""
    if not is_event_log(path):
        raise RecordError(f"'{path}' is no event log; --follow needs a run directory or its events.jsonl")
    wanted, view = wanted_tags(only, ()), View(console)
    try:
        for entry in follow_events(path):
            if not wanted or tag_of(entry) in wanted:
                view.show(entry)
    except Terminated:
        raise
    except KeyboardInterrupt:
        return
