"""What tools put before each line of a log that they pass on: taken off, and interleaved streams parted.

`srun -l` puts the task's number there, torchrun its rank, containers and journals a time and a name, a mail a
`>`. A kind of label counts in a file where more records stand behind it than bare, or from the place on where
a session begins behind it; so a model cannot bring one in by writing it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from introspect.runlog.text_prefix import (
    LONGEST_HEAD,
    begins_session,
    has_stamp,
    prefix_of,
    prefix_place,
    records_apart,
    without_escapes,
    without_spelt_colours,
)

_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)"
_MONTH_DAY = r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"
_KINDS = {
    # srun -l and grep -n; cat -n and nl.
    "number": r" *(?P<stream>\d{1,9})(?::|\t)",
    # torchrun, accelerate, mpirun --tag-output.
    "rank": r"\[(?P<stream>[A-Za-z_]{0,20} ?\d{1,6}(?:,\d{1,6})?)\](?:<std(?:out|err)>)?:?",
    # docker logs -t, kubectl logs --timestamps, actions of a forge; the files of a container runtime.
    "time": rf"{_TIME} (?:std(?:out|err) [FP] )?",
    # journalctl, in its short forms; syslog.
    "journal": rf"(?:{_MONTH_DAY}|{_TIME}) [\w.-]{{1,100}} "
    r"(?P<stream>[^\s:\[]{1,100}(?:\[\d{1,9}\])?):",
    # ts
    "clock": rf"{_MONTH_DAY} ",
    # docker compose, foreman.
    "service": r"(?:\d\d:\d\d:\d\d )?(?P<stream>[\w./-]{1,64}) *\|",
    # kubectl logs --prefix.
    "pod": r"\[(?P<stream>pod/[^\]\n]{1,200})\]",
    "quote": r">(?: ?>){0,7}",
    "indent": r"[ \t]{1,80}",
}
# Kinds that are one and the same text on every line: as on the first record that they stand before.
_CONSTANT = ("indent", "constant")
_KIND = {name: re.compile(kind, re.ASCII) for name, kind in _KINDS.items()}
_MAX_NESTED = 3
_FILE = re.compile(r"^==> (.{1,4096}) <==$")
_MORE_THAN_A_REPLY = 16
"""Records: a reply of 400 tokens, the original's limit, has no room for as many, of some 30 tokens each."""
_AT_LINE_START = "\0\x0b\x0c\x1a\ufeff\u200b\u2060"
NO_STREAM = "-"
"""The stream of lines that belong to none of those that are told apart: a launcher's own messages."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line with its number in the source, counted from 1.

    `label` names the kinds of label that were taken off it, `stream` whose output it is.
    """

    number: int
    text: str
    label: str = ""
    stream: str = ""


@dataclass(frozen=True)
class _Label:
    """A kind of label, whether what it says tells streams apart, and whether a space belongs to it."""

    name: str
    pattern: re.Pattern[str]
    parts_streams: bool
    spaced: bool

    def end(self, text: str) -> int:
        """Where the label of a line ends; 0 where it has none."""
        match = self.pattern.match(text)
        if match is None:
            return 0
        return match.end() + (self.spaced and text.startswith(" ", match.end()))


def cleaned(lines: Sequence[Line]) -> list[Line]:
    """Lines without what terminals and progress bars left in them; two where a record begins in mid-line."""
    texts = [without_escapes(line.text).rstrip("\r").lstrip(_AT_LINE_START) for line in lines]
    return [
        Line(line.number, part, stream=line.stream)
        for line, text in zip(lines, without_spelt_colours(texts), strict=True)
        for part in records_apart(text)
    ]


def without_labels(lines: Sequence[Line]) -> list[Line]:
    """Lines without the labels that tools put before them, each with the stream that it is from."""
    lines = _files_apart(lines)
    for _ in range(_MAX_NESTED):
        bare = [prefix_of(line.text) is not None for line in lines]
        label, since = _label_of(lines, bare)
        if label is None:
            break
        lines = _without(lines, bare, label, since)
    return list(lines)


def streams_of(lines: Iterable[Line]) -> dict[str, list[Line]]:
    """The lines of each stream, in the order in which the streams begin."""
    streams: dict[str, list[Line]] = {}
    for line in lines:
        streams.setdefault(line.stream, []).append(line)
    return streams


def _files_apart(lines: Sequence[Line]) -> list[Line]:
    """Streams by the `==> file <==` lines of `tail`, which writes one first and then after empty lines."""
    first = next((line for line in lines if line.text.strip()), None)
    if first is None or not _FILE.match(first.text):
        return list(lines)
    parted: list[Line] = []
    stream = NO_STREAM
    for line in lines:
        empty = not parted or not parted[-1].text.strip()
        if match := _FILE.match(line.text) if empty else None:
            stream = match[1]
            # The empty line is tail's own too.
            parted[-1:] = [replace(before, stream=NO_STREAM) for before in parted[-1:]]
        parted.append(replace(line, stream=NO_STREAM if match else stream))
    return parted


def _label_of(lines: Sequence[Line], bare: Sequence[bool]) -> tuple[_Label | None, int]:
    """The kind of label that counts in a file, and the index of the line from which on it does."""
    places: dict[str, list[int]] = {}
    constants: dict[str, str] = {}
    for index, line in enumerate(lines):
        if bare[index] or not has_stamp(line.text):
            continue
        for name, end in _before_a_record(line.text):
            if name in _CONSTANT and not line.text.startswith(constants.setdefault(name, line.text[:end])):
                continue
            places.setdefault(name, []).append(index)
    if len(places.get("constant", ())) == 1:
        del places["constant"]
    if not places:
        return None, 0
    name = max(places, key=lambda name: len(places[name]))
    found = places[name]
    few = len(found) <= sum(bare)
    if few and (name in _CONSTANT or not _is_a_session(lines, bare, found)):
        return None, 0
    pattern = re.compile(re.escape(constants[name])) if name in _CONSTANT else _KIND[name]
    spaced = name not in _CONSTANT and all(
        lines[place].text.startswith(" ", match.end())
        for place in found
        if (match := pattern.match(lines[place].text))
    )
    return _Label(name, pattern, _parts_streams(lines, pattern, len(found)), spaced), found[0] * few


def _is_a_session(lines: Sequence[Line], bare: Sequence[bool], found: Sequence[int]) -> bool:
    """Whether labelled records among bare ones are a session of their own, and no text that looks so."""
    after = next((index for index in range(found[0], len(lines)) if bare[index]), None)
    return (
        len(found) >= _MORE_THAN_A_REPLY
        and begins_session(_innermost(lines[found[0]].text))
        and (after is None or begins_session(_innermost(lines[after].text)))
    )


def _before_a_record(text: str, depth: int = _MAX_NESTED) -> list[tuple[str, int]]:
    """The kinds of label that begin a line with a record on it, and where each ends; more may follow it."""
    found = []
    text = text[:LONGEST_HEAD]
    for name, pattern in _KIND.items():
        match = pattern.match(text)
        rest = text[match.end() :].removeprefix(" ") if match else ""
        if match and rest and (prefix_of(rest) or (depth > 1 and _before_a_record(rest, depth - 1))):
            found.append((name, match.end()))
    if depth == _MAX_NESTED and (place := prefix_place(text)):
        found.append(("constant", place))
    return found


def _innermost(text: str, depth: int = _MAX_NESTED) -> str:
    """The message of the record on a line that has one behind labels."""
    prefix = prefix_of(text)
    if prefix or not depth:
        return prefix.message if prefix else ""
    return next((_innermost(text[end:], depth - 1) for _, end in _before_a_record(text)), "")


def _parts_streams(lines: Sequence[Line], pattern: re.Pattern[str], records: int) -> bool:
    """Whether labels of a kind name streams: they come again, where the numbers of lines do not."""
    if "stream" not in pattern.groupindex:
        return False
    names = [match["stream"] for line in lines if (match := pattern.match(line.text))]
    return records < 3 or len(set(names)) * 2 <= len(names)


def _without(lines: Sequence[Line], bare: Sequence[bool], label: _Label, since: int) -> list[Line]:
    """Take a kind of label off the lines that have it, from `since` on up to the next bare record."""
    mixed = any(bare)
    ends = [label.end(line.text) for line in lines]
    # Where what continues a record is labelled too, a line without a label is none of the streams'.
    all_labelled = any(
        end and line.text[end:].strip() and not _before_a_record(line.text)
        for line, end in zip(lines[since:], ends[since:], strict=True)
    )
    taken, inside, section = [], False, ""
    streams: tuple[str, str] | None = None
    for index, (line, end) in enumerate(zip(lines, ends, strict=True)):
        starts = bare[index] or (mixed and index >= since and end and bool(_before_a_record(line.text)))
        if starts and inside == bare[index] and begins_session(_innermost(line.text)):
            # Another log begins here: what stood before is no part of it.
            section = f"{section}+"
        inside = not bare[index] if starts else inside or not mixed
        if end and inside:
            match = label.pattern.match(line.text)
            name = match["stream"] if match and label.parts_streams else ""
            streams = (line.stream, f"{line.stream}{section}/{name}" if name else line.stream + section)
            taken.append(Line(line.number, line.text[end:], f"{line.label} {label.name}".strip(), streams[1]))
        elif not inside or streams is None or streams[0] != line.stream:
            taken.append(replace(line, stream=line.stream + section))
        elif all_labelled and line.text.strip():
            taken.append(replace(line, stream=NO_STREAM))
        else:
            taken.append(replace(line, stream=streams[1]))
    return taken
