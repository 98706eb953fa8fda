"""The keys of what a model reads first, writes down and predicts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from introspect.phase.section import Section


class SystemPromptConfig(Section):
    """What the model reads before every task, beside what the program says of calls and tools."""

    detail: Literal["auto", "full", "brief"] = "auto"
    """How fully tools are described; `auto`: as the model's directory recommends, else fully within half its
    context."""
    text: str = ""
    """Its first words: who the model is and what it is about."""


class NotesConfig(Section):
    """What the model writes down with `record_observation`."""

    shared: bool = False
    """True: the runs under one output directory share their notes; false: each run begins with none."""


class PredictionsConfig(Section):
    """How predictions of figures are judged."""

    tolerance: Annotated[float, Field(gt=0, le=1)] = 0.1
    """How far a prediction may lie from the figure, over the figure, and still be right."""
