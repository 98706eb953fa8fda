"""What a run looks like while it goes on: a readable stream, a live line, a table at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.text import Text

from introspect import events
from introspect.commands.live_line import LiveLine
from introspect.display import counted, one_line, printable
from introspect.engine.out_of_memory import FORECAST, OUT_OF_MEMORY
from introspect.events import Event
from introspect.tally import passes_per_second

INDENT = 2
STATUS_STYLES = {"complete": "green", "limited": "yellow", "failed": "red", "corrupt": "bold red"}


class RunView:
    """Shows events as they come. `quiet` shows what has gone wrong only, `verbose` cache and audits too.

    One lock is held over everything that is printed and every drawing of the live region: rich's own thread
    draws between the moment that a print measures the region and the moment that it is written, and lines of
    the reply are erased with it.
    """

    def __init__(
        self,
        console: Console,
        quiet: bool = False,
        verbose: bool = False,
        clock: Callable[[], float] = time.monotonic,
        refresh_per_second: float = 8.0,
    ) -> None:
        self.console = console
        self.quiet = quiet
        self.verbose = verbose
        self._partial = ""
        self._streamed = ""
        self._headed: tuple[int, int] | None = None
        self._line = LiveLine(clock)
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._pause = 1 / refresh_per_second
        self._live: Live | None = None
        if console.is_terminal and not quiet:
            # Asked at each refresh, not told at each event: it moves while a tool runs and nothing comes.
            self._live = Live(
                console=console, get_renderable=self._region, auto_refresh=False, transient=True
            )

    def __enter__(self) -> RunView:
        if self._live:
            self._live.start()
            threading.Thread(target=self._draw, args=(self._live,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        with self._lock:
            self._flush()
            if self._live:
                self._live.stop()

    def show(self, event: Event) -> None:
        """Show one event."""
        with self._lock:
            self._show(event)

    def _show(self, event: Event) -> None:
        self._line.take(event)
        if isinstance(event, events.Token):
            self._stream(event.experiment, event.turn, event.text)
        else:
            show = _SHOWN.get(type(event))
            failed_audit = isinstance(event, events.Audit) and bool(event.codes)
            loud = failed_audit or isinstance(event, events.Error)
            if isinstance(event, events.Generation):
                self._end_of_reply(event)
            if show is not None and (loud or not self.quiet):
                self._flush()
                show(self, event)

    def progress(self, what: str, done: int, total: int) -> None:
        """Show how far a long tool has come: on the live line, or now and then in a line of its own."""
        with self._lock:
            news = self._line.progress(what, done, total)
            if news and not self._live and not self.quiet:
                self.say(news, "dim", INDENT)

    def say(self, text: str, style: str = "", indent: int = 0) -> None:
        """Print a paragraph of foreign text without effect; `indent` in columns, of its every line."""
        shown = Text(printable(text), style=style)
        if self.console.is_terminal or self.console.record:
            self.console.print(Padding(shown, (0, 0, 0, indent)))
        else:
            self.console.print(Text(" " * indent) + shown, soft_wrap=True)

    def _stream(self, experiment: int, turn: int, text: str) -> None:
        """Show a piece of a reply, under a heading where it is the first."""
        if self._headed != (experiment, turn):
            self._headed, self._streamed = (experiment, turn), ""
            if not self.quiet:
                self.console.print()
                self.say(f"turn {turn}", "bold")
        self._streamed += text
        if self.quiet:
            return
        *whole, self._partial = (self._partial + text).split("\n")
        for line in whole:
            self.say(line, indent=INDENT)

    def _end_of_reply(self, event: events.Generation) -> None:
        """Show what no token event has shown: a half of a character is withheld, also at a reply's end."""
        streamed = self._streamed if self._headed == (event.experiment, event.turn) else ""
        rest = event.text.removeprefix(streamed)
        if rest and event.text.startswith(streamed):
            self._stream(event.experiment, event.turn, rest)
        self._flush()

    def _flush(self) -> None:
        if self._partial and not self.quiet:
            self.say(self._partial, indent=INDENT)
        self._partial = ""

    def _draw(self, live: Live) -> None:
        """Draw the live region again and again until the view ends; a thread of its own."""
        while not self._ended.wait(self._pause):
            with self._lock:
                if not self._ended.is_set():
                    live.refresh()

    def _region(self) -> RenderableType:
        parts: list[RenderableType] = []
        if self._partial:
            parts.append(Padding(Text(printable(self._partial)), (0, 0, 0, INDENT)))
        parts.append(self._line.text(self.console.width))
        return Group(*parts)


def _run_start(view: RunView, event: events.RunStart) -> None:
    made = event.environment
    line = made.get("placement") or f"{made.get('dtype')} on {made.get('device')}"
    view.say(f"{one_line(event.model)}: {line}", "dim")


def _experiment_start(view: RunView, event: events.ExperimentStart) -> None:
    view.console.rule(Text(one_line(f"{event.experiment + 1}. {event.name}")), style="dim")
    view.say(event.task, "bold")


def _user_message(view: RunView, event: events.UserMessage) -> None:
    if event.kind in ("feedback", "last_reply"):
        view.say(f"→ {event.text}", "yellow", INDENT)


def _prune(view: RunView, event: events.Prune) -> None:
    if event.refused:
        view.say(f"prune refused: {event.refused}", "yellow")
        return
    dropped = f"dropped {counted(event.dropped_turns, 'turn')}, kept {event.kept_turns}"
    shortened = (
        f", shortened {counted(len(event.shortened_messages), 'result')}" if event.shortened_messages else ""
    )
    saved = f"{event.tokens_before} → {event.tokens_after} tokens"
    view.say(f"prune: {dropped}{shortened}, {saved}; cache keeps {event.cached_after}", "magenta")


def _prefill(view: RunView, event: events.Prefill) -> None:
    if view.verbose:
        last = event.start + len(event.token_ids) - 1
        view.say(
            f"cache: {event.start} kept, {len(event.token_ids)} prefilled at {event.start}..{last}", "dim"
        )


def _generation(view: RunView, event: events.Generation) -> None:
    passes = passes_per_second(len(event.token_ids), event.seconds)
    rate = "" if passes is None else f"{passes:.0f} tok/s, "
    note = "" if event.finish_reason == "stop" else f", ended by {event.finish_reason}"
    forced = ", forced" if event.forced else ""
    cached = f"{event.cached_tokens} of {event.prompt_tokens} prompt tokens cached"
    view.say(f"{len(event.token_ids)} tokens, {rate}{cached}{note}{forced}", "dim", INDENT)


def _tool_result(view: RunView, event: events.ToolResult) -> None:
    from introspect.tools.context import to_json

    text = to_json(event.result) if event.ok else str(event.result)
    limit = 10_000 if view.verbose else 3 * view.console.width - 20
    cut = text if len(text) <= limit else text[:limit] + " …"
    view.say(f"{event.function} → {cut}", "cyan" if event.ok else "red", INDENT)


def _audit(view: RunView, event: events.Audit) -> None:
    if event.codes:
        view.say(f"AUDIT {event.level} FAILED at turn {event.turn}: {event.failure}", "bold red")
    elif view.verbose:
        view.say(f"audit {event.level}: {event.detail}", "dim")


def _warning(view: RunView, event: events.Warning) -> None:
    short_of_memory = event.code in (OUT_OF_MEMORY, FORECAST)
    if short_of_memory:
        # The turn is tried again from its beginning.
        view._headed = None
    # Before the first turn nothing else says what it is about; within one the feedback does.
    told = event.turn and not short_of_memory
    view.say(event.code if told else f"warning: {event.message}", "yellow", INDENT * bool(event.turn))


def _error(view: RunView, event: events.Error) -> None:
    view.say(f"error: {event.message}", "bold red")


def _experiment_end(view: RunView, event: events.ExperimentEnd) -> None:
    reason = f" ({event.reason})" if event.reason else ""
    text = f"{event.name}: {event.status} after {counted(event.turns, 'turn')}{reason}"
    view.say(text, STATUS_STYLES.get(event.status, ""))


_SHOWN: dict[type, Callable[[RunView, Any], None]] = {
    events.RunStart: _run_start,
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
