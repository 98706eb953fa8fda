"""The keys that a call, its arguments and a completion are written with, as `plain_key` spells them."""

from __future__ import annotations

import re
from typing import Any

CALL_KEYS = ("toolcall", "toolcalls")
NAME_KEYS = ("function", "name")
ARGUMENT_KEYS = ("arguments", "parameters", "args", "params", "kwargs", "input")
OTHER_NAME_KEYS = ("tool", "toolname", "functionname", "functioncall", "tooluse")
"""Keys under which other programs name what they call: understood nowhere, but no part of a completion."""
PROSE_KEYS = (
    *("reasoning", "reason", "rationale", "explanation", "analysis", "reflection", "plan"),
    *("thought", "thoughts", "thinking", "think"),
)


def plain_key(key: str) -> str:
    """A key without case, white space, hyphens and underscores."""
    return re.sub(r"[\s_-]+", "", key).casefold()


def is_yes(item: Any) -> bool:
    """Whether the value of a key affirms it."""
    if isinstance(item, str):
        return item.strip().casefold() in ("true", "yes", "1", "done", "complete")
    return isinstance(item, bool | int | float) and item == 1


def is_no(item: Any) -> bool:
    """Whether the value of a key denies it, or says nothing."""
    if isinstance(item, str):
        return item.strip().casefold() in ("false", "no", "0", "")
    return item is None or (isinstance(item, bool | int | float) and item == 0)
