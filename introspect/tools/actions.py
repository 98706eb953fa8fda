"""What a reply can ask for, and the forms in which the model is told to write it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

COMPLETE_FORM = '{"reasoning": "what you found", "complete": true}'
CALL_FORM = '{"reasoning": "why", "tool_call": {"function": "name", "arguments": {}}}'


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


Action = CallRequest | Completion | Unusable
