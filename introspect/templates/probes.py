"""The conversations that a chat template is tried with, and the ways in which it may want them given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import product

from introspect.templates.process import Job

SYSTEM = "Keep to the meadow rule."
USER = "Which zebra hums at dusk?"
ASSISTANT = "The smaller zebra hums."
SECOND_USER = "And which one dances?"
THOUGHT = "Zebras hum when rain is near."
PADDED_USER = " \n Which zebra waits? \n "
PADDED_ASSISTANT = "\n The older zebra waits. \n"

TOOL_NAME = "count_zebras"
TOOL_ID = "zebra0042"
"""Nine letters and digits: some templates insist."""
ARGUMENTS = '{"where":"meadow","b":1,"a":[1, 2.50],"mark":"<é>"}'
"""Spelt as a model may: no spaces here and some there, keys in no order, a zero that means nothing."""
ARGUMENT_VALUES = {"where": "meadow", "b": 1, "a": [1, 2.5], "mark": "<é>"}
RESULT = "eleven zebras"
TOOL: dict[str, object] = {
    "type": "function",
    "function": {
        "name": TOOL_NAME,
        "description": "Counts animals.",
        "parameters": {
            "type": "object",
            "properties": {
                "where": {"type": "string", "description": "A place."},
                "b": {"type": "integer", "description": "A number."},
                "a": {"type": "array", "items": {"type": "number"}, "description": "Numbers."},
                "mark": {"type": "string", "description": "A mark."},
            },
            "required": ["where"],
        },
    },
}
Messages = Sequence[Mapping[str, object]]


SHOWN = 160
"""Characters of a difference that a row keeps."""


@dataclass(frozen=True)
class ChatTemplate:
    """A template, and the one that transformers takes in its place where tools are given.

    `tokens` are the special tokens by the names that templates know them by, such as `bos_token`.
    """

    text: str
    tool_text: str
    tokens: Mapping[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Form:
    """How a template wants a conversation given. `reason` says so; it is empty for what transformers does.

    `nothing` is how the absence of tools and documents is put, `lacking` the names of variables that
    the template cannot do without and transformers does not give.
    """

    nothing: Mapping[str, object]
    parts: bool
    reason: str
    lacking: tuple[str, ...] = ()


_NONE = {"tools": None, "documents": None}
_EMPTY: dict[str, object] = {"tools": [], "documents": []}
FORMS = (
    Form(_NONE, False, ""),
    Form({}, False, "cannot be rendered with tools=None and documents=None; rendered here without them"),
    Form(_EMPTY, False, "cannot be rendered with tools=None and documents=None; rendered here with []"),
    Form(_NONE, True, "takes a message's content as a list of parts only, not as a string"),
    Form(_EMPTY, True, "takes content as a list of parts only, and [] in place of no tools and documents"),
)


@dataclass(frozen=True)
class CallForm:
    """How a tool call is put into a message: `arguments` as the model's text or as values."""

    content: Mapping[str, object]
    arguments: object
    tools: Sequence[Mapping[str, object]] | None

    @property
    def spelt(self) -> bool:
        """Whether the template is given the text that the model wrote."""
        return isinstance(self.arguments, str)


_CONTENTS: tuple[dict[str, object], ...] = ({"content": ""}, {"content": None}, {})
_TOOLS: tuple[list[dict[str, object]] | None, ...] = ([TOOL], None)
CALL_FORMS = tuple(
    CallForm(content, arguments, tools)
    for arguments, tools, content in product((ARGUMENTS, ARGUMENT_VALUES), _TOOLS, _CONTENTS)
)


def conversation_jobs(form: Form, tokens: Mapping[str, str], now: datetime) -> dict[str, Job]:
    """The renderings that decide about text, by name. Two dates beside `now` differ from it in every part."""
    user, assistant = _message("user", USER), _message("assistant", ASSISTANT)
    second = _message("user", SECOND_USER)
    thinking = _message("assistant", f"<think>\n{THOUGHT}\n</think>\n\n{ASSISTANT}")
    padded = [_message("user", PADDED_USER), _message("assistant", PADDED_ASSISTANT), second]
    other = now.replace(
        year=now.year - 7,
        month=now.month % 12 + 1,
        day=now.day % 28 + 1,
        hour=(now.hour + 5) % 24,
        minute=(now.minute + 7) % 60,
    )
    plain = {
        "user": [user],
        "user_assistant": [user, assistant],
        "user_assistant_user": [user, assistant, second],
        "system_user": [_message("system", SYSTEM), user],
        "thinking": [user, thinking],
        "thinking_user": [user, thinking, second],
        "padded": padded,
    }
    jobs = {name: _job(messages, form, tokens, now) for name, messages in plain.items()}
    jobs["user_prompt"] = _job([user], form, tokens, now, prompt=True)
    for name, when in (("other_day", other), ("next_day", other + timedelta(days=1))):
        jobs[name] = _job([user], form, tokens, when)
    return jobs


def call_jobs(form: Form, tokens: Mapping[str, str], now: datetime) -> list[Job]:
    """A tool call and its result after a user message, a job for each of CALL_FORMS."""
    jobs = []
    for call_form in CALL_FORMS:
        function = {"name": TOOL_NAME, "arguments": call_form.arguments}
        call = {
            "role": "assistant",
            **call_form.content,
            "tool_calls": [{"id": TOOL_ID, "type": "function", "function": function}],
        }
        result = {"role": "tool", "name": TOOL_NAME, "tool_call_id": TOOL_ID, "content": RESULT}
        job = _job([_message("user", USER), call, result], form, tokens, now)
        given = {"tools": call_form.tools} if call_form.tools else {}
        jobs.append(Job({**job.variables, **given}, now))
    return jobs


def _message(role: str, content: str) -> dict[str, object]:
    return {"role": role, "content": content}


def _job(
    messages: Messages, form: Form, tokens: Mapping[str, str], now: datetime, prompt: bool = False
) -> Job:
    if form.parts:
        messages = [
            {**message, "content": [{"type": "text", "text": message["content"]}]}
            if isinstance(message.get("content"), str)
            else message
            for message in messages
        ]
    lacking = {name: _stand_in(name, now) for name in form.lacking}
    given = {"messages": list(messages), "add_generation_prompt": prompt}
    return Job({**lacking, **tokens, **form.nothing, **given}, now)


def _stand_in(name: str, now: datetime) -> str:
    """A value for a variable that a template cannot do without."""
    if name.endswith("_token"):
        return f"<{name.removesuffix('_token')}>"
    return now.strftime("%d %b %Y") if "date" in name or "time" in name else ""
