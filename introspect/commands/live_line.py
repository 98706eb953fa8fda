"""The line at the foot of a run that goes on: where it is, how fast, and which tool keeps it waiting."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.text import Text

from introspect import events
from introspect.display import one_line
from introspect.events import Event
from introspect.tally import Tally, passes_per_second

SLOW_TOOL_SECONDS = 1.0
"""A tool that takes no longer than this is not worth a word."""
NEWS_SECONDS = 2.0
"""Between two lines about a tool's progress where no line is live."""


class LiveLine:
    """Turn, tokens, tokens per second, cache size and budget, on one line; or a tool and its seconds, or how
    far a prefill has come.

    `clock` gives seconds from any fixed point. One thread may ask for the line while another tells it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.experiment = ""
        self.turn = 0
        self.sampled = 0
        self.tally = Tally()
        self.cached = 0
        self.system = 0
        self.budget = 0
        self.began: float | None = None
        self.tool: tuple[str, float] | None = None
        self.share = ""
        self.last_news: float | None = None

    def take(self, event: Event) -> None:
        """Note what an event changes."""
        self.tally.take(event)
        if isinstance(event, events.RunStart):
            memory: Any = event.settings["memory"]
            self.system = event.system_tokens
            self.budget = self.system + memory["max_conversation_tokens"]
        elif isinstance(event, events.ExperimentStart):
            self.experiment, self.turn = one_line(event.name), 0
            self.sampled, self.began = 0, None
            if event.system_tokens is not None:
                self.budget += event.system_tokens - self.system
                self.system = event.system_tokens
        elif isinstance(event, events.Token):
            if self.began is None or event.sampled <= 1:
                self.began = self.clock()
            self.turn, self.sampled, self.cached = event.turn, event.sampled, event.cached_tokens
        elif isinstance(event, events.Generation):
            self.sampled, self.began = 0, None
            self.turn = event.turn
        # Only a call leaves a tool at work; whatever comes next, an error or an end, ends it.
        called = event.function[:40] if isinstance(event, events.ToolCall) else None
        self.tool = None if called is None else (one_line(called), self.clock())
        self.share, self.last_news = "", None

    def progress(self, what: str, done: int, total: int) -> str:
        """Note how far a tool or a prefill has come.

        Returns what is news where no line is live: once in NEWS_SECONDS.
        """
        self.share = one_line(f"{what} {100 * done // max(1, total)} %")
        now = self.clock()
        if self.last_news is None:
            self.last_news = now
        if now - self.last_news < NEWS_SECONDS:
            return ""
        self.last_news = now
        return self.share

    def text(self, width: int) -> Text:
        """The line, in at most `width` columns."""
        now, began, tool = self.clock(), self.began, self.tool
        seconds = now - began if began is not None else 0.0
        passes = passes_per_second(self.sampled, seconds) if seconds > 0.05 else None
        rate = "" if passes is None else f"{passes:5.1f} tok/s"
        parts = [
            self.experiment or "starting",
            f"turn {self.turn}",
            f"{self.tally.generated + self.sampled} tokens",
            rate,
            f"cache {self.cached} of {self.budget}",
        ]
        if tool is not None and now - tool[1] > SLOW_TOOL_SECONDS:
            parts[2:] = [f"{tool[0]} has been running for {now - tool[1]:.0f} s"]
        elif tool is None and self.share:  # a prefill: nothing is sampled yet
            parts[2:] = []
        parts.append(self.share)
        line = " · ".join(part for part in parts if part)
        return Text(line[: width - 1], style="black on cyan", no_wrap=True)
