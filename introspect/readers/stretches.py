"""The stretches of earlier texts that a reply can hold, and what stands beside them there."""

from __future__ import annotations

from collections.abc import Sequence

from introspect.readers.text_memory import remembered

FRAGMENT = 14
"""Characters: the longest word that two texts share by chance is shorter, with the space around it."""
_EDGE = "\n\n"
_Text = tuple[str, dict[str, int], dict[str, set[str]]]
"""A text with an edge on both sides; where each of its stretches last begins; of those that it has more than
once the four characters around each."""


class Stretches:
    """Every stretch of `FRAGMENT` characters in some texts.

    A reply asks for few of them beyond whether they are there, so what is beside one is looked up when it is
    asked for; what a text holds is remembered, because each reply asks for the same texts.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = [_stretches(text) for text in texts]

    def __contains__(self, stretch: str) -> bool:
        return any(stretch in places for _, places, _ in self._texts)

    def breaks_after(self, stretch: str, character: str) -> bool:
        """Whether a text has the stretch, and none has the character behind it."""
        return self._breaks(stretch, character, FRAGMENT, 2)

    def breaks_before(self, stretch: str, character: str) -> bool:
        """Whether a text has the stretch, and none has the character before it."""
        return self._breaks(stretch, character, -1, 1)

    def _breaks(self, stretch: str, character: str, offset: int, among: int) -> bool:
        """The character stands at `offset` from where a stretch begins, and is `among` those around it."""
        found = False
        for padded, places, more in self._texts:
            place = places.get(stretch)
            if place is not None:
                if padded[place + offset] == character:
                    return False
                if any(around[among] == character for around in more.get(stretch, ())):
                    return False
                found = True
        return found

    def before(self, stretch: str) -> set[str]:
        """The two characters before the stretch, wherever it stands."""
        return {around[:2] for around in self._around(stretch)}

    def after(self, stretch: str) -> set[str]:
        """The two characters behind the stretch, wherever it stands."""
        return {around[2:] for around in self._around(stretch)}

    def _around(self, stretch: str) -> set[str]:
        found = set[str]()
        for padded, places, more in self._texts:
            if (place := places.get(stretch)) is not None:
                found |= more.get(stretch, set()) | {_beside(padded, place)}
        return found


def _beside(padded: str, place: int) -> str:
    return padded[place - 2 : place] + padded[place + FRAGMENT : place + FRAGMENT + 2]


@remembered
def _stretches(text: str) -> _Text:
    padded, first = f"{_EDGE}{text}{_EDGE}", len(_EDGE)
    all_of_them = [padded[at : at + FRAGMENT] for at in range(first, len(padded) - FRAGMENT - first + 1)]
    places = dict(zip(all_of_them, range(first, first + len(all_of_them)), strict=True))
    more = dict[str, set[str]]()
    if len(places) < len(all_of_them):
        for place, stretch in enumerate(all_of_them, first):
            if places[stretch] != place:
                more.setdefault(stretch, set()).add(_beside(padded, place))
    return padded, places, more
