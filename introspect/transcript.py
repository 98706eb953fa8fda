"""The conversation of one experiment: what was said, and what of it the model still sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

MessageKind = Literal["task", "memory_note", "reply", "tool_result", "feedback", "last_reply"]


@dataclass(frozen=True)
class Message:
    """One message. A reply keeps the ids that were sampled: it is never tokenised again.

    `number` counts the messages of the experiment from 0. `reply_ids` are without the end token.
    `function` is the tool that a reply called, or that a tool result came from.
    """

    number: int
    kind: MessageKind
    text: str
    reply_ids: tuple[int, ...] = ()
    function: str | None = None

    @property
    def role(self) -> Literal["user", "assistant"]:
        return "assistant" if self.kind == "reply" else "user"


@dataclass(frozen=True)
class Transcript:
    """Every message of an experiment, with the window that is left of it. A value: changes make a new one.

    The window is the task, then a memory note where anything was dropped, then the messages that were not
    dropped; `shortened` holds the text that stands in for a message too large to keep whole.
    """

    messages: tuple[Message, ...] = ()
    dropped: frozenset[int] = frozenset()
    shortened: Mapping[int, str] = field(default_factory=dict)
    memory_note: str = ""

    def append(self, kind: MessageKind, text: str, **fields: object) -> Transcript:
        """The transcript with one more message at its end."""
        message = Message(len(self.messages), kind, text, **fields)  # type: ignore[arg-type]
        return replace(self, messages=(*self.messages, message))

    def window(self) -> list[Message]:
        """The messages that the model sees now, in order."""
        visible = [
            replace(message, text=self.shortened.get(message.number, message.text))
            for message in self.messages
            if message.number not in self.dropped
        ]
        if self.memory_note:
            visible.insert(1, Message(-1, "memory_note", self.memory_note))
        return visible

    def turns(self) -> list[tuple[Message, ...]]:
        """The visible turns, oldest first: each a reply with the messages that answer it."""
        turns: list[list[Message]] = []
        for message in self.window():
            if message.kind == "reply":
                turns.append([message])
            elif turns:
                turns[-1].append(message)
        return [tuple(turn) for turn in turns]

    def tools_in_view(self) -> frozenset[str]:
        """The tools whose result the model sees now."""
        return frozenset(m.function for m in self.window() if m.kind == "tool_result" and m.function)

    def awaits_last_reply(self) -> bool:
        """Whether the model was told that its next reply is the last of the experiment."""
        return bool(self.messages) and self.messages[-1].kind == "last_reply"

    def dropped_calls(self) -> dict[str, int]:
        """How often each tool was called in what has been dropped."""
        calls: dict[str, int] = {}
        for message in self.messages:
            if message.number in self.dropped and message.kind == "reply":
                name = message.function or "no call"
                calls[name] = calls.get(name, 0) + 1
        return calls
