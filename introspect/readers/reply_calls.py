"""The calls that replies of a log ask for, where no record of the calls themselves was written."""

from __future__ import annotations

from collections.abc import Iterator

from introspect.tools.calls.actions import CallRequest
from introspect.tools.calls.parsing import parse_reply
from introspect.tools.context import to_json


def called(text: str) -> Iterator[tuple[str, str]]:
    """The name of the tool that a reply calls, and its arguments as JSON; nothing where it calls none."""
    if "{" not in text:
        return
    action = parse_reply(text, False, 0)
    if isinstance(action, CallRequest):
        yield action.function, to_json(action.arguments)
