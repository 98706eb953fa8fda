"""What a prompt is, and what every prompt format can do. The formats are in modules of their own.

Control tokens come from the format alone. Text of any other origin is encoded by a copy of the tokenizer
that has no added tokens at all, so that `<|im_start|>` in a tool result is spelt out, never a control token.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from introspect.prompt.content_encoder import ContentEncoder
from introspect.prompt.families import Framing
from introspect.prompt.reply_stream import ReplyStream
from introspect.prompt.tool_framing import ToolFraming
from introspect.transcript import Message

Source = Literal["template", "system", "user", "tool", "sampled"]

SOURCE_OF: dict[str, Source] = {
    "task": "user",
    "memory_note": "user",
    "feedback": "user",
    "last_reply": "user",
    "tool_result": "tool",
    "reply": "sampled",
}


@dataclass(frozen=True)
class Span:
    """`length` ids in a row of one origin. `message` is the number of the message, None outside one."""

    source: Source
    length: int
    message: int | None


@dataclass(frozen=True)
class Prompt:
    """What the model should see now. The spans cover the ids exactly, in order; the last opens the reply."""

    token_ids: tuple[int, ...]
    spans: tuple[Span, ...]


class PromptBuilder:
    """A prompt in the making: ids with the span of each, message by message."""

    def __init__(self, encoder: ContentEncoder) -> None:
        self._encoder = encoder
        self.ids: list[int] = []
        self._spans: list[Span] = []
        self._message: int | None = None
        self._fresh = True

    def begin(self, message: int | None) -> None:
        """What is added from now on belongs to this message."""
        self._message, self._fresh = message, True

    def add(self, source: Source, token_ids: Sequence[int]) -> None:
        """Append ids of one origin."""
        if not token_ids:
            return
        self.ids.extend(token_ids)
        if not self._fresh and self._spans[-1].source == source:
            last = self._spans.pop()
            self._spans.append(Span(source, last.length + len(token_ids), self._message))
        else:
            self._spans.append(Span(source, len(token_ids), self._message))
        self._fresh = False

    def add_text(self, before: str, source: Source, content: str, after: str = "") -> None:
        """Append content with what the format writes before and after it, encoded as one."""
        head, ids, tail = self._encoder.stretch(before, content, after)
        self.add("template", head)
        self.add(source, ids)
        self.add("template", tail)

    def add_framed(self, before: str, source: Source, content: str, after: str = "") -> None:
        """Append content between texts of a template, in which control tokens are spelt out."""
        *head, last = self._encoder.split_control(before)
        first, *tail = self._encoder.split_control(after)
        self._add_pieces(head)
        self.add_text(str(last), source, content, str(first))
        self._add_pieces(tail)

    def _add_pieces(self, pieces: Sequence[str | int]) -> None:
        for piece in pieces:
            if isinstance(piece, int):
                self.add("template", (piece,))
            else:
                self.add_text(piece, "template", "")

    def prompt(self) -> Prompt:
        return Prompt(tuple(self.ids), tuple(self._spans))


class PromptFormat(ABC):
    """From messages to token ids, with the origin of every id; and from ids back to text.

    Nothing is injected, ids that were sampled stay as sampled, and a further message only appends ids to
    what stands before the opened reply. `end_id` ends a reply whose text is given; `added_ids` are the
    control tokens of the tokenizer, this format's among them. `framing` is the format as text.
    """

    name: ClassVar[str]
    end_id: int

    def __init__(self, tokenizer: Any, framing: Framing) -> None:
        self.tokenizer = tokenizer
        self.framing = framing
        self.encoder = ContentEncoder(tokenizer)
        self.added_ids = self.encoder.added_ids

    @abstractmethod
    def render(
        self, system_prompt: str, window: Sequence[Message], tools: ToolFraming | None = None
    ) -> Prompt:
        """The prompt for the next reply: the system message, the window, and the opened reply.

        With `tools`, results stand as tools' answers, and the tool block where the template puts it.
        """

    @abstractmethod
    def system_length(self, system_prompt: str, tools: ToolFraming | None = None) -> int:
        """Ids that every prompt with this system prompt, and these tools, begins with."""

    @abstractmethod
    def control_ids(self) -> frozenset[int]:
        """The control tokens that this format writes or ends a reply with."""

    def encode(self, text: str) -> tuple[int, ...]:
        """The ids of plain text; no control token of the tokenizer is ever among them."""
        return self.encoder.encode(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of ids, control tokens spelt out."""
        return self.encoder.decode(token_ids)

    def stop_ids(self, model_eos: int | Sequence[int] | None) -> frozenset[int]:
        """The ids that end a reply: the format's own control tokens and the model's end-of-text ids."""
        eos = [] if model_eos is None else [model_eos] if isinstance(model_eos, int) else list(model_eos)
        return frozenset({*self.control_ids(), *eos})

    def reply_stream(self) -> ReplyStream:
        """What tells the text of a reply, and where it ends, while its ids are sampled."""
        return ReplyStream(self.decode, self.encoder.byte_ids)

    def end_length(self, token_ids: Sequence[int]) -> int:
        """How many of the last sampled ids open another message in text; 0 where the reply goes on."""
        return self.reply_stream().end_length(token_ids)

    def content_ids(self, token_ids: Sequence[int], finish_reason: str | None) -> tuple[int, ...]:
        """The sampled ids of a reply without those that ended it."""
        ended = max(1, self.end_length(token_ids)) if finish_reason == "stop" else 0
        return tuple(token_ids[: len(token_ids) - ended])
