"""What a command's end becomes: an exit code, and for every expected error one line on stderr."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import typer

from introspect.commands.start import leave_unwritable_streams, open_streams
from introspect.engine.interrupts import Terminated
from introspect.errors import IntrospectError

_UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[1])
"""typer's own base of everything that is wrong with a command line."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_UNWRITABLE = (errno.EFBIG, errno.EIO, errno.ENXIO, errno.EAGAIN)
"""What writing to a stream meets: a limit on files, a terminal that is gone, a pipe that is full."""


def exit_code(command: Callable[[], Any]) -> int:
    """Run a command and return its exit code. An error that nobody expected is raised."""
    open_streams()
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character is no reason to fail.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = command()
        sys.stdout.flush()
    except (IntrospectError, _UsageError) as error:
        message = error.format_message() if isinstance(error, _UsageError) else str(error)
        if message:
            _say(message)
        return int(getattr(error, "exit_code", 2))
    except BrokenPipeError:
        leave_unwritable_streams()
        return 0
    except SystemExit as end:
        # rich ends a program with 1 where the reader of its output has gone; nothing else here does.
        return 0 if end.code == 1 else int(end.code or 0)
    except (KeyboardInterrupt, typer.Abort) as end:
        # typer makes an Abort of what passes through it.
        terminated = isinstance(end, Terminated) or isinstance(end.__cause__, Terminated)
        _say("terminated" if terminated else "interrupted")
        return 143 if terminated else 130
    except OSError as error:
        # Opening a file names it; writing to a stream does not.
        if error.errno not in _NO_ROOM and (error.filename is not None or error.errno not in _UNWRITABLE):
            raise
        leave_unwritable_streams()
        _say(f"cannot write any more: {error.strerror}; free space, or let the output go to a file")
        return 1
    return code if isinstance(code, int) else 0


def _say(message: str) -> None:
    from introspect.display import one_line

    with suppress(OSError):
        sys.stderr.write(f"introspect: {one_line(message)}\n")
    leave_unwritable_streams()


def leave_output() -> None:
    """Nobody reads any more: what is left to say, on stdout or stderr, goes nowhere."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
