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
_SEPARATOR = " · "
NEWS_SECONDS = 2.0
"""Between two lines about a tool's progress where no line is live."""


class LiveLine:
    """Which experiment of how many, turn, time since the run began, and then tokens, tokens per second, cache
    size and budget; or a tool and its seconds, or how far a prefill has come. On one line.

    `clock` gives seconds from any fixed point, `limit` is how many experiments are made at most. One thread
    may ask for the line while another tells it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, limit: int | None = None) -> None:
        self.clock = clock
        self.limit = limit
        self.started = clock()
        self.experiment = ""
        self.number = 0
        self.experiments = 0
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
            settings: Any = event.settings
            self.system = event.system_tokens
            self.budget = self.system + settings["memory"]["max_conversation_tokens"]
            self.experiments = len(settings.get("experiments", ())[: self.limit])
            self.started = self.clock()
        elif isinstance(event, events.ExperimentStart):
            self.experiment, self.turn = one_line(event.name), 0
            self.number = event.experiment + 1
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
        """The line, in at most `width` columns: what matters least is left out where it has no room."""
        now, began, tool = self.clock(), self.began, self.tool
        seconds = now - began if began is not None else 0.0
        passes = passes_per_second(self.sampled, seconds) if seconds > 0.05 else None
        of = f" of {self.experiments}" if self.experiments else ""
        place = f"{self.number}{of}" if self.number else "starting"
        parts = {
            "name": self.experiment,
            "turn": f"turn {self.turn}" if self.number else "",
            "elapsed": elapsed(now - self.started),
            "tokens": f"{self.tally.generated + self.sampled} tokens",
            "rate": "" if passes is None else f"{passes:.1f} tok/s",
            "cache": f"cache {self.cached} of {self.budget}",
            "share": self.share,
        }
        working = tool is not None and now - tool[1] > SLOW_TOOL_SECONDS
        if tool is not None and working:
            parts["tool"] = f"{tool[0]} has been running for {now - tool[1]:.0f} s"
        if working or (tool is None and self.share):  # in a prefill nothing is sampled yet
            parts |= dict.fromkeys(("tokens", "rate", "cache"), "")
        head = f"experiment {place}" if self.number else place
        for dropped in ("", "cache", "name", "rate", "head", "tokens", "elapsed"):
            head = place if dropped == "head" else head
            parts[dropped] = ""
            line = _SEPARATOR.join(part for part in (head, *parts.values()) if part)
            if len(line) < width:
                break
        return Text(line[: width - 1], style="black on cyan", no_wrap=True)


def elapsed(seconds: float) -> str:
    """A time as a clock shows it: `0:07`, `1:02:03`."""
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
