"""Lines of foreign text that look like records of a log: a backslash before each, and away again."""

from __future__ import annotations

import re

_LOOKS_LIKE_RECORD = re.compile(
    r"^(\s*)(\\*)"
    r"(\d{4}-\d\d-\d\d[ T]\d|\[[^\]\n]+\]|={10,}\s*$|Line \d+:|TOOL_RESULTS:|(?:PHASE|EXPERIMENT)\s)"
)


def shielded(text: str) -> str:
    """`text` with a backslash before each line, but the first, that looks like the start of a record."""
    first, *rest = text.split("\n")
    return "\n".join([first, *(_LOOKS_LIKE_RECORD.sub(r"\1\\\2\3", line) for line in rest)])


def unshielded(text: str) -> str:
    """The inverse of `shielded`."""
    first, *rest = text.split("\n")
    return "\n".join([first, *(_unshield_line(line) for line in rest)])


def _unshield_line(line: str) -> str:
    match = _LOOKS_LIKE_RECORD.match(line)
    if match is None or not match[2]:
        return line
    return line[: match.start(2)] + line[match.start(2) + 1 :]
