"""The conversation of one experiment: what was said, and what of it the model still sees."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
    """What is left of the messages of an experiment. A value: changes make a new one.

    The window is the task, then a memory note where anything was dropped, then the `messages` that were not.
    `count` is how many there ever were. Of those that were dropped `dropped_calls` says how often each tool
    was called in them, and nothing else is kept: an experiment takes as much memory however long it is.
    `shortened` holds the text that stands in for a message too large to keep whole.
    """

    messages: tuple[Message, ...] = ()
    count: int = 0
    dropped_calls: Mapping[str, int] = field(default_factory=dict)
    shortened: Mapping[int, str] = field(default_factory=dict)
    memory_note: str = ""

    def append(self, kind: MessageKind, text: str, **fields: object) -> Transcript:
        """The transcript with one more message at its end."""
        message = Message(self.count, kind, text, **fields)  # type: ignore[arg-type]
        return replace(self, messages=(*self.messages, message), count=self.count + 1)

    def drop(self, numbers: Collection[int]) -> Transcript:
        """The transcript without some of its messages; the memory note is as it was."""
        calls = dict(self.dropped_calls)
        for message in self.messages:
            if message.number in numbers and message.kind == "reply":
                name = message.function or "no call"
                calls[name] = calls.get(name, 0) + 1
        return replace(
            self,
            messages=tuple(message for message in self.messages if message.number not in numbers),
            dropped_calls=calls,
            shortened={number: text for number, text in self.shortened.items() if number not in numbers},
        )

    def window(self) -> list[Message]:
        """The messages that the model sees now, in order."""
        visible = [
            replace(message, text=self.shortened.get(message.number, message.text))
            for message in self.messages
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
