"""The system prompt: who the model is, how it works here, and its tools, in a full or a brief form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from introspect.errors import ConfigError
from introspect.phase.config import PhaseConfig
from introspect.tools.base import Tool
from introspect.tools.calls.actions import CALL_FORM, COMPLETE_FORM
from introspect.tools.context import to_json

Detail = Literal["full", "brief"]

_BRIEF_METHOD = f"""# Method
Report what the last result shows, with its figures. Then write one JSON object and stop.
To call a tool: {CALL_FORM}
When the task is done: {COMPLETE_FORM}
Older turns are dropped. Save findings with record_observation and find them with query_memory."""

_FULL_METHOD = f"""# How a session goes
The session is a series of experiments. Each begins with a task from the user. You work on it in turns: you
write a reply, the tool that you called answers in a message that begins with TOOL_RESULTS:, and you go on
from there. Between experiments the conversation is cleared; only your saved notes remain.

# How to reply
First report in plain text what the last result shows. Quote figures exactly as they stand in the result, and
say which tool they came from. Never state a figure that no tool gave you. Then write exactly one JSON object,
bare or in a code fence, and stop.

To call a tool:
{CALL_FORM}

When the experiment is done, in place of a call:
{COMPLETE_FORM}

One call in each reply. Fill in every argument with a real value, never with a placeholder. A call that cannot
be run comes back with an error that says what to change.

# Memory
The conversation that you see is limited. After a few turns the older ones are dropped; the task and the
latest turns stay, and a message that begins with MEMORY: tells you what has left. Save what you will need
with record_observation, figures included, before it is dropped. query_memory gives your notes back, also
those of earlier experiments. A result that is too long is shortened and says what was left out and how to get
the rest.

# Method
Form a question, choose the tool that can answer it, and look at the result before you go on. Compare
what you measure with what you expected. Tell apart what you measured, what follows from it and what you
suppose. Where a result is at odds with what you believe about yourself, the result stands."""


def build_system_prompt(phase: PhaseConfig, tools: Mapping[str, Tool], detail: Detail) -> str:
    """The system prompt of a phase with its tools described."""
    method = _FULL_METHOD if detail == "full" else _BRIEF_METHOD
    describe = _full_tool if detail == "full" else _brief_tool
    separator = "\n\n" if detail == "full" else "\n"
    listed = separator.join(describe(tool) for tool in tools.values())
    return f"{phase.system_prompt.text.strip()}\n\n{method}\n\n# Tools\n{listed}"


def fitting_system_prompt(
    phase: PhaseConfig, tools: Mapping[str, Tool], count_tokens: Callable[[str], int], context_length: int
) -> str:
    """The system prompt with all of these tools, in the form that `fitting_detail` chooses; raises as it."""
    return build_system_prompt(phase, tools, fitting_detail(phase, tools, count_tokens, context_length))


def fitting_detail(
    phase: PhaseConfig, tools: Mapping[str, Tool], count_tokens: Callable[[str], int], context_length: int
) -> Detail:
    """The form that the phase asks for; `auto` is the fullest within half the model's context.

    Raises ConfigError where the prompt and a reply do not fit the context.
    """
    detail = phase.system_prompt.detail
    if detail == "auto":
        full = build_system_prompt(phase, tools, "full")
        detail = "full" if count_tokens(full) <= context_length // 2 else "brief"
    prompt = build_system_prompt(phase, tools, detail)
    tokens, reply = count_tokens(prompt), phase.generation.max_new_tokens
    room = context_length - tokens - reply
    if room < 1:
        raise ConfigError(
            f"the system prompt has {tokens} tokens and a reply up to {reply}, but the model's context is"
            f" {context_length}; set system_prompt.detail to brief or lower generation.max_new_tokens"
        )
    return detail


def _brief_tool(tool: Tool) -> str:
    return f"{tool.usage}: {tool.meaning}"


def _full_tool(tool: Tool) -> str:
    lines = [f"## {tool.name}", tool.meaning]
    if not tool.parameters:
        lines.append("Takes no arguments.")
    for p in tool.parameters:
        need = "required" if p.required else f"optional, default {to_json(p.default)}"
        lines.append(f"- {p.name} ({p.kind}, {need}): {p.meaning}")
    example = {p.name: p.example for p in tool.parameters if p.required}
    lines.append(f"Call: {to_json({'function': tool.name, 'arguments': example})}")
    return "\n".join(lines)
