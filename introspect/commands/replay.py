"""`introspect replay`: a record drawn as a run draws itself, once, or followed while it grows."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text

from introspect import events
from introspect.commands.console import CommandConsole, print_json
from introspect.commands.event_page import INDENT
from introspect.commands.summary import show_summary
from introspect.commands.terminal import RunView
from introspect.display import BAD, one_line
from introspect.engine.interrupts import Terminated
from introspect.errors import ExitCode, RecordError
from introspect.phase.paths import DEFAULT_OUTPUT
from introspect.phase.shown_paths import shell_path
from introspect.readers.comparison import recorded_summary
from introspect.readers.replay import Replay, load, paced, show, tag_of, wanted_tags
from introspect.readers.replay_view import View, show_findings
from introspect.runlog.event_history import entries_of, follow_events
from introspect.runlog.reader import EventLog, ReadEvent
from introspect.runlog.sources import find_source, is_event_log


def replay_command(
    source: str,
    only: Sequence[str] = (),
    *,
    follow: bool = False,
    speed: float | None = None,
    verbose: bool = False,
    raw: bool = False,
    pager: bool = True,
    verify: bool = False,
    allow_code: bool = False,
    as_json: bool = False,
    output_dir: Path = DEFAULT_OUTPUT,
    console: Console | None = None,
) -> int:
    """Run `introspect replay` and return its exit code: 0, or 3 where a finding is corrupt or `verify`
    executes the run again and something differs.

    `raw` shows the messages of the log with their tags, as a text log is always shown, and what `only` picks.
    Raises RecordError for a source that is missing, empty or holds no record, and for an option that cannot
    be served.
    """
    if speed is not None and not 0 < speed < float("inf"):
        raise RecordError("--speed has to be a number above 0; 1 is as it was, 10 ten times as fast")
    if console is None:
        console = CommandConsole(stderr=as_json)
    tagged = raw or bool(only)
    if follow:
        _follow(find_source(source, output_dir), only, console, tagged=tagged, verbose=verbose)
    replay = load(source, output_dir)
    found = None
    if verify:
        from introspect.commands.verify import show_verified, verified

        found = verified(replay.path, console, allow_code)
    at_once = not follow and speed is None and not as_json
    with _paged(console, pager and at_once):
        if as_json:
            print_json({**replay.json_rows(), "verify": found})
        elif follow:
            show_findings(replay.findings, console)
        elif tagged or replay.log is None:
            show(replay, console, only, speed)
        else:
            draw(replay, replay.log, console, verbose, speed)
    if found is not None and not as_json:
        show_verified(found, console)
    diverged = found is not None and found["first_divergence"] is not None
    return ExitCode.CORRUPT if replay.corrupt or diverged else ExitCode.DONE


def draw(
    replay: Replay,
    log: EventLog,
    console: Console,
    verbose: bool = False,
    speed: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Draw the events of a record as a run draws them, its summary and findings at the end.

    `speed` waits the recorded gaps divided by it.
    """
    view = _view(console, verbose)
    for read in paced(log.events, speed, sleep):
        _draw_event(view, read)
        if read.line in replay.suspects:
            view.say("GARBLED: the findings at the end say why", f"bold {BAD}", INDENT)
    if any(isinstance(read.event, events.RunStart) for read in log.events):
        show_summary(console, recorded_summary(log, replay.path.parent), _text_log(replay.path))
    show_findings(replay.findings, console)


def _view(console: Console, verbose: bool) -> RunView:
    view = RunView(console, verbose=verbose, live=False)
    # What a run warned of is part of what is asked for here.
    view.messages = console
    return view


def _draw_event(view: RunView, read: ReadEvent) -> None:
    event = read.event
    if isinstance(event, events.RunStart):
        title = f"{event.phase}: {event.title}" if event.title else event.phase
        view.console.rule(Text(one_line(title)), style="dim")
        view.say(f"seed {event.seed}, {read.time[:19].replace('T', ' ')} UTC", "dim")
    view.show(event)


def _text_log(record: Path) -> Path:
    """The text log beside a record; the record where there is none."""
    return next(iter(sorted(record.parent.glob("*.log"))), record)


@contextmanager
def _paged(console: Console, wanted: bool) -> Iterator[None]:
    """In the block, what is shown goes to the pager of the environment where a person sits at a terminal."""
    if not (wanted and console.is_terminal and console.file.isatty() and sys.stdin.isatty()):
        yield
        return
    # As git does it: colours pass, and what fits on the screen is not paged.
    os.environ.setdefault("LESS", "FRX")
    with console.pager(styles=not console.no_color):
        yield


def _follow(path: Path, only: Sequence[str], console: Console, *, tagged: bool, verbose: bool) -> None:
    """Show a run while it grows, until it ends or the reader interrupts."""
    if not is_event_log(path):
        raise RecordError(
            f"{shell_path(path)} is no event log; --follow needs a run directory or its events.jsonl"
        )
    wanted, messages, view = wanted_tags(only, ()), View(console), _view(console, verbose)
    try:
        for read in follow_events(path):
            if not tagged:
                _draw_event(view, read)
                continue
            for entry in entries_of(read):
                if not wanted or tag_of(entry) in wanted:
                    messages.show(entry)
    except Terminated:
        raise
    except KeyboardInterrupt:
        return
