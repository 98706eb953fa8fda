"""The prefix of a record in a text log: its time, logger and level, in the layouts that loggers write.

And what a terminal or a progress bar leaves around it: escape sequences, byte order marks, carriage returns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

_STAMP = (
    r"(?P<open>\[?)(?P<year>\d{4})(?P<day_sep>[-/.])(?P<month>\d\d)(?P=day_sep)(?P<day>\d\d)(?P<sep>[T _])"
    r"(?P<clock>\d\d:\d\d:\d\d)(?:(?P<point>[.,])(?P<fraction>\d{1,9}))?"
    r"(?P<zone> ?(?:Z|UTC|GMT|[+-]\d\d:?\d\d))?\]?"
)
_LEVEL = (
    r"[\[(]?(?P<level>DEBUG|INFO|NOTICE|SUCCESS|WARN|WARNING|ERROR|CRITICAL|FATAL|TRACE|NOTSET|Level \d{1,3}"
    r"|debug|info|warn|warning|error|critical)[ ]{0,8}[\])]?"
)
_LOGGER = r"(?P<logger>(?:(?! - )[^\n]){1,100})"
_LOGGER_COLON = r"(?:(?!TOOL_RESULTS:)(?P<logger>[\w.]{1,100}): ?)?"
_LAYOUTS = {
    # The seed's: time - logger - level - message.
    "dashes": rf"{_STAMP} - {_LOGGER} - {_LEVEL} - ?(?P<message>.*)",
    "no-logger": rf"{_STAMP} - {_LEVEL} - ?(?P<message>.*)",
    "bars": rf"{_STAMP} \| {_LEVEL} ?\| (?P<logger>\S{{1,200}}) - ?(?P<message>.*)",
    "brackets": rf"{_STAMP} ?\[(?P<logger>[\w.]{{1,100}})\] ?{_LEVEL} - ?(?P<message>.*)",
    "level-first": rf"{_STAMP}:? {_LEVEL}:? {_LOGGER_COLON}(?P<message>.*)",
}
_LAYOUT = {name: re.compile(f"^{layout}$", re.ASCII | re.DOTALL) for name, layout in _LAYOUTS.items()}
_LEVELS = {"WARN": "WARNING", "FATAL": "CRITICAL"}
_STAMP_INSIDE = re.compile(r"\[?\d{4}[-/.]\d\d[-/.]\d\d[T _]\d\d:\d\d:\d\d", re.ASCII)
_BEFORE_RECORD = "\r\0\x0b\x0c\x1a\ufeff\ufffe\u200b\u2060"
# What a progress bar leaves on its line, and a logger then goes on: `100%|####| 434/434 [00:03<00:00]`.
_BAR = re.compile(
    r"(?:\d{1,3}%\|[^|\n]{0,300}\|[^\[\]\n]{0,60}|\d{1,12}it )\[[^\[\]\n]{1,60}\]\s{0,8}$", re.ASCII
)
_BEGINS_SESSION = ("=====", "PHASE ", "[INITIALIZATION]")

_STRING = r"[^\x07\x1b\x9c\n]{0,4096}(?:\x07|\x1b\\|\x9c)"
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    rf"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f]){_STRING}"
    r"|\x1b[ -/]*[0-~]|[\x1b\x9b\x9d\x90\x98\x9e\x9f]"
)
# Colours as they are spelt where the escape character was lost or made visible on the way.
_SPELT = re.compile(r"(?:\^\[|\\x1b|\\033|\\e|\\u001b|\u241b|\ufffd)?\[\d{1,3}(?:;\d{1,3}){0,6}m")
_SPELT_RESET = re.compile(r"(?:\^\[|\\x1b|\\033|\\e|\\u001b|\u241b|\ufffd)\[m")
_TAG = re.compile(r"^\[[A-Z][A-Z _]{1,40}\]")
LONGEST_HEAD = 400
"""Characters in which the prefix of a record begins and ends, with what stands before it."""


@dataclass(frozen=True)
class Prefix:
    """What stands before a message. `shape` is the layout and how times are written, `time` is ISO 8601."""

    shape: str
    time: str
    logger: str
    level: str
    message: str


def prefix_of(text: str) -> Prefix | None:
    """The prefix of a line that begins a record; None for any other line."""
    if not _STAMP_INSIDE.match(text):
        return None
    for layout, pattern in _LAYOUT.items():
        if match := pattern.match(text):
            return _prefix(layout, match)
    return None


def begins_session(message: str) -> bool:
    """Whether a message is one with which a run begins."""
    return message.startswith(_BEGINS_SESSION)


def prefix_place(text: str) -> int | None:
    """Where near the beginning of a line the prefix of a record stands; None without one."""
    stamps = _STAMP_INSIDE.finditer(text, 0, LONGEST_HEAD)
    return next((stamp.start() for stamp in stamps if prefix_of(text[stamp.start() :])), None)


def has_stamp(text: str) -> bool:
    """Whether a time stands near the beginning of a line, so that it may be that of a record."""
    return _STAMP_INSIDE.search(text, 0, LONGEST_HEAD) is not None


def without_escapes(text: str) -> str:
    """`text` without the escape sequences of terminals, 7 bit and 8 bit; an open one loses its introducer."""
    if text.isascii() and text.isprintable():
        return text
    return _ESCAPES.sub("", text)


def without_spelt_colours(lines: list[str]) -> list[str]:
    """Lines without colours that are spelt out (`^[[32m`, `[0m`), if prefixes of this log are so painted."""
    if not any("[" in line and _is_painted(before, line) for before, line in pairwise(["", *lines])):
        return lines
    return [_unpainted(line) if "[" in line else line for line in lines]


def records_apart(text: str) -> Iterable[str]:
    """The parts of one line: a record may follow a progress bar, a carriage return or a hole of NULs."""
    if not _STAMP_INSIDE.search(text, 1):
        return (text,)
    return tuple(_records_apart(text))


def _records_apart(text: str) -> Iterator[str]:
    begun = 0
    for match in _STAMP_INSIDE.finditer(text, 1):
        start = match.start()
        glued = text[start - 1] in _BEFORE_RECORD or _BAR.search(text, max(0, start - LONGEST_HEAD), start)
        if glued and prefix_of(text[start : start + LONGEST_HEAD]):
            if head := text[begun:start].strip(_BEFORE_RECORD):
                yield head
            begun = start
    yield text[begun:]


def _prefix(layout: str, match: re.Match[str]) -> Prefix:
    found = match.groupdict()
    fraction = ((found["fraction"] or "") + "000")[:3]
    day = f"{found['year']}-{found['month']}-{found['day']}"
    writing = "".join(found[part] or "" for part in ("open", "day_sep", "sep", "point"))
    level = found["level"].upper()
    # A level outside the five that Python's logging names is a habit of its own.
    known = "" if found["level"] in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL") else found["level"]
    return Prefix(
        shape=f"{layout} {writing} {bool(found['zone'])} {known}",
        time=f"{day}T{found['clock']}.{fraction}",
        logger=found.get("logger") or "",
        level=_LEVELS.get(level, level),
        message=found["message"],
    )


def _unpainted(line: str) -> str:
    return _SPELT_RESET.sub("", _SPELT.sub("", line))


def _is_painted(before: str, line: str) -> bool:
    """Whether a prefix, or the tag of a message, is painted; a message may begin after its line."""
    head = line[:LONGEST_HEAD]
    bare = _unpainted(head)
    if bare == head:
        return False
    if not has_stamp(head):
        opening = prefix_of(before)
        return opening is not None and not opening.message.strip() and _paints_tag(head, bare)
    painted, plain = prefix_of(head), prefix_of(bare)
    if painted is None or plain is None:
        return plain is not None
    return _paints_tag(painted.message, plain.message)


def _paints_tag(painted: str, plain: str) -> bool:
    return _TAG.match(plain) is not None and _TAG.match(painted) is None
