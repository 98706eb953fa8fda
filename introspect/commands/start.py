"""What a command starts with: streams that may be closed, an interpreter that may lack docstrings."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from introspect.errors import ConfigError

_WITHOUT_DOCSTRINGS = 2
"""The level of `-O` from which on Python drops docstrings."""


def open_streams() -> None:
    """Give a closed standard stream the null device, as if nobody read it.

    Else the next file that is opened takes its number: what is written to the terminal would go into a
    record. Standard input stays None where it was closed, so that a reader of it can say so.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        stream = getattr(sys, name)
        ours = stream is None or stream is getattr(sys, f"__{name}__")
        if not ours or (stream is not None and _usable(number, mode)):
            continue
        with suppress(OSError):
            if not _usable(number, mode):
                _null_device_as(number)
        if mode == "w":
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - it stays open


def leave_unwritable_streams() -> None:
    """What is left in a buffer that cannot be written must not raise again when the interpreter exits."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError):
                _null_device_as(stream.fileno())


def refuse_stripped_docstrings() -> None:
    """Raise ConfigError under `-OO`: transformers and the tools describe themselves by their docstrings."""
    if sys.flags.optimize >= _WITHOUT_DOCSTRINGS:
        raise ConfigError(
            "this Python drops docstrings (-OO, or PYTHONOPTIMIZE=2), which transformers and the tools need;"
            " unset PYTHONOPTIMIZE, or use -O"
        )


def _usable(number: int, mode: str) -> bool:
    """Whether a descriptor is open, and for writing where that is asked."""
    try:
        os.fstat(number)
        if mode == "w":
            import fcntl

            return fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    except OSError:
        return False
    except ImportError:
        return True
    return True


def _null_device_as(number: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != number:
        os.dup2(null, number)
        os.close(null)
    os.set_inheritable(number, True)
