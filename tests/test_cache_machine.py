"""A state machine over everything that a session does to its cache; checked in full after every step.

Its oracles are a list of ids kept beside the cache, the passes repeated, and transformers without a cache.
2,000 sequences of 30 steps in the whole size; daily 20, and each of the 121 pairs of steps once.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from support.amounts import full
from support.sessions import random_model

from introspect.engine.cache_replay import first_difference, replay_passes
from introspect.engine.engine import Engine
from introspect.engine.kv_cache import KVCache
from introspect.model.cache_audit import check_structure
from introspect.model.hooks import captured, forward_text

MODEL = random_model(torch.float64)
TOLERANCE = 1e-9
"""In fp64 with sdpa: the largest difference of a logit that another split into passes may make."""
UNCACHED_EVERY = 2
"""Steps between two comparisons with a pass over all ids, which costs more than the step itself."""
CHUNK = 8
STEPS = 30
SEQUENCES = 2000 if full() else 20

edges = st.sampled_from([1, 2, 3, CHUNK - 1, CHUNK, CHUNK + 1])


class Branch:
    """A fork with the ids that it is meant to hold, kept apart from the cache, by message."""

    def __init__(self, cache: KVCache, prefix: list[int]) -> None:
        self.cache = cache
        self.prefix = prefix
        self.messages: list[list[int]] = []
        self.prefix_digest: tuple[str, ...] = ()

    @property
    def ids(self) -> list[int]:
        return self.prefix + [token_id for message in self.messages for token_id in message]

    def fork(self) -> Branch:
        other = Branch(self.cache.fork(), self.prefix)
        other.messages = [list(message) for message in self.messages]
        other.prefix_digest = self.prefix_digest
        return other

    def digest_of_prefix(self) -> tuple[str, ...]:
        """Of all but its last slot, which a prompt that is the prefix alone feeds again."""
        twin = self.cache.fork()
        twin.truncate(len(self.prefix) - 1)
        return twin.content_digest()


class CacheMachine(RuleBasedStateMachine):
    reuse: Counter[bool]
    """Over every machine of a class: how often a prompt found the beginning of its ids in the cache."""

    def __init_subclass__(cls) -> None:
        cls.reuse = Counter()

    @initialize(length=edges, chunk=st.sampled_from([CHUNK, 512]))
    def start(self, length: int, chunk: int) -> None:
        self.engine = Engine(MODEL, prefill_chunk=chunk)
        self.branches = [Branch(self.engine.new_cache(), list(range(100, 100 + 4 * length)))]
        self.current = 0
        self.others: dict[int, tuple[str, ...]] = {}
        self.checked = 0
        self._prefill()
        self.branch.prefix_digest = self.branch.digest_of_prefix()

    @property
    def branch(self) -> Branch:
        return self.branches[self.current]

    def _step(self) -> None:
        self.others = {i: b.cache.content_digest() for i, b in enumerate(self.branches) if i != self.current}

    def _prefill(self) -> None:
        cache, ids = self.branch.cache, self.branch.ids
        result = self.engine.prefill(cache, ids)
        self.reuse[result.start > 0] += 1
        self.logits = result.logits

    @rule(length=edges, first=st.integers(0, 639))
    def add_user_message(self, length: int, first: int) -> None:
        self._step()
        self.branch.messages.append([(first + i) % 640 for i in range(length)])
        self._prefill()

    @rule(length=edges)
    def add_tool_result(self, length: int) -> None:
        self._step()
        self.branch.messages.append([(7 * i + len(self.branch.ids)) % 640 for i in range(2 * length)])
        self._prefill()

    @rule(count=st.integers(1, 4))
    def generate(self, count: int) -> None:
        self._step()
        self._prefill()
        reply = []
        for i in range(count):
            reply.append((31 * len(self.branch.ids) + i) % 640)
            if i < count - 1:
                self.engine.forward(self.branch.cache, reply[-1:])
        self.branch.messages.append(reply)
        self._prefill()

    @rule(count=st.integers(0, 2), layer=st.integers(0, 1))
    def interrupt_in_mid_generation(self, count: int, layer: int) -> None:
        self._step()
        self._prefill()
        for i in range(count):
            self.engine.forward(self.branch.cache, [i + 1])

        def stop(*args: Any) -> None:
            raise KeyboardInterrupt

        handle = MODEL.model.layers[layer].register_forward_pre_hook(stop)
        with pytest.raises(KeyboardInterrupt):
            self.engine.forward(self.branch.cache, [5])
        handle.remove()
        self._prefill()

    @rule(keep=st.integers(0, 3))
    def prune(self, keep: int) -> None:
        self._step()
        self.branch.messages = self.branch.messages[len(self.branch.messages) - keep :] if keep else []
        self._prefill()

    @rule()
    def fork(self) -> None:
        self._step()
        if len(self.branches) < 4:
            self.branches.append(self.branch.fork())
        self._prefill()

    @rule(index=st.integers(0, 3))
    def switch_fork(self, index: int) -> None:
        self._step()
        self.current = index % len(self.branches)
        self.others = {i: b.cache.content_digest() for i, b in enumerate(self.branches) if i != self.current}
        self._prefill()

    @rule(count=st.integers(1, 2))
    def roll_back(self, count: int) -> None:
        self._step()
        del self.branch.messages[-count:]
        self._prefill()

    @rule(layer=st.integers(0, 1))
    def run_a_tool(self, layer: int) -> None:
        self._step()
        before = self.branch.cache.content_digest()
        with captured(MODEL, [f"model.layers.{layer}"]):
            forward_text(MODEL, [1, 2, 3])
        assert self.branch.cache.content_digest() == before
        self._prefill()

    @rule()
    def save_and_load(self) -> None:
        """A cache is a memo of its ids: they are all that is saved."""
        self._step()
        saved = json.dumps(self.branch.cache.token_ids)
        self.branch.cache = self.engine.new_cache()
        self.engine.prefill(self.branch.cache, json.loads(saved))
        self.branch.prefix_digest = self.branch.digest_of_prefix()
        self._prefill()

    @rule()
    def audit(self) -> None:
        self._step()
        digest = self.branch.cache.content_digest()
        cache = self.branch.cache
        replay_passes(self.engine, cache.schedule)
        assert cache.content_digest() == digest
        self._prefill()

    @invariant()
    def everything_is_as_it_must_be(self) -> None:
        if not hasattr(self, "branches"):
            return
        cache, ids = self.branch.cache, self.branch.ids
        assert cache.token_ids == ids
        assert check_structure(cache, ids) == []
        assert first_difference(cache, replay_passes(self.engine, cache.schedule), len(ids)) is None
        assert cache.state_digest() == cache.content_digest()
        for index, digest in self.others.items():
            assert self.branches[index].cache.content_digest() == digest
        assert self.branch.digest_of_prefix() == self.branch.prefix_digest
        self.checked += 1
        if self.checked % UNCACHED_EVERY == 0:
            with torch.no_grad():
                uncached = MODEL(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
            assert float((self.logits - uncached).abs().max()) <= TOLERANCE


class PairedSteps(CacheMachine):
    """Steps that a test chooses."""


class DrawnSteps(CacheMachine):
    """Steps that hypothesis draws."""


STEP_ARGUMENTS: dict[str, dict[str, int]] = {
    "add_user_message": {"length": 3, "first": 5},
    "add_tool_result": {"length": CHUNK},
    "generate": {"count": 3},
    "interrupt_in_mid_generation": {"count": 1, "layer": 1},
    "prune": {"keep": 1},
    "fork": {},
    "switch_fork": {"index": 1},
    "roll_back": {"count": 1},
    "run_a_tool": {"layer": 0},
    "save_and_load": {},
    "audit": {},
}


def test_every_pair_of_steps_holds() -> None:
    """Drawn sequences leave a pair out now and then; here each of the 121 happens."""
    for first in STEP_ARGUMENTS:
        for second in STEP_ARGUMENTS:
            machine = PairedSteps()
            machine.start(length=3, chunk=CHUNK)
            for name in ("add_user_message", "fork"):
                getattr(machine, name)(**STEP_ARGUMENTS[name])
            for name in (first, second):
                getattr(machine, name)(**STEP_ARGUMENTS[name])
                machine.everything_is_as_it_must_be()


def test_drawn_sequences_hold_and_reuse_what_is_cached() -> None:
    run_state_machine_as_test(
        DrawnSteps,
        settings=settings(max_examples=SEQUENCES, stateful_step_count=STEPS, deadline=None),
    )
    assert DrawnSteps.reuse[True] / DrawnSteps.reuse.total() >= 0.9
