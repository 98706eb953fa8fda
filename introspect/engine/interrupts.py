"""When a signal takes effect: at once amid work that is thrown away anyway, elsewhere where it is asked for.

The first signal breaks off what is `breakable` (a forward pass, a tool); anywhere else it is noted, and takes
effect at the next question. The second one is at once anywhere, but for what must be `whole` (a line of the
record). A run that is being broken off is broken off once: what comes later does not disturb its end.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from introspect.errors import ExitCode

ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
)
"""What asks a program to end: a user, a scheduler, a terminal that goes away, Slurm's `--signal`."""
_STAY_IGNORED = frozenset({"SIGHUP", "SIGUSR1"})
_PATIENCE = 5
"""Signals after which even what must be whole is broken off: it may wait for a reader that never reads."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C. Not KeyboardInterrupt itself: the interpreter remembers having seen one pass through `exec` (as
    many imports do), and in the end kills the program by the signal, whatever its exit code was to be."""


class Terminated(KeyboardInterrupt):
    """The program is asked to end by a signal that is not the user's Ctrl-C."""


class _Section:
    """A block of the program, entered any number of times within itself."""

    depth = 0

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *exc: object) -> None:
        self.depth -= 1


class Interrupts:
    """Notes signals and knows when they may take effect. `asked` is another reason to end."""

    def __init__(self, asked: Callable[[], bool] = lambda: False) -> None:
        self.signal: int | None = None
        self.breakable = _Section()
        self.whole = _Section()
        self._asked = asked
        self._seen = 0
        self._raised = False

    def __call__(self) -> bool:
        return self.signal is not None or self._asked()

    def check(self) -> None:
        """Raise KeyboardInterrupt where the program has been asked to end."""
        if self():
            self._break_off()

    def note(self, number: int, frame: FrameType | None = None) -> None:
        """The handler of a signal. Raises KeyboardInterrupt where it takes effect at once."""
        self._seen += 1
        again, self.signal = self.signal is not None, self.signal or number
        if self._seen < _PATIENCE and (self._raised or self.whole.depth):
            return
        if again or self.breakable.depth:
            self._break_off()

    def _break_off(self) -> None:
        self._raised = True
        raise Interrupted if self.exit_code == ExitCode.INTERRUPTED else Terminated

    @property
    def exit_code(self) -> int:
        """130 for an interrupt from the keyboard, 143 for every other request to end."""
        return ending_code(self.signal)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """In the block, signals that end a program are noted here."""
        with handled_by(self.note):
            yield


def ending_code(number: int | None) -> int:
    """The exit code of a program that a signal ended in good order; None is the keyboard's."""
    return ExitCode.INTERRUPTED if number in (None, signal.SIGINT) else ExitCode.TERMINATED


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """In the block, `handler` gets the signals that end a program.

    What `nohup` and its like have had ignored stays so. In another thread than the first nothing is changed.
    """
    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in ENDING:
            left_alone = number.name in _STAY_IGNORED and signal.getsignal(number) is signal.SIG_IGN
            if not left_alone:
                previous[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in previous.items():
            # None: a handler that was not set from Python cannot be put back from here.
            signal.signal(number, signal.SIG_DFL if old is None else old)


def let_go() -> None:
    """For the last moments of a program, when all is said and written: signals change nothing any more."""
    if threading.current_thread() is threading.main_thread():
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)


class AtOnce:
    """A handler for what leaves nothing to put in order: raises where the program is.

    `signal` is the first that came; what passes through other libraries may come out as something else.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self, number: int, frame: FrameType | None = None) -> None:
        self.signal = self.signal or number
        raise Interrupted if number == signal.SIGINT else Terminated
