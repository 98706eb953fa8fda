"""Where two runs part, as a page."""

from __future__ import annotations

from introspect.readers.divergence import Divergence
from introspect.readers.parting import differing_fields, parting
from introspect.report.page import page

MOST_SHOWN = 4_000
"""Characters of a field that a page shows."""


def divergence_page(found: Divergence) -> str:
    """The page of what `diff` found."""
    token = found.token
    return page(
        "divergence.html",
        found=found,
        fields=differing_fields(found.event) if found.event else [],
        texts=parting(token.left_text, token.right_text) if token else None,
        most=MOST_SHOWN,
    )
