"""The dialect in which a model reads of its tools and calls them: its own template's, or this program's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from introspect.errors import ConfigError, ModelError
from introspect.phase.config import PhaseConfig
from introspect.prompt.framing import rendered
from introspect.prompt.prompt import PromptFormat
from introspect.prompt.tool_framing import ToolFraming, ToolSchema, measure_tool_framing
from introspect.session.system_prompt import FINISH, Detail, build_native_prompt, build_system_prompt
from introspect.tally import common_prefix
from introspect.tools.base import Tool
from introspect.tools.calls.actions import OWN_FORMS, CallForms, example_arguments, own_forms
from introspect.tools.library import Document
from introspect.tools.schemas import tool_schema
from introspect.transcript import Message, Transcript

FINISH_SCHEMA: ToolSchema = {
    "type": "function",
    "function": {
        "name": FINISH,
        "description": "Ends the experiment, once its task is done.",
        "parameters": {
            "type": "object",
            "properties": {"summary": {"type": "string", "description": "What you found, with figures."}},
            "required": ["summary"],
        },
    },
}


_SEAMS = (("S", "Look."), ("You look at yourself.", "Look at 1."), ("{}", "\n{x}\n"), ("S\n", " x"))
"""System prompts and tasks of every kind of edge."""
_SAID = (("{}", "No."), ('{"a": "b."}', "{}\n"), ("[1]\n", "\n\nx"), ("\n x", " y"))
"""Results, and notes and feedback, likewise."""


@dataclass(frozen=True)
class Dialect:
    """`reason` says why it is this one; `forms` is how the model is told to write."""

    name: Literal["native", "own"]
    reason: str
    forms: CallForms = OWN_FORMS


@dataclass(frozen=True)
class Instructions:
    """What stands before the task of an experiment: the system message, and the tool block where native.

    `tokens` counts both as every prompt begins with them.
    """

    text: str
    tokens: int
    tools: ToolFraming | None = None


def choose_dialect(phase: PhaseConfig, tools: Mapping[str, Tool], prompt_format: PromptFormat) -> Dialect:
    """The dialect of a phase; `auto` is native where the model's template can write these tools.

    Raises ConfigError, with the reason, where native is asked for and cannot be had.
    """
    own = own_forms(tools.values())
    if phase.dialect == "own":
        return Dialect("own", "the phase asks for it", own)
    try:
        if FINISH in tools:
            raise ModelError(f"a tool of the phase is called {FINISH}, which ends an experiment there")
        for experiment in phase.experiments:
            offered = {name: tools[name] for name in phase.tools_of(experiment)}
            framing = _framing_of(offered, "full", prompt_format)
            system = build_native_prompt(phase, offered, framing.call)
            _refuse_other_ids(prompt_format, framing, system, experiment.task)
    except ModelError as error:
        if phase.dialect == "native":
            raise ConfigError(f"dialect native: {error}; use dialect auto or own") from None
        return Dialect("own", str(error), own)
    asked = "the phase asks for it" if phase.dialect == "native" else "the chat template writes tools"
    return Dialect("native", asked, _forms_of(framing, tools))


def instructions_of(
    phase: PhaseConfig,
    tools: Mapping[str, Tool],
    detail: Detail,
    dialect: Dialect,
    prompt_format: PromptFormat,
    pinned: Sequence[Document] = (),
) -> Instructions:
    """What a model reads before a task where these tools are offered and these documents pinned."""
    if dialect.name == "own":
        text = build_system_prompt(phase, tools, detail, pinned)
        return Instructions(text, prompt_format.system_length(text))
    framing = _framing_of(tools, detail, prompt_format)
    text = build_native_prompt(phase, tools, framing.call, pinned)
    return Instructions(text, prompt_format.system_length(text, framing), framing)


def _framing_of(tools: Mapping[str, Tool], detail: Detail, prompt_format: PromptFormat) -> ToolFraming:
    schemas = [tool_schema(tool, meanings=detail == "full") for tool in tools.values()]
    return measure_tool_framing(prompt_format.tokenizer, prompt_format.framing, [*schemas, FINISH_SCHEMA])


def _refuse_other_ids(prompt_format: PromptFormat, framing: ToolFraming, system: str, task: str) -> None:
    """Raise ModelError where the tokenizer reads its template's text otherwise than it is fed here.

    Tried with the system prompt and the task of an experiment, and with texts that a tokenizer may join with
    what stands beside them.
    """
    tokenizer = prompt_format.tokenizer
    call = framing.call.text(FINISH, {"summary": "x"})
    spelt = tuple(tokenizer(call, add_special_tokens=False)["input_ids"])
    for begun, asked in ((system, task), *_SEAMS):
        window = Transcript().append("task", asked)
        for result, said in _SAID:
            window = window.append("reply", call, reply_ids=spelt).append("tool_result", result)
            window = window.append("memory_note", said).append("feedback", said)
        messages = [("system", begun), *((told_role(m), m.text) for m in window.window())]
        text = rendered(tokenizer, messages, framing.schemas)
        read = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
        fed = prompt_format.render(begun, window.window(), framing).token_ids
        if read != fed:
            at = common_prefix(read, fed)
            raise ModelError(
                "its tokenizer reads what its chat template writes otherwise than it is fed here, from"
                f" {prompt_format.decode(read[at : at + 8])!r} on"
            )


def told_role(message: Message) -> str:
    """The role of a message as a template that writes tools is given it."""
    return "tool" if message.kind == "tool_result" else message.role


def _forms_of(framing: ToolFraming, tools: Mapping[str, Tool]) -> CallForms:
    return CallForms(
        call=framing.call.text("name", {}),
        complete=framing.call.text(FINISH, {"summary": "what you found"}),
        finish=FINISH,
        examples={name: framing.call.text(name, example_arguments(tool)) for name, tool in tools.items()},
    )
