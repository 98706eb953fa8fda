"""What a run looks like while it goes on: a readable stream, a live line, a table at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.text import Text

from introspect import events
from introspect.commands.event_page import INDENT, SHOWN, UNANSWERED, EventPage
from introspect.commands.live_line import LiveLine
from introspect.display import printable
from introspect.events import Event


class RunView(EventPage):
    """Shows events as they come. `quiet` shows what has gone wrong only, `verbose` cache, audits and whole
    results too; `live` has a line at the foot of a terminal. `limit` is how many experiments are made.

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
        live: bool = True,
        limit: int | None = None,
    ) -> None:
        super().__init__(console, verbose)
        self.quiet = quiet
        self._partial = ""
        self._streamed = ""
        self._headed: tuple[int, int] | None = None
        self._line = LiveLine(clock, limit)
        self._told = live
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._pause = 1 / refresh_per_second
        self._live: Live | None = None
        if live and console.is_terminal and not quiet:
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

    def recall(self, event: Event) -> None:
        """Know of an event that was shown before, by another program."""
        with self._lock:
            if self._told:
                self._line.take(event)

    def _show(self, event: Event) -> None:
        if self._told:
            self._line.take(event)
        if isinstance(event, events.Token):
            self._stream(event.experiment, event.turn, event.text)
        else:
            show = SHOWN.get(type(event))
            failed_audit = isinstance(event, events.Audit) and bool(event.codes)
            loud = failed_audit or isinstance(event, events.Error)
            if isinstance(event, events.Generation):
                self._end_of_reply(event)
            if show is not None and (loud or not self.quiet):
                self._flush()
                show(self, event)
            if isinstance(event, events.Warning) and event.code in UNANSWERED:
                self._headed = None

    def progress(self, what: str, done: int, total: int) -> None:
        """Show how far a long tool has come: on the live line, or now and then in a line of its own."""
        with self._lock:
            news = self._line.progress(what, done, total)
            if news and not self._live and not self.quiet:
                self.say(news, "dim", INDENT, self.messages)

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
