"""What the system prompts of a phase are made of, and how many tokens they have: each is counted once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from introspect.phase.config import ExperimentConfig, PhaseConfig
from introspect.prompt.prompt import PromptFormat
from introspect.session.dialect import Dialect, Instructions, instructions_of
from introspect.session.system_prompt import Detail
from introspect.tools.base import Tool
from introspect.tools.library import Document


@dataclass(frozen=True)
class PromptParts:
    """The tools and documents of a phase, and the dialect and the format in which a model reads of them."""

    phase: PhaseConfig
    tools: Mapping[str, Tool]
    documents: Mapping[str, Document]
    prompt_format: PromptFormat
    dialect: Dialect
    _counted: dict[tuple[Detail, tuple[Document, ...]], int] = field(
        default_factory=dict, repr=False, compare=False
    )

    def offered(self, experiment: ExperimentConfig) -> dict[str, Tool]:
        """The tools that an experiment offers, by name."""
        return {name: self.tools[name] for name in self.phase.tools_of(experiment)}

    def pinned(self, experiment: ExperimentConfig) -> tuple[Document, ...]:
        """The documents whose texts stand in the system prompt of an experiment, in the phase's order."""
        if not self.phase.documents_pinned:
            return ()
        return tuple(self.documents[name] for name in self.phase.documents_of(experiment))

    def instructions(
        self, experiment: ExperimentConfig, detail: Detail, pinned: Sequence[Document] | None = None
    ) -> Instructions:
        """What a model reads before the task of an experiment; `pinned` in the place of its own documents."""
        texts = self.pinned(experiment) if pinned is None else pinned
        tools = self.offered(experiment)
        return instructions_of(self.phase, tools, detail, self.dialect, self.prompt_format, texts)

    def tokens(self, detail: Detail, pinned: tuple[Document, ...] = ()) -> int:
        """Tokens of a system prompt with all tools of the phase and with these documents pinned."""
        if (detail, pinned) not in self._counted:
            told = instructions_of(self.phase, self.tools, detail, self.dialect, self.prompt_format, pinned)
            self._counted[detail, pinned] = told.tokens
        return self._counted[detail, pinned]

    def longest(self, detail: Detail) -> int:
        """Tokens of the longest system prompt, with all tools and the longest documents of an experiment."""
        return max(self.tokens(detail, pinned) for pinned in self.pinned_sets())

    def pinned_sets(self) -> list[tuple[Document, ...]]:
        """What is pinned together, each once, in the order of the experiments."""
        return list(dict.fromkeys(map(self.pinned, self.phase.experiments)))
