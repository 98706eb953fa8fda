"""What is wrong with the cache of a turn, by the name that an examination of its contents gives it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from introspect.cache_check.examine import Finding
from introspect.errors import UnsupportedCache
from introspect.model.cache_audit import Findings, examine_cache
from introspect.session.protocols import CachedTurn


@dataclass(frozen=True)
class Examiner:
    """Names faults of caches of one model; with a `tokenizer`, by the text of their tokens too."""

    model: Any
    tokenizer: Any = None

    def named(self, state: CachedTurn, found: Findings) -> Findings:
        """What an examination names where something was found; `found` where it has no name for it."""
        if not found:
            return found
        try:
            # Ids decoded on top of a damaged prompt are wrong too, in ways that would only hide its name.
            decoded = len(state.token_ids) - state.prompt_tokens
            prompt = state.cache.fork()
            for layer in prompt.layers:
                layer.truncate(max(0, layer.get_seq_length() - decoded))
            findings = examine_cache(self.model, prompt, state.token_ids[: state.prompt_tokens])
            findings = findings or examine_cache(self.model, state.cache, state.token_ids)
        except UnsupportedCache:
            return found
        return [(finding.code, self._detail(finding)) for finding in findings] or found

    def _detail(self, finding: Finding) -> str:
        """A finding with what the slot holds and what it should hold, as text, side by side."""
        if self.tokenizer is None or finding.token is None or finding.expected_token is None:
            return finding.detail
        has, meant = (self.tokenizer.decode([i]) for i in (finding.token, finding.expected_token))
        return f"{finding.detail} (slot {finding.slot} holds {has!r}, meant is {meant!r})"
