"""Reads lines of a log that a document quotes, `Line 789: [TAG] text`, and times that its prose states."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date

from introspect.runlog.history import Entry
from introspect.runlog.text_labels import Line
from introspect.runlog.text_records import PRUNING, entry_of, tag_of

_QUOTED = re.compile(r"^(\s*Line (\d{1,9}): ?)(.*)$", re.ASCII | re.DOTALL)
_FENCE = re.compile(r"^\s*```")
_LONGEST_REMARK = 300
_REMARK = re.compile(r"(?:\s*<--.*|\s+\([A-Z][A-Z !?]*\)|\s*\.{3})+\s*$", re.DOTALL)
_DATE = re.compile(r"\*\*Date:\*\*\s*(?:(\d{4})-(\d\d)-(\d\d)|([A-Za-z]+) (\d{1,2}), (\d{4}))", re.ASCII)
_CLOCK = r"(\d\d:\d\d:\d\d)[.,](\d{3})"
_CLOCK_PAIR = re.compile(rf"{_CLOCK}\s*(?:→|->|-|–|—|to)\s*{_CLOCK}", re.ASCII)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def quoted_part(lines: Sequence[Line]) -> list[list[Line]]:
    """The blocks of a document to read: its fenced ones that hold quoted records, else the whole.

    It is for documents that quote a log in `Line 789:` form. A file with prefix lines is a log, whose fences
    are the model's.
    """
    first = next((line for line in lines if line.text.strip()), None)
    if first is None or _QUOTED.match(first.text):
        return [list(lines)]
    blocks: list[list[Line]] = []
    inside = False
    for line in lines:
        if _FENCE.match(line.text):
            inside = not inside
            blocks += [[]] if inside else []
        elif inside:
            blocks[-1].append(line)
    with_records = [block for block in blocks if any(_QUOTED.match(line.text) for line in block)]
    return with_records or [list(lines)]


def quoted_entries(lines: Sequence[Line]) -> Iterator[Entry]:
    """The records of a quotation, `Line 789: [TAG] text`, under the line numbers that it gives.

    A further tag under the first one's column is the record of the next line. Remarks of the person who
    quotes (an arrow, capitals in brackets, three dots) are left out: they are no part of the log.
    """
    number, width, text = 0, 0, ""
    for line in lines:
        match = _QUOTED.match(line.text)
        content = line.text.lstrip() if line.text[:width].strip() else line.text[width:]
        if match or (number and tag_of(content)):
            if text.strip():
                yield entry_of(number, "", "", text.rstrip())
            number = int(match[2]) if match else number + text.rstrip().count("\n") + 1
            width = len(match[1]) if match else width
            text = _without_remark(match[3] if match else content)
        elif number:
            text += "\n" + _without_remark(content)
    if text.strip():
        yield entry_of(number, "", "", text.rstrip())


def first_quoted(lines: Sequence[Line]) -> int:
    """The index of the first quoted record, `len(lines)` where there is none."""
    return next((index for index, line in enumerate(lines) if _QUOTED.match(line.text)), len(lines))


def _without_remark(line: str) -> str:
    return line[:-_LONGEST_REMARK] + _REMARK.sub("", line[-_LONGEST_REMARK:])


def with_stated_times(entries: list[Entry], document: str) -> list[Entry]:
    """Give quoted lines the two times that the document's prose states for the onset of a fault.

    The first is that of the last reply before the first prune, the second that of the first reply after it.
    A line between has the last time known before it: it cannot be earlier.
    """
    onset = _onset(document)
    prune = next((place for place, entry in enumerate(entries) if entry.tag == PRUNING), None)
    if onset is None or prune is None:
        return entries
    replies = [place for place, entry in enumerate(entries) if entry.tag == "GENERATION"]
    before = max((place for place in replies if place < prune), default=prune)
    after = min((place for place in replies if place > prune), default=len(entries))
    times = ["" if place < before else onset[place >= after] for place in range(len(entries))]
    return [replace(entry, time=time) for entry, time in zip(entries, times, strict=True)]


def _onset(document: str) -> tuple[str, str] | None:
    stated, clocks = _DATE.search(document), _CLOCK_PAIR.search(document)
    if stated is None or clocks is None:
        return None
    year, month, day, name, day_of_name, year_of_name = stated.groups()
    try:
        number = int(month) if month else _MONTHS.index(name[:3].lower()) + 1
        when = date(int(year or year_of_name), number, int(day or day_of_name)).isoformat()
    except ValueError:
        return None
    return f"{when}T{clocks[1]}.{clocks[2]}", f"{when}T{clocks[3]}.{clocks[4]}"
