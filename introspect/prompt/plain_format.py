"""The format for models without a chat template: roles spelt in text, at the beginning of a line.

    System: ...

    User: ...

    Assistant: ...

What content cannot do: begin a line with a role. Every line of it but the first, which follows the role, is
indented, so that the format alone writes at the beginning of a line. A reply ends where the model itself
begins a line with a role. The limit of it: this is text, and a model may still take an indented line, or a
role in mid-line, for one; nothing but control tokens could rule that out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from introspect.errors import ModelError
from introspect.prompt.content_encoder import control_id
from introspect.prompt.families import Framing
from introspect.prompt.prompt import SOURCE_OF, Prompt, PromptBuilder, PromptFormat, Source
from introspect.prompt.reply_stream import ReplyStream
from introspect.prompt.tool_framing import ToolFraming
from introspect.transcript import Message

ROLES = {"system": "System", "user": "User", "assistant": "Assistant"}
"""How a role is spelt at the beginning of a line: words that base models have met in dialogues."""
INDENT = "  "
"""Before every line of content but the first: any white space keeps a role from the beginning of a line."""
BETWEEN = "\n\n"
"""Between two messages, as writers leave an empty line between speakers."""

_BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_LINE_BREAK = re.compile(f"(?:\r\n|[{_BREAKS}])(?!\\Z)")
_ROLE_LINE = re.compile(f"[{_BREAKS}](?:{'|'.join(ROLES.values())}):")
_LONGEST_ROLE_LINE = max(map(len, ROLES.values())) + 2
"""Characters of a line break, a role and a colon: what is searched again of the text before a new id."""


class Plain(PromptFormat):
    """Roles spelt in text. `end_id` is the tokenizer's end-of-text token; it is never part of a prompt.

    Raises ModelError where the tokenizer names no end-of-text token or is no BPE that can spell every text.
    """

    name = "plain"

    def __init__(self, tokenizer: Any, framing: Framing | None = None) -> None:
        super().__init__(tokenizer, framing or Framing(None))
        if tokenizer.eos_token_id is None:
            raise ModelError("the tokenizer names no end-of-text token; use a model whose tokenizer has one")
        self.end_id = int(tokenizer.eos_token_id)
        opening = self.framing.opening
        self._opening = (control_id(tokenizer, opening),) if opening else ()
        self._between = self.encode(BETWEEN)

    def control_ids(self) -> frozenset[int]:
        return frozenset({self.end_id, *self._opening})

    def render(
        self, system_prompt: str, window: Sequence[Message], tools: ToolFraming | None = None
    ) -> Prompt:
        builder = self._with_system(system_prompt)
        for message in window:
            builder.begin(message.number)
            if message.kind == "reply":
                self._open_reply(builder)
                builder.add("sampled", message.reply_ids)
                builder.add("template", self._between)
            else:
                _say(builder, message.role, message.text, SOURCE_OF[message.kind])
        builder.begin(None)
        self._open_reply(builder)
        return builder.prompt()

    def system_length(self, system_prompt: str, tools: ToolFraming | None = None) -> int:
        return len(self._with_system(system_prompt).ids)

    def reply_stream(self) -> ReplyStream:
        return RoleLineStream(self.decode, self.encoder.byte_ids)

    def _with_system(self, system_prompt: str) -> PromptBuilder:
        builder = PromptBuilder(self.encoder)
        builder.add("template", self._opening)
        _say(builder, "system", system_prompt, "system")
        return builder

    def _open_reply(self, builder: PromptBuilder) -> None:
        builder.add_text(f"{ROLES['assistant']}:", "template", "")


class RoleLineStream(ReplyStream):
    """A reply that ends before the line that the model begins with a role, and before the blanks above it.

    An id whose text reaches into those blanks is not part of the reply.
    """

    _kept: int | None = None

    def end_length(self, token_ids: Sequence[int]) -> int:
        self.read(token_ids)
        return len(token_ids) - self._kept if self._kept is not None else 0

    def _read_one(self, token_ids: Sequence[int]) -> None:
        searched = max(0, len(self._text) - _LONGEST_ROLE_LINE)
        super()._read_one(token_ids)
        text = self._text + self._uncertain
        role_line = _ROLE_LINE.search(text, searched)
        if role_line is not None and self._kept is None:
            self._kept = self._ids_within(token_ids, len(text[: role_line.start()].rstrip()))

    def _ids_within(self, token_ids: Sequence[int], most: int) -> int:
        """How many of the ids spell no more than `most` characters of the text that was not given out."""
        start = self._returned
        for stop, characters in self._pieces:
            if characters > most:
                break
            start, most = stop, most - characters
        kept = self._read
        while kept > start and len(self._decode(token_ids[start:kept])) > most:
            kept -= 1
        return kept

    def _givable(self) -> int:
        """Pieces before the first that may be the beginning of what ends the reply."""
        text = self._text
        line = max(map(text.rfind, _BREAKS)) + 1
        opens_role = line > 0 and any(f"{role}:".startswith(text[line:]) for role in ROLES.values())
        certain = len((text[:line] if opens_role else text).rstrip())
        count = 0
        for _, characters in self._pieces:
            certain -= characters
            count += certain >= 0
        return count


def _say(builder: PromptBuilder, role: str, text: str, source: Source) -> None:
    builder.add_text(f"{ROLES[role]}: ", source, indented(text), BETWEEN)


def indented(text: str) -> str:
    """The text with every line after the first moved away from the beginning of the line."""
    return _LINE_BREAK.sub(lambda found: found[0] + INDENT, text)
