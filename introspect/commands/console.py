"""Where commands write: a console for people, and one line of JSON for programs."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator
from typing import IO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from introspect.commands.start import leave_unwritable_streams
from introspect.display import printable


class CommandConsole(Console):
    """A rich console without syntax colours, to which a reader that has gone is the error that it is.

    rich itself ends the program there, with a code that says that it failed. No text has effect here,
    whatever it holds and whoever prints it: not as markup, and not as a control sequence.
    """

    def __init__(self, *, stderr: bool = False, file: IO[str] | None = None) -> None:
        super().__init__(stderr=stderr, file=file, highlight=False, markup=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """What is written of something that can be shown; rich's own control codes pass, no others."""
        for segment in super().render(renderable, options):
            safe = segment.control or (segment.text.isascii() and segment.text.isprintable())
            yield segment if safe else Segment(printable(segment.text), segment.style)

    def show_cursor(self, show: bool = True) -> bool:
        """Leave the cursor as it is: a program that is killed or suspended gives no hidden one back."""
        return False

    def on_broken_pipe(self) -> None:
        """Write nothing more, and raise BrokenPipeError."""
        self.quiet = True
        leave_unwritable_streams()
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def print_json(value: object) -> None:
    """Write one line of JSON to stdout, in ASCII. Raises ValueError for a number that JSON does not have.

    An iterator among the members of an object becomes a list, of which one item at a time is in memory.
    """
    if not isinstance(value, dict) or not any(isinstance(item, Iterator) for item in value.values()):
        sys.stdout.write(_json(value) + "\n")
        return
    for place, (name, item) in enumerate(value.items()):
        sys.stdout.write(f"{', ' if place else '{'}{_json(name)}: ")
        if not isinstance(item, Iterator):
            sys.stdout.write(_json(item))
            continue
        sys.stdout.write("[")
        for number, row in enumerate(item):
            sys.stdout.write(f"{', ' if number else ''}{_json(row)}")
        sys.stdout.write("]")
    sys.stdout.write("}\n")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=True, allow_nan=False)
