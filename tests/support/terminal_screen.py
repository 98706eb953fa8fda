"""A terminal as a list of lines: what a person sees of output with the few controls that rich writes."""

from __future__ import annotations

import re

_PIECE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


def screen_of(output: str) -> list[str]:
    """The lines that stand there in the end, trailing blanks dropped; colours and the cursor's look are not
    looked at. Raises ValueError for a control that is not known."""
    lines, row, column = [""], 0, 0
    for number, kind, control, text in _PIECE.findall(output):
        if text:
            before = lines[row].ljust(column)
            lines[row] = before[:column] + text + before[column + len(text) :]
            column += len(text)
        elif control == "\r":
            column = 0
        elif control == "\n":
            row, column = row + 1, 0
            lines.extend([""] * (row + 1 - len(lines)))
        elif kind == "A":
            row = max(0, row - int(number or 1))
        elif kind == "K":
            lines[row] = "" if number == "2" else lines[row][:column]
        elif kind not in "mhl":
            raise ValueError(f"unknown control {kind!r}")
    return [line.rstrip() for line in lines]
