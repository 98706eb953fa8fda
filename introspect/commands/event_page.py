"""How each event of a run looks on a console; a run that goes on and its replay are drawn by it alike."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from introspect import events
from introspect.commands.console import CommandConsole
from introspect.display import BAD, GOOD, MEMORY, TOOL, WARNING, counted, one_line, printable
from introspect.engine.out_of_memory import FORECAST, OUT_OF_MEMORY
from introspect.runlog.plain_values import json_text
from introspect.tally import passes_per_second

INDENT = 2
UNANSWERED = (OUT_OF_MEMORY, FORECAST)
"""Codes of warnings after which the turn is tried again, and of which the model is told nothing."""
STATUS_STYLES = {"complete": GOOD, "limited": WARNING, "failed": BAD, "corrupt": f"bold {BAD}"}


class EventPage:
    """A console that events are drawn on; `verbose` has cache, audits and whole results too.

    Warnings go to `messages`: to stderr, unless both streams are one terminal.
    """

    def __init__(self, console: Console, verbose: bool = False) -> None:
        self.console = console
        self.messages = messages_beside(console)
        self.verbose = verbose

    def say(self, text: str, style: str = "", indent: int = 0, console: Console | None = None) -> None:
        """Print a paragraph of foreign text without effect; `indent` in columns, of its every line.

        `console` is another than that of the view.
        """
        console = self.console if console is None else console
        shown = Text(printable(text), style=style)
        if console.is_terminal or console.record:
            console.print(Padding(shown, (0, 0, 0, indent)))
        else:
            console.print(Text(" " * indent) + shown, soft_wrap=True)

    def warn(self, text: str, indent: int = 0) -> None:
        """Print a warning where messages go."""
        self.say(text, WARNING, indent, self.messages)


def messages_beside(console: Console) -> Console:
    """Where messages go beside what a console shows: to stderr, unless it shows them in the same place."""
    if console.stderr or console.record or console.file is not sys.stdout:
        return console
    if console.is_terminal and sys.stderr.isatty():
        return console
    # The stream itself: while a live line is drawn, rich takes for its own what is written to sys.stderr.
    return CommandConsole(file=sys.stderr)


def _run_start(view: EventPage, event: events.RunStart) -> None:
    made = event.environment
    where = f"{made.get('dtype')} on {made.get('device')}"
    view.say(one_line(f"{event.model}: {made.get('placement') or where}"), "dim")
    form = made.get("prompt_form")
    if isinstance(form, dict):
        view.say(one_line(f"prompt form {form.get('name')}: {form.get('reason')}"), "dim")
    if note := made.get("model_note"):
        view.say(one_line(f"{event.model} {note}"), "dim")


def _run_resumed(view: EventPage, event: events.RunResumed) -> None:
    view.say(f"resumed after {event.records} records", "dim")
    for changed in event.changed:
        view.warn(f"warning: {one_line(changed)}")


def _experiment_start(view: EventPage, event: events.ExperimentStart) -> None:
    view.console.rule(Text(one_line(f"{event.experiment + 1}. {event.name}")), style="dim")
    view.say(event.task, "bold")


def _user_message(view: EventPage, event: events.UserMessage) -> None:
    if event.kind in ("feedback", "last_reply"):
        view.say(f"→ {event.text}", WARNING, INDENT)


def _prune(view: EventPage, event: events.Prune) -> None:
    if event.refused:
        view.say(f"prune refused: {event.refused}", WARNING)
        return
    dropped = f"dropped {counted(event.dropped_turns, 'turn')}, kept {event.kept_turns}"
    shortened = (
        f", shortened {counted(len(event.shortened_messages), 'result')}" if event.shortened_messages else ""
    )
    saved = f"{event.tokens_before} → {event.tokens_after} tokens"
    view.say(f"prune: {dropped}{shortened}, {saved}; cache keeps {event.cached_after}", MEMORY)


def _prefill(view: EventPage, event: events.Prefill) -> None:
    if view.verbose:
        last = event.start + len(event.token_ids) - 1
        view.say(
            f"cache: {event.start} kept, {len(event.token_ids)} prefilled at {event.start}..{last}", "dim"
        )


def _generation(view: EventPage, event: events.Generation) -> None:
    passes = passes_per_second(len(event.token_ids), event.seconds)
    rate = "" if passes is None else f"{passes:.0f} tok/s, "
    note = "" if event.finish_reason == "stop" else f", ended by {event.finish_reason}"
    forced = ", forced" if event.forced else ""
    cached = f"{event.cached_tokens} of {event.prompt_tokens} prompt tokens cached"
    view.say(f"{len(event.token_ids)} tokens, {rate}{cached}{note}{forced}", "dim", INDENT)


def _tool_result(view: EventPage, event: events.ToolResult) -> None:
    text = _result_text(event, 2 if view.verbose else None) if event.ok else str(event.result)
    limit = len(text) if view.verbose else 3 * view.console.width - 20
    cut = text if len(text) <= limit else text[:limit] + " …"
    view.say(f"{event.function} → {cut}", TOOL if event.ok else BAD, INDENT)
    if view.verbose and event.failed_at:
        view.say(f"at {event.failed_at}", "dim", INDENT)


def _result_text(event: events.ToolResult, indent: int | None) -> str:
    """A result as JSON, its keys in the order of the text that the model reads where that has all of it.

    A record has keys sorted, and a run and its replay are drawn alike.
    """
    try:
        read = json.loads(event.text[max(0, event.text.find("{")) :])
    except (ValueError, RecursionError):
        read = None
    if read is not None and read == event.result:
        return json_text(read, indent)
    return json_text(event.result, indent, sort_keys=True)


def _audit(view: EventPage, event: events.Audit) -> None:
    if event.codes:
        view.say(f"AUDIT {event.level} FAILED at turn {event.turn}: {event.failure}", f"bold {BAD}")
    elif view.verbose:
        view.say(f"audit {event.level}: {event.detail}", "dim")


def _warning(view: EventPage, event: events.Warning) -> None:
    # Before the first turn nothing else says what it is about, nor on a stream of messages alone; within a
    # turn the feedback does.
    if view.messages is not view.console and event.turn:
        view.warn(f"warning: turn {event.turn}: {event.message}")
        return
    told = event.turn and event.code not in UNANSWERED
    view.warn(event.code if told else f"warning: {event.message}", INDENT * bool(event.turn))


def _error(view: EventPage, event: events.Error) -> None:
    view.say(f"error: {event.message}", f"bold {BAD}")


def _experiment_end(view: EventPage, event: events.ExperimentEnd) -> None:
    reason = f" ({event.reason})" if event.reason else ""
    text = f"{event.name}: {event.status} after {counted(event.turns, 'turn')}{reason}"
    view.say(text, STATUS_STYLES.get(event.status, ""))


SHOWN: dict[type, Callable[[EventPage, Any], None]] = {
    events.RunStart: _run_start,
    events.RunResumed: _run_resumed,
    events.ExperimentStart: _experiment_start,
    events.UserMessage: _user_message,
    events.Prune: _prune,
    events.Prefill: _prefill,
    events.Generation: _generation,
    events.ToolResult: _tool_result,
    events.Audit: _audit,
    events.Warning: _warning,
    events.Error: _error,
    events.ExperimentEnd: _experiment_end,
}
