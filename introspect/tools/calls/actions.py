"""What a reply can ask for, and the forms in which the model is told to write it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from introspect.tally import NOTHING_DONE as CLAIM_ANSWERED

COMPLETE_FORM = '{"reasoning": "what you found", "complete": true}'
CALL_FORM = '{"reasoning": "why", "tool_call": {"function": "name", "arguments": {}}}'


@dataclass(frozen=True)
class CallForms:
    """How a dialect has a call and a completion written; messages to the model end in one of them.

    `finish` is the tool whose call is the completion, None where a completion has a form of its own.
    """

    call: str
    complete: str
    finish: str | None = None


OWN_FORMS = CallForms(CALL_FORM, COMPLETE_FORM)


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


NOTHING_DONE = Unusable(
    CLAIM_ANSWERED,
    "You say that you are done, but no tool has given a result in this experiment yet. Use one and report"
    f" what it shows: write {CALL_FORM}. If nothing can be measured, say once more that you are done:"
    f" {COMPLETE_FORM}",
)
"""The answer to a first claim of completion before any call has succeeded: no call, and no miss."""

Action = CallRequest | Completion | Unusable
