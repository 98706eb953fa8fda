"""Foreign text on a page: escaped for HTML, and whatever would act on a display shown as what it is.

`shown` is for the contents of HTML elements, `plain` for attributes, `<title>` and SVG, which take no markup.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

from markupsafe import Markup, escape

_SUSPECT = re.compile(r"[^\n\t\x20-\x7e]")
_ACTING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"
_VARIATIONS = "\ufe0e\ufe0f"
"""Invisible, but what scripts and emoji are spelled with: kept where they stand at a character of these."""
_KEYCAP = "\u20e3"
_INVISIBLE = (
    (0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2800, 0x2800),
    (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFFB), (0xFDD0, 0xFDEF),
    (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF),
)  # fmt: skip
"""What Unicode lets a display ignore (Default_Ignorable_Code_Point), letters without ink, noncharacters."""
_LINE = 88
"""Characters of JSON that stand on one line where they fit."""


def escapes(text: str) -> list[tuple[str, bool]]:
    """`text` in pieces, in order; those with True are the escape, such as `\\x1b`, of one character."""
    pieces: list[tuple[str, bool]] = []
    end = 0
    for found in _SUSPECT.finditer(text):
        place = found.start()
        if _acts(text, place):
            pieces += [(text[end:place], False), (_escape(text[place]), True)]
            end = place + 1
    return [piece for piece in [*pieces, (text[end:], False)] if piece[0]]


def shown(text: str) -> Markup:
    """The text as HTML, each character that acts an escape in an element of its own, told from the text."""
    parts = (
        Markup('<span class="esc">{}</span>').format(t) if acts else escape(t) for t, acts in escapes(text)
    )
    return Markup("").join(parts)


def plain(text: str) -> str:
    """The text with the same escapes and no markup: one for attributes and for SVG, not escaped for HTML."""
    return "".join(piece for piece, _ in escapes(text))


def cut(text: str, most: int) -> str:
    """At most `most` characters of a text, with the count of those that are left out."""
    if len(text) <= most:
        return text
    return f"{text[:most]}… ({len(text) - most} more characters in the record)"


def pretty(value: Any, most: int) -> str:
    """A value of a record as JSON for people, cut to `most` characters."""
    lines: list[str] = []
    room = most
    for line in _json_lines(value, ""):
        lines.append(line)
        room -= len(line) + 1
        if room < 0:
            break
    text = "\n".join(lines)
    return text if room >= 0 else f"{text[:most]}… (cut here; the record has all of it)"


def _json_lines(value: Any, indent: str) -> Any:
    """The lines of a value, a container on one where it fits; values of a record nest a bounded depth."""
    flat = one_line_json(value)
    if len(flat) + len(indent) <= _LINE or not isinstance(value, dict | list) or not value:
        yield indent + flat
        return
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    yield indent + opening
    inner = indent + "  "
    rows = value.items() if isinstance(value, dict) else ((None, item) for item in value)
    last = len(value) - 1
    for number, (key, item) in enumerate(rows):
        label = "" if key is None else f"{one_line_json(key)}: "
        lines = _json_lines(item, inner)
        pending = inner + label + next(lines)[len(inner) :]
        for line in lines:
            yield pending
            pending = line
        yield pending + "," * (number < last)
    yield indent + closing


def one_line_json(value: Any) -> str:
    """A value as JSON on one line; what JSON cannot hold, as its text."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except (RecursionError, ValueError):
        return "(nested too deeply to show)"


def _acts(text: str, place: int) -> bool:
    character = text[place]
    code = ord(character)
    before, after = text[max(0, place - 1) : place], text[place + 1 : place + 2]
    if character in _VARIATIONS:
        return not _spells(before) and after != _KEYCAP
    if character in _JOINERS:
        return not ((_spells(before) or before == _VARIATIONS[1]) and _spells(after))
    if unicodedata.category(character) in _ACTING or code & 0xFFFE == 0xFFFE:
        return True
    return any(first <= code <= last for first, last in _INVISIBLE)


def _spells(character: str) -> bool:
    """Whether scripts and emoji may join a character, or choose how it looks."""
    if not character or character.isascii() or character.isspace():
        return False
    return character not in _JOINERS + _VARIATIONS and unicodedata.category(character) not in _ACTING


def _escape(character: str) -> str:
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
