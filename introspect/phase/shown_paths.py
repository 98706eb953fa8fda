"""Paths as messages and printed commands have them: a reader can paste them into the shell there."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable

from introspect.display import one_line

AnyPath = str | os.PathLike[str]


def near(path: AnyPath) -> str:
    """A path from the working directory where it lies below that, else an absolute one; never with `~`.

    A name that a command line would take for an option or a home directory begins with `./`.
    """
    text = os.fspath(path)
    try:
        whole = os.path.abspath(text)
        if ".." in text.split(os.sep) and os.path.realpath(whole) != os.path.realpath(text):
            whole = os.path.realpath(text)
        below = next((place for place in _here() if os.path.commonpath((place, whole)) == place), None)
    except (OSError, ValueError):
        return text
    if below is None:
        return whole
    relative = os.path.relpath(whole, below)
    return f"./{relative}" if relative.startswith(("-", "~")) else relative


def shell_path(path: AnyPath) -> str:
    """A path as a message shows it: `near`, as one word of a shell's."""
    return shell_word(near(path))


def shell_word(text: str) -> str:
    """A text that a shell reads as one word, and that does not act on a display."""
    if one_line(text) == text:
        return shlex.quote(text)
    return "$'" + "".join(map(_in_quotes, text)) + "'"


def shell_line(words: Iterable[str]) -> str:
    """Words as one line of a shell's."""
    return " ".join(map(shell_word, words))


def _here() -> list[str]:
    """The working directory, and how the shell calls it where the way there has a link."""
    here, called = os.getcwd(), os.environ.get("PWD", "")
    same = os.path.isabs(called) and os.path.realpath(called) == here
    return [here, os.path.normpath(called)] if same else [here]


def _in_quotes(character: str) -> str:
    """A character between `$'` and `'`, where escapes stand for bytes."""
    if character in "\\'":
        return f"\\{character}"
    if one_line(character) == character:
        return character
    try:
        return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
    except UnicodeEncodeError:
        return one_line(character)
