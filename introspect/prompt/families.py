"""Families of chat formats as text: what stands around a message. Values; no tokenizer is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

JOIN = "\n\n"
"""Between two messages that share one turn."""

Messages = Sequence[tuple[str, str]]
"""Role and text of each message; the roles are system, user and assistant."""


@dataclass(frozen=True)
class ChatFamily:
    """How a family writes a turn: `start`, role, `header_end`, `gap`, content, `end`, `after`.

    `start`, `header_end` and `end` are control tokens. `opening` and `trims` are what the family's own
    templates have where nothing was measured. Where there is no `system_role`, turns must alternate: the
    system text stands at the head of the first user turn, and user messages in a row share a turn.
    """

    name: str
    title: str
    start: str
    header_end: str
    gap: str
    end: str
    after: str
    opening: str = ""
    trims: bool = False
    assistant: str = "assistant"
    system_role: bool = True

    @property
    def control(self) -> tuple[str, ...]:
        return tuple(token for token in (self.start, self.header_end, self.end) if token)

    @property
    def footer(self) -> str:
        return self.end + self.after

    def role(self, role: str) -> str:
        """A role as the family spells it."""
        return self.assistant if role == "assistant" else role

    def header(self, role: str) -> str:
        return f"{self.start}{self.role(role)}{self.header_end}{self.gap}"

    def turns(self, messages: Messages) -> list[tuple[str, str]]:
        """The messages as turns that the family's own template takes; shared turns are joined."""
        if self.system_role:
            return list(messages)
        turns: list[tuple[str, str]] = []
        for role, text in messages:
            if role == "assistant" or not turns or turns[-1][0] == "assistant":
                turns.append(("assistant" if role == "assistant" else "user", text))
            else:
                turns[-1] = ("user", JOIN.join(part for part in (turns[-1][1], text) if part))
        return turns


CHATML = ChatFamily(
    name="chatml",
    title="ChatML",
    start="<|im_start|>",
    header_end="",
    gap="\n",
    end="<|im_end|>",
    after="\n",
)
LLAMA3 = ChatFamily(
    name="llama3",
    title="Llama 3",
    start="<|start_header_id|>",
    header_end="<|end_header_id|>",
    gap="\n\n",
    end="<|eot_id|>",
    after="",
    opening="<|begin_of_text|>",
    trims=True,
)
GEMMA = ChatFamily(
    name="gemma",
    title="Gemma",
    start="<start_of_turn>",
    header_end="",
    gap="\n",
    end="<end_of_turn>",
    after="\n",
    opening="<bos>",
    trims=True,
    assistant="model",
    system_role=False,
)
CHAT_FAMILIES = (CHATML, LLAMA3, GEMMA)


@dataclass(frozen=True)
class Framing:
    """What one model's template was measured to write around messages; `family` is None without a template.

    `opening` is the control token before everything, if any. `trims`: white space at the edges of every
    message is dropped. `system_prose` is text that the template puts before and after the given system text;
    it is never rendered here.
    """

    family: ChatFamily | None
    opening: str = ""
    trims: bool = False
    system_prose: tuple[str, str] = ("", "")

    def text(self, messages: Messages) -> str:
        """The whole prompt as the template of such a family writes it, with its prose."""
        family = self.family
        assert family is not None
        before, after = self.system_prose
        written = self.opening
        for role, content in family.turns(messages):
            shown = content.strip() if self.trims else content
            if role == "system":
                shown = before + shown + after
            written += family.header(role) + shown + family.footer
        return written + family.header("assistant")

    def described(self) -> dict[str, object]:
        """The framing for the record of a run."""
        before, after = self.system_prose
        return {
            "name": self.family.name if self.family else "plain",
            "opening": self.opening,
            "trims": self.trims,
            "system_prose_not_rendered": [before, after] if before or after else None,
        }
