"""What a teacher sees of a session: the calls in the window, and those that the memory note counts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from introspect.session.session import Session
from introspect.tools.calls.actions import CallRequest
from introspect.tools.calls.parsing import parse_reply
from introspect.tools.calls.shortening import RESULT_HEADER


@dataclass(frozen=True)
class Call:
    """A call in the window with what came of it; `result` is the error text where `ok` is false."""

    function: str
    arguments: dict[str, Any]
    ok: bool
    result: Any
    reasoning: str


@dataclass(frozen=True)
class View:
    """`calls` are those of the visible turns; `feedback` says that the last message is feedback."""

    calls: tuple[Call, ...]
    dropped: dict[str, int]
    feedback: bool

    @property
    def last(self) -> Call | None:
        return self.calls[-1] if self.calls else None

    def count(self, function: str) -> int:
        """How often a tool was called in this experiment, as far as the window tells."""
        return sum(c.function == function for c in self.calls) + self.dropped.get(function, 0)

    @property
    def total(self) -> int:
        return len(self.calls) + sum(n for name, n in self.dropped.items() if name != "no call")

    def latest(self, function: str) -> Call | None:
        return next((c for c in reversed(self.calls) if c.function == function and c.ok), None)


def view_of(session: Session) -> View:
    """Read the window of a session."""
    calls = []
    turns = session.transcript.turns()
    for turn in turns:
        action = parse_reply(turn[0].text, False, 0)
        result = next((m.text for m in turn[1:] if m.kind == "tool_result"), None)
        if isinstance(action, CallRequest) and result is not None:
            body = json.loads(result.removeprefix(RESULT_HEADER))
            ok = "result" in body
            said = body["result" if ok else "error"]
            calls.append(Call(action.function, action.arguments, ok, said, action.reasoning))
    feedback = bool(turns) and turns[-1][-1].kind == "feedback"
    return View(tuple(calls), dict(session.transcript.dropped_calls), feedback)
