"""One sign that a text is garbled, whichever rule saw it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Evidence:
    """One sign of garbling. `weight` counts towards `GARBLED`; `detail` quotes the (hostile) text."""

    kind: str
    weight: int
    detail: str
