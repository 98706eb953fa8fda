"""The keys that a call, its arguments and a completion are written with, as `plain_key` spells them."""

from __future__ import annotations

import re

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
