"""The line at the foot of a run that goes on."""

from __future__ import annotations

import time
from typing import Any

from rich.text import Text

from introspect import events
from introspect.display import one_line
from introspect.events import Event

NEWS_SECONDS = 2.0


class LiveLine:
    """Turn, tokens, tokens per second, cache size and budget, and how far a tool has come, on one line."""

    def __init__(self) -> None:
        self.experiment = ""
        self.turn = 0
        self.sampled = 0
        self.total = 0
        self.cached = 0
        self.budget = 0
        self.began: float | None = None
        self.tool = ""
        self.told: float | None = None

    def take(self, event: Event) -> None:
        self.tool, self.told = "", None
        if isinstance(event, events.RunStart):
            memory: Any = event.settings["memory"]
            self.budget = event.system_tokens + memory["max_conversation_tokens"]
        elif isinstance(event, events.ExperimentStart):
            self.experiment, self.turn = one_line(event.name), 0
        elif isinstance(event, events.Token):
            if self.began is None or event.sampled <= 1:
                self.began = time.monotonic()
            self.turn, self.sampled, self.cached = event.turn, event.sampled, event.cached_tokens
        elif isinstance(event, events.Generation):
            self.total += len(event.token_ids)
            self.sampled, self.began = 0, None
            self.turn = event.turn

    def progress(self, what: str, done: int, total: int) -> str:
        """Note how far a tool has come. Returns what is news where no line is live: once in NEWS_SECONDS."""
        self.tool = one_line(f"{what} {100 * done // max(1, total)} %")
        now = time.monotonic()
        if self.told is None:
            self.told = now
        if now - self.told < NEWS_SECONDS:
            return ""
        self.told = now
        return self.tool

    def text(self, width: int) -> Text:
        seconds = time.monotonic() - self.began if self.began else 0.0
        rate = f"{(self.sampled - 1) / seconds:5.1f} tok/s" if seconds > 0.05 and self.sampled > 1 else ""
        parts = [
            self.experiment or "starting",
            f"turn {self.turn}",
            f"{self.total + self.sampled} tokens",
            rate,
            f"cache {self.cached} of {self.budget}",
            self.tool,
        ]
        line = " · ".join(part for part in parts if part)
        return Text(line[: width - 1], style="black on cyan", no_wrap=True)
