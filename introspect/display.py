"""Text that others wrote, made fit to be shown: what may reach a terminal or a log is decided here alone."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Takes what is worked on, how much of it is done, and how much there is."""

GOOD, WARNING, BAD = "color(28)", "color(166)", "color(160)"
TOOL, MEMORY = "color(31)", "color(133)"
"""Colours of the 256 that stand out from white and from black: the plain ones vanish on one of them."""

_KEPT = frozenset("\n\t\u200c\u200d")
"""Kept although not printable: the layout, and the two joiners that scripts and emoji are spelled with."""
_ESCAPED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    """`text` with every character that acts on a display, instead of standing in it, as a visible escape.

    Control characters (ANSI sequences with them), bidirectional and other format characters, line and
    paragraph separators, and lone surrogates become `\\x1b`, `\\u202e` and the like. Newline and tab stay.
    """
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(map(_visible, text))


def one_line(text: str) -> str:
    """`printable(text)` with newlines and tabs escaped too: one line, whatever it was."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def _visible(character: str) -> str:
    if character in _KEPT or unicodedata.category(character) not in _ESCAPED_CATEGORIES:
        return character
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def counted(number: int, noun: str) -> str:
    """A number of things: `1 turn`, `2 turns`."""
    return f"{number} {noun}{'s' * (number != 1)}"
