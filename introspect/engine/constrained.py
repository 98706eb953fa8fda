"""Sampling within a grammar: a mask over the logits, then the sampler that would have chosen without it.

The masks come from llguidance, which the extra `constrain` installs. They are laid on a copy:
log-probabilities and digests are of the logits that the model gave.
"""

from __future__ import annotations

import importlib.util
import json
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

    `vocabulary` is how many logits the model gives, which may be more than the tokenizer has ids; ids that it
    does not have are never sampled. `stop_ids` end a reply, and stand for nothing else. `added_ids` are the
    tokenizer's control tokens: none is sampled but where a grammar names it.
    """

    def __init__(
        self, tokenizer: Any, vocabulary: int, stop_ids: Collection[int], added_ids: Collection[int]
    ) -> None:
        """Raises ConfigError without llguidance, ModelError for a tokenizer that it cannot read."""
        refuse_without_llguidance()
        self.stop_ids = sorted(number for number in stop_ids if 0 <= number < vocabulary)
        self.added_ids = frozenset(added_ids)
        self.vocabulary = vocabulary
        try:
            self._tokenizer = _readable(tokenizer, vocabulary, self.stop_ids)
        except Exception as error:  # a library in another language: its errors have no kind of their own
            raise ModelError(f"generation.constrain: llguidance cannot read the tokenizer: {error}") from None
        self._missing = frozenset(range(vocabulary)) - set(tokenizer.get_vocab().values())
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
        special = self.added_ids.union(self.stop_ids)
        named = {number for number in special if f"<[{number}]>" in grammar}
        never = [number for number in self.added_ids - named if number < self.vocabulary]
        return ConstrainedSampler(
            sampler,
            self.matcher(grammar),
            never=self._missing.union(never),
            stop_ids=self.stop_ids,
            named=named,
        )


def _readable(tokenizer: Any, vocabulary: int, stop_ids: list[int]) -> Any:
    """A tokenizer as llguidance reads it, which counts ids up to their number: holes in them are filled."""
    from llguidance import LLTokenizer
    from llguidance.hf import from_tokenizer

    ids = set(tokenizer.get_vocab().values())
    holes = set(range(max(ids))) - ids
    described = json.loads(tokenizer.backend_tokenizer.to_str()) if holes else {}
    if not isinstance(described.get("model", {}).get("vocab"), dict):
        return from_tokenizer(tokenizer, n_vocab=vocabulary, eos_token=stop_ids)
    # Read from its description, a token that is added to a vocabulary without it would take another id.
    added = {token["content"]: token["id"] for token in described["added_tokens"]}
    described["model"]["vocab"] |= added | {f"<hole{number}>": number for number in holes}
    described |= {"padding": None, "truncation": None}
    return LLTokenizer(json.dumps(described), n_vocab=vocabulary, eos_token=stop_ids)


class ConstrainedSampler:
    """Holds a sampler to a grammar: it chooses among the ids that the grammar allows, and from no others.

    `never` are ids that are masked whatever the grammar says. `stop_ids` are allowed where the grammar may
    end, and nothing else is where it has to; one that is `named` in the grammar also where it stands there.
    """

    def __init__(
        self,
        sampler: Sampler,
        matcher: Any,
        *,
        never: Collection[int],
        stop_ids: Collection[int],
        named: Collection[int] = (),
    ) -> None:
        self._sampler, self._matcher = sampler, matcher
        self._stop_ids = frozenset(stop_ids)
        self._never, self._stop, self._named_stop = (
            torch.tensor(sorted(ids), dtype=torch.long)
            for ids in (never, self._stop_ids, self._stop_ids.intersection(named))
        )

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
        allowed = torch.from_numpy(np.unpackbits(bits, count=vocabulary, bitorder="little").astype(np.bool_))
        ends = allowed[self._named_stop]
        allowed[self._never] = False
        allowed[self._stop] = self._matcher.is_accepting()
        allowed[self._named_stop] |= ends
        return allowed
