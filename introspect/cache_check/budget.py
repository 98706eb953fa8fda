"""How much may be computed to judge a cache, in forward passes of its ids, and how much has been."""

from __future__ import annotations

SOUND, DAMAGED = 3.0, 12.0
"""Forward passes of the given ids that may be spent until rounding explains what differs, and in all. It is
what `check_cache` promises."""
SHORTEST, COUNTED_AS = 512, 2048
"""Ids below which a cache is short, and those that a short one is counted as. Chosen: the passes of few ids
that are tried for a slot are as long in a short cache as in a long one, and cost little."""
HEALED = 9.0
"""Forward passes that may have been spent when the last damaged layer is healed. Chosen: what is left behind
it is for the masks. With less, damage of a lower layer is counted in those above it too."""
TRIAL = 1.5
"""Forward passes in which it is tried whether slots are exact once one before them is healed. Chosen: a pass
of all ids, and passes of few ids for some."""
OTHER_FILLING, ONE_SEARCH = 2.0, 1.0
"""Forward passes that the search for another backend, thread count or odd pass may take before anything is
healed, and that each search after a healing may. Chosen: the rest has to do for the healing."""


class Budget:
    """Work in ids times layers, of which one forward pass of all ids through all layers is the unit.

    Fewer ids than SHORTEST count as COUNTED_AS.

    Args:
        length: Ids of the cache.
        layers: Layers of the model.
    """

    def __init__(self, length: int, layers: int) -> None:
        self.unit = (length if length >= SHORTEST else COUNTED_AS) * layers
        self.limit = DAMAGED
        self.used = 0

    @property
    def left(self) -> int:
        """Ids times layers that may still be computed."""
        return max(0, int(self.limit * self.unit) - self.used)

    def allow(self, more: float) -> None:
        """Let so many forward passes more be spent, but not beyond HEALED."""
        self.limit = min(HEALED, self.used / self.unit + more)

    def affords(self, ids: int, layers: int) -> bool:
        """Whether that many ids may still go through that many layers."""
        return ids * layers <= self.left

    def spend(self, ids: int, layers: int) -> None:
        """Count work. Raises AssertionError where it was not affordable: that is for the caller to ask."""
        self.used += ids * layers
        assert self.used <= int(DAMAGED * self.unit), "more was computed than is promised"
