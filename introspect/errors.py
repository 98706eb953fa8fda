"""Errors with an addressee.

    IntrospectError            the user's: one line says what, where and what to do; exit 2
    |-- ConfigError            a phase file, a --set or an option
    |-- ModelError             a model that is missing, unreadable or not supported
    |-- RecordError            a run, log or event file that cannot be read
    |   `-- RecordDiverged     one that this program, with this model, would not have written
    |-- ProcessError           a process of the program's own that this system does not let start
    |-- RequirementError       a phase that must not start yet; exit 4
    |-- RunFailed              a run that cannot go on: its record or its notes cannot be written; exit 1
    |-- UnsupportedCache       a model family or cache class that a check cannot judge
    |-- UnknownPath            a decode path that this version cannot repeat
    |   `-- PathRefused        one that would leave out what the model does now
    ToolError                  the model's: becomes a tool result that the model reads

Every other exception is a defect of this program and ends in a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum

from introspect.display import one_line


class ExitCode(IntEnum):
    """What a command ends with, to whoever started it."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    CORRUPT = 3
    UNMET = 4
    INTERRUPTED = 130
    TERMINATED = 143


class IntrospectError(Exception):
    """Something that the user can put right. The message is one line; `exit_code` is the contract's.

    Whatever text it quotes, nothing in the message has effect on a display.
    """

    exit_code = ExitCode.USAGE

    def __str__(self) -> str:
        return one_line(super().__str__())


class ConfigError(IntrospectError):
    """A phase file, a `--set` or an option is wrong."""


class ModelError(IntrospectError):
    """A model is missing, unreadable or outside what is supported."""


class RecordError(IntrospectError):
    """A record of a run cannot be read."""


class RecordDiverged(RecordError):
    """A run executed again does not give what its record says."""


class ProcessError(IntrospectError):
    """A process that the program needs does not start here; nothing is said of what it was to look at."""


class RequirementError(IntrospectError):
    """A phase may not start yet: what it requires is not met."""

    exit_code = ExitCode.UNMET


class RunFailed(IntrospectError):
    """A run cannot go on where it is written: no room, no permission, or its directory has gone."""

    exit_code = ExitCode.FAILED


class UnsupportedCache(IntrospectError):
    """A cache cannot be judged because of its class or its model's family. Damage never raises this."""


class UnknownPath(IntrospectError):
    """Ids were decoded by a path that this version does not have, so that they cannot be decoded so again."""


class PathRefused(UnknownPath):
    """A decode path that there is would not do what the model does now, with hooks or other attention."""


class ToolError(Exception):
    """A tool call that cannot be answered; the model reads the message and can act on it."""


_MOST_OFFERED = 6
"""Names that a hint offers where they are equally near: the five shipped phases are to `phase1`."""


TO_A_MODEL = 0.5
"""How like a name has to be that a model is offered: less than for people, for a model cannot look it up."""


def first_line(error: BaseException) -> str:
    """The first line of what an error says, 120 characters at most, without its number; else its name."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (next(iter(said.splitlines()), "") or type(error).__name__)[:120]


def nearest(name: str, known: Iterable[str], most: int = 3, least: float = TO_A_MODEL) -> list[str]:
    """The known names most like `name`, best first; empty where none is close."""
    folded = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(name.casefold(), list(folded), n=most, cutoff=least)
    return [folded[match] for match in close]


def did_you_mean(name: str, known: Iterable[str], least: float = 0.6) -> str:
    """A clause that offers the nearest known name, all that are as near, or what is known when none is.

    `least` is how like a name has to be, 1 for the same.
    """
    known = list(known)
    close = nearest(name, known, _MOST_OFFERED, least)
    if close:
        likeness = [difflib.SequenceMatcher(None, one.casefold(), name.casefold()).ratio() for one in close]
        best = sorted(one for one, like in zip(close, likeness, strict=True) if like == likeness[0])
        return f"did you mean {' or '.join(map(repr, best))}?"
    return "known: " + ", ".join(sorted(known)) if known else "none is known"
