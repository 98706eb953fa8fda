"""The lines of a text file by windows, so that a log of any length is read in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from introspect.runlog.text_prefix import has_stamp

WINDOW_CHARS = 2**22
"""A log shorter than this is read as a whole, a longer one by parts of about this length."""
_LINE_CHARS = 60
"""What a line costs beyond its text, so that many empty ones fill a window too."""


@dataclass(frozen=True)
class Window:
    """Some lines of a file; `first` is the number of the first, counted from 1. `whole` where it is all."""

    first: int
    lines: Sequence[str]
    last: bool

    @property
    def whole(self) -> bool:
        """Whether these are all lines of the file."""
        return self.last and self.first == 1


def windows_of(lines: Iterable[str], size: int | None = None) -> Iterator[Window]:
    """Cut lines into windows of some `size` characters, before a line that begins with a time if one comes.

    At least one window, if an empty one.
    """
    size = WINDOW_CHARS if size is None else size
    first, kept, held = 1, list[str](), 0
    for line in lines:
        if held >= size and (has_stamp(line) or held >= 2 * size):
            yield Window(first, kept, False)
            first, kept, held = first + len(kept), [], 0
        kept.append(line)
        held += len(line) + _LINE_CHARS
    yield Window(first, kept, True)
