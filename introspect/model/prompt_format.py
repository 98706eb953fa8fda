"""From messages to token ids, with the origin of every id. One class per family; ChatML today.

Control tokens come from the format alone. Text of any other origin is encoded by a copy of the tokenizer
that has no added tokens at all, so that `<|im_start|>` in a tool result is spelt out, never a control token.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tokenizers import Tokenizer

from introspect.errors import ModelError
from introspect.transcript import Message

Source = Literal["template", "system", "user", "tool", "sampled"]

_SOURCE: dict[str, Source] = {
    "task": "user",
    "memory_note": "user",
    "feedback": "user",
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
    """What the model should see now. The spans cover the ids exactly, in order."""

    token_ids: tuple[int, ...]
    spans: tuple[Span, ...]


class ChatML:
    """The ChatML format: `<|im_start|>role`, newline, content, `<|im_end|>`, newline; nothing is injected.

    Raises ModelError where the tokenizer lacks the control tokens, is not a byte-level BPE, or its own chat
    template writes anything else for a conversation that has a system message.
    """

    name = "chatml"

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.added_ids = frozenset(tokenizer.added_tokens_decoder)
        self._encoder = _without_added_tokens(tokenizer)
        self.start_id = _control_id(tokenizer, "<|im_start|>")
        self.end_id = _control_id(tokenizer, "<|im_end|>")
        self._segments: dict[tuple[str, str], tuple[tuple[int, ...], int]] = {}
        self._newline = self.encode("\n")

    def encode(self, text: str) -> tuple[int, ...]:
        """The ids of plain text; no added token of the tokenizer is ever among them."""
        return tuple(self._encoder.encode(_scrubbed(text)).ids)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of ids, control tokens spelt out."""
        return str(
            self.tokenizer.decode(
                list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    def render(self, system_prompt: str, window: Sequence[Message]) -> Prompt:
        """The prompt for the next reply: the system message, the window, and the opened reply."""
        ids: list[int] = []
        spans: list[Span] = []

        def add(source: Source, new: Sequence[int], message: int | None = None) -> None:
            if new:
                ids.extend(new)
                spans.append(Span(source, len(new), message))

        def add_message(role: str, text: str, source: Source, number: int | None) -> None:
            segment, header = self._segment(role, text)
            add("template", (self.start_id, *segment[:header]), number)
            add(source, segment[header:], number)
            add("template", (self.end_id, *self._newline), number)

        add_message("system", system_prompt, "system", None)
        for message in window:
            if message.kind == "reply":
                add("template", (self.start_id, *self.encode("assistant\n")), message.number)
                add("sampled", message.reply_ids, message.number)
                add("template", (self.end_id, *self._newline), message.number)
            else:
                add_message(message.role, message.text, _SOURCE[message.kind], message.number)
        add("template", (self.start_id, *self.encode("assistant\n")))
        return Prompt(tuple(ids), tuple(spans))

    def system_length(self, system_prompt: str) -> int:
        """Tokens of the system message, rendered."""
        return len(self._segment("system", system_prompt)[0]) + 2 + len(self._newline)

    def stop_ids(self, model_eos: int | Sequence[int] | None) -> frozenset[int]:
        """The ids that end a reply: the format's own control tokens and the model's end-of-text ids."""
        eos = [] if model_eos is None else [model_eos] if isinstance(model_eos, int) else list(model_eos)
        return frozenset({self.start_id, self.end_id, *eos})

    def _segment(self, role: str, text: str) -> tuple[tuple[int, ...], int]:
        """Ids of `role`, newline and text encoded as one, and how many of them lie in the header alone."""
        key = (role, text)
        if key not in self._segments:
            encoding = self._encoder.encode(_scrubbed(f"{role}\n{text}"))
            header = sum(end <= len(role) + 1 for _, end in encoding.offsets)
            self._segments[key] = (tuple(encoding.ids), header)
        return self._segments[key]


def prompt_format_for(tokenizer: Any, model_name: str) -> ChatML:
    """The format of a model's chat template. Raises ModelError, with the difference, for an unknown one."""
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError(f"{model_name}: its tokenizer has no chat template; use a ChatML instruct model")
    chat_format = ChatML(tokenizer)
    probe = [
        ("system", "Sys \n\n1"),
        ("user", "\n u1 {}"),
        ("assistant", "a1 <b>\n"),
        ("user", "  u2"),
    ]
    messages = [{"role": role, "content": content} for role, content in probe]
    try:
        written = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # a template is a program of the model's author and may raise anything
        raise ModelError(f"{model_name}: its chat template fails: {' '.join(str(error).split())}") from None
    expected = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in probe)
    expected += "<|im_start|>assistant\n"
    if written != expected:
        at = next(
            (i for i, (a, b) in enumerate(zip(written, expected, strict=False)) if a != b),
            min(len(written), len(expected)),
        )
        raise ModelError(
            f"{model_name}: its chat template is not ChatML: at character {at} it writes"
            f" {written[at : at + 40]!r} where ChatML has {expected[at : at + 40]!r};"
            " use a ChatML instruct model such as Qwen/Qwen2.5-3B-Instruct"
        )
    return chat_format


def _control_id(tokenizer: Any, token: str) -> int:
    for token_id, added in tokenizer.added_tokens_decoder.items():
        if added.content == token:
            return int(token_id)
    raise ModelError(f"the tokenizer has no control token {token}; use a ChatML instruct model")


def _without_added_tokens(tokenizer: Any) -> Tokenizer:
    """A copy of the tokenizer that cannot produce any of its added tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError("the tokenizer has no tokenizer.json; use a model that ships one")
    spec = json.loads(backend.to_str())
    if spec["model"]["type"] != "BPE":
        raise ModelError(f"the tokenizer is {spec['model']['type']}, not BPE; use a ChatML instruct model")
    removed = {added["content"] for added in spec["added_tokens"]}
    model = spec["model"]
    model["vocab"] = {token: number for token, number in model["vocab"].items() if token not in removed}
    model["merges"] = [pair for pair in model["merges"] if "".join(pair) not in removed]
    spec.update(added_tokens=[], post_processor=None, padding=None, truncation=None)
    return Tokenizer.from_str(json.dumps(spec))


def _scrubbed(text: str) -> str:
    """The text with lone surrogates, which no tokenizer can encode, replaced."""
    return text.encode("utf-8", "replace").decode("utf-8")
