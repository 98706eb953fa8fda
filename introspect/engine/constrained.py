"""Sampling within a grammar: a mask over the logits, then the sampler that would have chosen without it.

The masks come from llguidance, which the extra `constrain` installs. They are laid on a copy:
log-probabilities and digests are of the logits that the model gave.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection
from typing import Any

import numpy as np
import torch

from introspect.engine.sampling import Sampler
from introspect.errors import ConfigError, ModelError

EXTRA = "introspect[constrain]"
MOST_COMPILED = 64
"""Grammars that are kept compiled; where tools are left out by what is in view, turns have many. Chosen."""


def refuse_without_llguidance() -> None:
    """Raise ConfigError, with what to install, where llguidance is not there."""
    if importlib.util.find_spec("llguidance") is None:
        raise ConfigError(
            f"generation.constrain: calls needs llguidance, which is not installed; pip install '{EXTRA}', or"
            " set it to none"
        )


class GrammarCompiler:
    """Compiles grammars, texts in llguidance's dialect of Lark, for the vocabulary of one model.

    `vocabulary` is how many logits the model gives, which may be more than the tokenizer has ids. `stop_ids`
    end a reply, and stand for nothing else. `added_ids` are the tokenizer's control tokens: none is sampled
    but where a grammar names it.
    """

    def __init__(
        self, tokenizer: Any, vocabulary: int, stop_ids: Collection[int], added_ids: Collection[int]
    ) -> None:
        """Raises ConfigError without llguidance, ModelError for a tokenizer that it cannot read."""
        refuse_without_llguidance()
        from llguidance.hf import from_tokenizer

        self.stop_ids = sorted(number for number in stop_ids if 0 <= number < vocabulary)
        self.added_ids = frozenset(added_ids)
        self.vocabulary = vocabulary
        try:
            self._tokenizer = from_tokenizer(tokenizer, n_vocab=vocabulary, eos_token=self.stop_ids)
        except Exception as error:  # a library in another language: its errors have no kind of their own
            raise ModelError(f"generation.constrain: llguidance cannot read the tokenizer: {error}") from None
        self._tokenizer_size = len(tokenizer)
        self._compiled: dict[str, Any] = {}

    def matcher(self, grammar: str) -> Any:
        """What follows one reply through a grammar. Raises ValueError for a text that is no grammar."""
        from llguidance import LLMatcher

        if grammar not in self._compiled:
            if len(self._compiled) >= MOST_COMPILED:
                self._compiled.pop(next(iter(self._compiled)))
            compiled = LLMatcher(self._tokenizer, grammar)
            if compiled.is_error():
                raise ValueError(f"the grammar cannot be compiled: {compiled.get_error()}")
            self._compiled[grammar] = compiled
        return self._compiled[grammar].deep_copy()

    def constrained(self, sampler: Sampler, grammar: str) -> ConstrainedSampler:
        """The sampler held to a grammar, for one reply."""
        named = {number for number in self.added_ids if f"<[{number}]>" in grammar}
        never = [number for number in self.added_ids - named if number < self.vocabulary]
        return ConstrainedSampler(
            sampler, self.matcher(grammar), never=never, stop_ids=self.stop_ids, size=self._tokenizer_size
        )


class ConstrainedSampler:
    """Holds a sampler to a grammar: it chooses among the ids that the grammar allows, and from no others.

    `never` are ids that are masked whatever the grammar says, and so are all from `size` on. `stop_ids` are
    allowed where the grammar may end, and nothing else is where it has to.
    """

    def __init__(
        self,
        sampler: Sampler,
        matcher: Any,
        *,
        never: Collection[int],
        stop_ids: Collection[int],
        size: int,
    ) -> None:
        self._sampler, self._matcher = sampler, matcher
        self._never, self._stop = torch.tensor(list(never), dtype=torch.long), torch.tensor(list(stop_ids))
        self._stop_ids, self._size = frozenset(stop_ids), size

    def choose(self, logits: torch.Tensor) -> int:
        """Raises RuntimeError where the grammar cannot be followed any further."""
        allowed = self.allowed(len(logits))
        masked = logits.masked_fill(~allowed, float("-inf"))
        chosen = self._sampler.choose(masked)
        if not allowed[chosen]:
            # A draw at the very end of a distribution's sum may fall on an id that has no share of it.
            chosen = int(torch.argmax(masked))
        if chosen not in self._stop_ids and not self._matcher.consume_token(chosen):
            raise RuntimeError(f"the grammar does not go on with id {chosen}: {self._matcher.get_error()}")
        return chosen

    def allowed(self, vocabulary: int) -> torch.Tensor:
        """Which ids may come next, `[vocabulary]`, boolean."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            raise RuntimeError(f"the grammar cannot be followed: {self._matcher.get_error()}")
        mask = np.zeros(vocabulary, dtype=np.bool_)
        known = min(vocabulary, self._size)
        mask[:known] = np.unpackbits(bits, count=known, bitorder="little")
        allowed = torch.from_numpy(mask)
        allowed[self._never] = False
        allowed[self._stop] = self._matcher.is_accepting()
        return allowed
