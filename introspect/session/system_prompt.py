"""The system prompt: who the model is, what a reply has to be, and its tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

from introspect.errors import ConfigError
from introspect.events import JSON
from introspect.phase.config import PhaseConfig
from introspect.prompt.tool_framing import CallSpelling
from introspect.tools.base import Tool
from introspect.tools.calls.actions import CALL_FORM, COMPLETE_FORM
from introspect.tools.context import to_json

Detail = Literal["full", "brief"]
FINISH = "finish_experiment"
"""The function whose call is the completion where calls are the only form that a dialect has."""

_BRIEF_METHOD = f"""# Method
Report what the last result shows, with its figures. Then write one JSON object and stop.
To call a tool: {CALL_FORM}
When the task is done: {COMPLETE_FORM}
Older turns are dropped. Save findings with record_observation and find them with query_memory."""

_EACH_REPLY = """# Each reply
1. Say in a sentence or two what the last result shows. Copy its figures exactly. State no figure that no tool
gave you.
2. Then ask for one thing, and stop: call a tool, or say that the task is done."""

_OWN_FORMS = f"""To call a tool, write one JSON object with its name and a real value for every argument:
{CALL_FORM}

When the task is done, write in its place:
{COMPLETE_FORM}"""

_MEMORY = """Only the task and the last few turns stay in view; a message that begins with MEMORY: says what
has left."""
_NOTES = """ Save what you find with record_observation, figures included. query_memory gives it back, also in
later experiments."""
_JUDGEMENT = """Tell apart what you measured, what follows from it and what you suppose. Where a result is at
odds with what you believe about yourself, the result stands."""


def build_system_prompt(phase: PhaseConfig, tools: Mapping[str, Tool], detail: Detail) -> str:
    """The system prompt of a phase in this program's own dialect, with its tools described."""
    who = phase.system_prompt.text.strip()
    if detail == "brief":
        listed = "\n".join(f"{tool.usage}: {tool.meaning}" for tool in tools.values())
        return f"{who}\n\n{_BRIEF_METHOD}\n\n# Tools\n{listed}"
    name, arguments = _first_call(tools)
    call = {"reasoning": "to begin", "tool_call": {"function": name, "arguments": arguments}}
    parts = [
        who,
        _EACH_REPLY,
        _OWN_FORMS,
        _example(
            to_json(call),
            f"The next message begins with TOOL_RESULTS: and is what it measured:\n{_result(name)}",
        ),
        _memory(tools),
        "# Tools\n" + "\n\n".join(_full_tool(tool) for tool in tools.values()),
    ]
    return "\n\n".join(parts)


def build_native_prompt(phase: PhaseConfig, tools: Mapping[str, Tool], spelling: CallSpelling) -> str:
    """The system prompt of a phase whose tools the model's own chat template describes."""
    name, arguments = _first_call(tools)
    # Without the tags around it: in a message they would be spelt out, and no call has them so.
    call = replace(spelling, before="", after="").text(name, arguments)
    parts = [
        phase.system_prompt.text.strip(),
        _EACH_REPLY,
        f"The function to call when the task is done is {FINISH}.",
        _example(call, f"The next message is what it measured:\n{_result(name)}"),
        _memory(tools),
    ]
    return "\n\n".join(parts)


def _first_call(tools: Mapping[str, Tool]) -> tuple[str, JSON]:
    """A call of the first tool that takes no argument; of the first tool where all do."""
    tool = next((tool for tool in tools.values() if not tool.parameters), next(iter(tools.values())))
    return tool.name, {p.name: p.example for p in tool.parameters if p.required}


def _example(call: str, result: str) -> str:
    return (
        f"# Example\nThe user gives a task. You reply:\nI begin with this tool.\n{call}\n{result}\n"
        "Then you say what this shows, and make the next call."
    )


def _result(name: str) -> str:
    return to_json({"tool": name, "result": {"...": "..."}})


def _memory(tools: Mapping[str, Tool]) -> str:
    notes = _NOTES if {"record_observation", "query_memory"} <= tools.keys() else ""
    return f"# Memory\n{_MEMORY}{notes}\n\n# Judgement\n{_JUDGEMENT}"


def fitting_detail(phase: PhaseConfig, tokens_of: Callable[[Detail], int], context_length: int) -> Detail:
    """The form that the phase asks for; `auto` is the fullest within half the model's context.

    `tokens_of` counts the prompt of a form with all tools. Raises ConfigError where the prompt and a reply do
    not fit the context.
    """
    detail = phase.system_prompt.detail
    if detail == "auto":
        detail = "full" if tokens_of("full") <= context_length // 2 else "brief"
    tokens, reply = tokens_of(detail), phase.generation.max_new_tokens
    room = context_length - tokens - reply
    if room < 1:
        raise ConfigError(
            f"the system prompt has {tokens} tokens and a reply up to {reply}, but the model's context is"
            f" {context_length}; set system_prompt.detail to brief or lower generation.max_new_tokens"
        )
    return detail


def _full_tool(tool: Tool) -> str:
    lines = [f"## {tool.name}", tool.meaning]
    if not tool.parameters:
        lines.append("Takes no arguments.")
    for p in tool.parameters:
        need = "required" if p.required else f"optional, default {to_json(p.default)}"
        lines.append(f"- {p.name} ({p.kind}, {need}): {p.meaning}")
    return "\n".join(lines)
