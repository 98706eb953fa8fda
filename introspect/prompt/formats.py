"""The prompt format of a model, chosen by measurement; the formats with control tokens around each turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from introspect.errors import ModelError
from introspect.prompt.content_encoder import control_id
from introspect.prompt.families import CHATML, GEMMA, JOIN, LLAMA3, ChatFamily, Framing
from introspect.prompt.framing import measure_framing
from introspect.prompt.plain_format import Plain
from introspect.prompt.prompt import SOURCE_OF, Prompt, PromptBuilder, PromptFormat, Source
from introspect.prompt.tool_framing import ToolFraming
from introspect.tally import common_prefix
from introspect.transcript import Message

_TASKS = ("Experiment 1", " 1", "\n", "{", "x")
"""Beginnings of tasks of every kind of character that a tokenizer joins with what stands before it."""
_Turn = Literal["closed", "empty", "filled"]
"""The user turn that the next message of a user may go on with, in a family whose turns alternate."""


class TurnFormat(PromptFormat):
    """A family's format: a control token opens each turn and one closes it.

    Raises ModelError where the tokenizer lacks the control tokens or is no BPE that can spell every text.
    """

    family: ClassVar[ChatFamily]

    def __init__(self, tokenizer: Any, framing: Framing | None = None) -> None:
        family = self.family
        framing = framing or Framing(family, family.opening, family.trims)
        super().__init__(tokenizer, framing)
        self.start_id = control_id(tokenizer, family.start)
        self.end_id = control_id(tokenizer, family.end)
        self._header_end = (control_id(tokenizer, family.header_end),) if family.header_end else ()
        self._opening = (control_id(tokenizer, framing.opening),) if framing.opening else ()
        self._footer = (self.end_id, *self.encode(family.after))

    def control_ids(self) -> frozenset[int]:
        return frozenset({self.start_id, self.end_id, *self._header_end, *self._opening})

    def render(
        self, system_prompt: str, window: Sequence[Message], tools: ToolFraming | None = None
    ) -> Prompt:
        if tools is None or not window:
            builder, turn = self._with_system(system_prompt)
        else:
            builder, turn = self._with_tools(tools, system_prompt, window[0])
            window = window[1:]
        for message in window:
            builder.begin(message.number)
            if message.kind == "tool_result" and tools is not None:
                before, after = tools.result
                builder.add_framed(before, "tool", tools.result_text(message.text), after)
            elif message.kind == "reply":
                self._open_reply(builder, turn)
                builder.add("sampled", message.reply_ids)
                builder.add("template", self._footer)
                turn = "closed"
            else:
                turn = self._say(builder, turn, message.role, message.text, SOURCE_OF[message.kind])
        builder.begin(None)
        self._open_reply(builder, turn)
        return builder.prompt()

    def system_length(self, system_prompt: str, tools: ToolFraming | None = None) -> int:
        if tools is None:
            return len(self._with_system(system_prompt)[0].ids)
        # The text before a task is encoded together with it: what no task changes is the prefix.
        tasks = (Message(0, "task", text) for text in _TASKS)
        prefixes = [self._with_tools(tools, system_prompt, task)[0].ids for task in tasks]
        return min(common_prefix(prefixes[0], other) for other in prefixes[1:])

    def _with_tools(
        self, tools: ToolFraming, system_prompt: str, task: Message
    ) -> tuple[PromptBuilder, _Turn]:
        """The system message, the tool block and the task, in the template's own places."""
        builder = PromptBuilder(self.encoder)
        system, text = (part.strip() if self.framing.trims else part for part in (system_prompt, task.text))
        before_task = str(self.encoder.split_control(tools.between)[-1])
        behind_system = tools.between[: len(tools.between) - len(before_task)]
        builder.add_framed(tools.head, "system", system, behind_system)
        builder.begin(task.number)
        builder.add_framed(before_task, SOURCE_OF[task.kind], text, tools.tail)
        return builder, "closed"

    def _with_system(self, system_prompt: str) -> tuple[PromptBuilder, _Turn]:
        builder = PromptBuilder(self.encoder)
        builder.add("template", self._opening)
        return builder, self._say(builder, "closed", "system", system_prompt, "system")

    def _say(self, builder: PromptBuilder, turn: _Turn, role: str, text: str, source: Source) -> _Turn:
        """Write a message that was not sampled; returns what becomes of its turn."""
        shown = text.strip() if self.framing.trims else text
        if turn == "closed":
            before = self._header(builder, role if self.family.system_role else "user")
        else:
            before = JOIN if turn == "filled" and shown else ""
        builder.add_text(before, source, shown)
        if self.family.system_role:
            builder.add("template", self._footer)
            return "closed"
        return "filled" if shown or turn == "filled" else "empty"

    def _open_reply(self, builder: PromptBuilder, turn: _Turn) -> None:
        if turn != "closed":
            builder.add("template", self._footer)
        builder.add_text(self._header(builder, "assistant"), "template", "")

    def _header(self, builder: PromptBuilder, role: str) -> str:
        """Write the control tokens of a header; returns its text that the content is encoded with."""
        builder.add("template", (self.start_id,))
        name = self.family.role(role)
        if not self._header_end:
            return name + self.family.gap
        builder.add("template", (*self.encode(name), *self._header_end))
        return self.family.gap


class ChatML(TurnFormat):
    """The ChatML format: `<|im_start|>role`, newline, content, `<|im_end|>`, newline."""

    name, family = "chatml", CHATML


class Llama3(TurnFormat):
    """The Llama 3 format: `<|start_header_id|>role<|end_header_id|>`, two newlines, content, `<|eot_id|>`.

    The date and the knowledge cut-off, which templates of Llama 3.1 and 3.2 add, are not written.
    """

    name, family = "llama3", LLAMA3


class Gemma(TurnFormat):
    """The Gemma format: `<start_of_turn>user`, newline, content, `<end_of_turn>`, newline.

    The model's own turns are called `model`. There is no system role and turns alternate: the system text, a
    task and a memory note behind it stand in one user turn, with an empty line between. The turn is closed
    where the reply opens, so that a further message only appends ids.
    """

    name, family = "gemma", GEMMA


TURN_FORMATS: dict[str, type[TurnFormat]] = {kind.name: kind for kind in (ChatML, Llama3, Gemma)}


def prompt_format_for(tokenizer: Any, model_name: str) -> PromptFormat:
    """The format of a model's chat template; roles spelt in text where it has none.

    Raises ModelError, with the difference, for a template of another family or one that rewrites history.
    """
    try:
        framing = measure_framing(tokenizer)
        if framing.family is None:
            return Plain(tokenizer, framing)
        return TURN_FORMATS[framing.family.name](tokenizer, framing)
    except ModelError as error:
        raise ModelError(f"{model_name}: {error}") from None
