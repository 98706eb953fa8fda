"""Where commands write: a console for people, and one line of JSON for programs."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterator
from typing import IO

from rich.console import Console

from introspect.commands.start import leave_unwritable_streams


class CommandConsole(Console):
    """A rich console without syntax colours, to which a reader that has gone is the error that it is.

    rich itself ends the program there, with a code that says that it failed.
    """

    def __init__(self, *, stderr: bool = False, file: IO[str] | None = None) -> None:
        super().__init__(stderr=stderr, file=file, highlight=False)

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
