"""The keys of a document of one's own."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated

from pydantic import Field

from introspect.phase.section import Name, Section


class DocumentConfig(Section):
    """A document of one's own, as a mapping."""

    file: Annotated[str, Field(min_length=1)]
    """Its path, from the file that says it."""
    id: Name | None = None
    """What experiments and tools call it; null takes the file's name, less its ending."""
    title: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """What the model reads above it; null takes its first heading."""
    summary: Annotated[str, Field(max_length=1000)] | None = None
    """What `get_heritage_summary` says of it; null takes its first sentence."""

    @property
    def name(self) -> str:
        """The id, given or taken from the file's name."""
        return self.id or PurePath(self.file).stem
