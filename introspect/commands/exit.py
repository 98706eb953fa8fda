"""What a command's end becomes: an exit code, and for every expected error one line on stderr."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress

import typer

from introspect.commands.start import leave_unwritable_streams, open_streams
from introspect.engine.interrupts import Terminated
from introspect.engine.out_of_memory import is_out_of_memory
from introspect.errors import ExitCode, IntrospectError, first_line

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_UNWRITABLE = (errno.EFBIG, errno.EIO, errno.ENXIO, errno.EAGAIN)
"""What writing to a stream meets: a limit on files, a terminal that is gone, a pipe that is full."""


def exit_code(command: Callable[[], object]) -> int:
    """Run a command and return its exit code. An error that nobody expected is raised."""
    open_streams()
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character is no reason to fail.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = command()
        sys.stdout.flush()
    except (IntrospectError, typer.TyperException) as error:
        message = error.format_message() if isinstance(error, typer.TyperException) else str(error)
        if message:
            _say(message)
        return error.exit_code
    except BrokenPipeError:
        leave_unwritable_streams()
        return ExitCode.DONE
    except SystemExit as end:
        # typer prints help with a console of rich's own, which ends a program where its reader has gone.
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        return ExitCode.DONE
    except (KeyboardInterrupt, typer.Abort) as end:
        # typer makes an Abort of what passes through it.
        terminated = isinstance(end, Terminated) or isinstance(end.__cause__, Terminated)
        _say("terminated" if terminated else "interrupted")
        return ExitCode.TERMINATED if terminated else ExitCode.INTERRUPTED
    except OSError as error:
        # Opening a file names it; writing to a stream does not.
        if error.errno not in _NO_ROOM and (error.filename is not None or error.errno not in _UNWRITABLE):
            raise
        leave_unwritable_streams()
        _say(f"cannot write any more: {error.strerror}; free space, or let the output go to a file")
        return ExitCode.FAILED
    except (MemoryError, RuntimeError) as error:
        # Weights, a record or a tool by hand may be too large where there is no conversation to prune.
        if not is_out_of_memory(error):
            raise
        _say(f"out of memory ({first_line(error)}); free some, or take a smaller model or model.dtype")
        return ExitCode.FAILED
    return code if isinstance(code, int) else ExitCode.DONE


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
