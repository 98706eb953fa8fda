"""What a reply can ask for, and the forms in which the model is told to write it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from introspect.tally import NOTHING_DONE as CLAIM_ANSWERED
from introspect.tools.base import Tool
from introspect.tools.context import to_json

COMPLETE_FORM = '{"reasoning": "what you found", "complete": true}'
CALL_FORM = '{"reasoning": "why", "tool_call": {"function": "name", "arguments": {}}}'


@dataclass(frozen=True)
class CallForms:
    """How a dialect has a call and a completion written; messages to the model end in one of them.

    `finish` is the tool whose call is the completion, None where a completion has a form of its own.
    `examples` has a whole call for each tool by its name, as the dialect writes it.
    """

    call: str
    complete: str
    finish: str | None = None
    examples: Mapping[str, str] = field(default_factory=dict)

    @property
    def either(self) -> str:
        """A call or a completion, where a reply had something of both."""
        return f"{self.call} or {self.complete}"

    def call_of(self, function: str) -> str:
        """How to call this tool: by its example where there is one, else the form of any call."""
        return self.complete if function == self.finish else self.examples.get(function, self.call)


OWN_FORMS = CallForms(CALL_FORM, COMPLETE_FORM)


def own_forms(tools: Iterable[Tool]) -> CallForms:
    """The forms of the project's own dialect, with an example of a call for each of these tools."""
    examples = {
        tool.name: to_json(
            {"reasoning": "why", "tool_call": {"function": tool.name, "arguments": example_arguments(tool)}}
        )
        for tool in tools
    }
    return CallForms(CALL_FORM, COMPLETE_FORM, examples=examples)


def example_arguments(tool: Tool) -> dict[str, Any]:
    """A value for each argument that a call of this tool cannot do without."""
    return {p.name: p.example for p in tool.parameters if p.required}


@dataclass(frozen=True)
class CallRequest:
    """A tool call as the model wrote it; its name and arguments are not checked yet."""

    function: str
    arguments: dict[str, Any]
    reasoning: str


@dataclass(frozen=True)
class Completion:
    """The model says that the experiment is done."""

    reasoning: str


@dataclass(frozen=True)
class Unusable:
    """Neither. `code` names the failure, `message` is what the model is told about it."""

    code: str
    message: str


def refused(code: str, what: str, write: str) -> Unusable:
    """A reply that asks for something which is not run: what is in the way, and what to write instead."""
    return Unusable(code, f"{what}. Nothing was run. Write {write}")


def nothing_done(forms: CallForms = OWN_FORMS) -> Unusable:
    """The answer to a first claim of completion before any call has succeeded: no call, and no miss."""
    return Unusable(
        CLAIM_ANSWERED,
        "You say that you are done, but no tool has given a result in this experiment yet. Use one and report"
        f" what it shows: write {forms.call}. If nothing can be measured, say once more that you are done:"
        f" {forms.complete}",
    )


Action = CallRequest | Completion | Unusable
