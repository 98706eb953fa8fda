"""What was found in a text, remembered while other replies of its session are compared with it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

MOST_CHARACTERS = 524_288
"""Of the texts that one function remembers: twice what a reply is compared with."""
MOST_TEXTS = 64
_Found = TypeVar("_Found")


def remembered(find: Callable[[str], _Found]) -> Callable[[str], _Found]:
    """Keep what a function found in the last `MOST_TEXTS` new texts, in all of `MOST_CHARACTERS` at most.

    What it finds takes up to a hundred bytes a character, and a log may hold texts of any length: counting
    texts instead of characters would let it take all memory.
    """
    known: dict[str, _Found] = {}
    characters = 0

    @wraps(find)
    def again(text: str) -> _Found:
        nonlocal characters
        if text in known:
            return known[text]
        found = find(text)
        if len(text) <= MOST_CHARACTERS:
            known[text] = found
            characters += len(text) + 1
            while characters > MOST_CHARACTERS or len(known) > MOST_TEXTS:
                oldest = next(iter(known))
                del known[oldest]
                characters -= len(oldest) + 1
        return found

    return again
