"""Where commands write: a console for people, and one line of JSON for programs."""

from __future__ import annotations

import errno
import json
import os
import sys
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
    """Write one line of JSON to stdout, in ASCII. Raises ValueError for a number that JSON does not have."""
    sys.stdout.write(json.dumps(value, ensure_ascii=True, allow_nan=False) + "\n")
