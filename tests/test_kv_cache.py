"""The cache against recomputation: whatever is done to it, it gives what no cache gives."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.amounts import examples
from support.cache_steps import changed, ids_lists, steps
from support.sessions import random_model
from transformers import DynamicCache

from introspect.engine.cache_layers import MIN_CAPACITY, BufferLayer
from introspect.engine.engine import Engine
from introspect.model.cache_audit import check_structure

MODEL = random_model(torch.float64)
TOLERANCE = 1e-9
"""fp64, sdpa, any chunk schedule: largest difference of logits."""


def recomputed(model: Any, token_ids: list[int]) -> torch.Tensor:
    """Logits of the last position without any cache of ours; `[vocabulary]`."""
    ids = torch.tensor([token_ids])
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0, -1]


@given(prefix=ids_lists, chunk=st.sampled_from([1, 3, 8, 512]), steps=steps)
@settings(max_examples=examples(30))
def test_cached_logits_equal_recomputed_ones(prefix: list[int], chunk: int, steps: list[Any]) -> None:
    engine = Engine(MODEL, prefill_chunk=chunk)
    branches = [(engine.new_cache(), list(prefix))]
    for step in steps:
        cache, ids = branches[-1]
        if step[0] == "fork":
            branches.append((cache.fork(), list(ids)))
            if step[1]:
                branches.reverse()
            continue
        if step[0] == "generate":
            for _ in range(step[1]):
                ids = [*ids, int(engine.prefill(cache, ids).logits.argmax())]
        ids = changed(step, ids, len(prefix))
        branches[-1] = (cache, ids)
        logits = engine.prefill(cache, ids).logits
        assert (logits - recomputed(MODEL, ids)).abs().max() < TOLERANCE
        assert check_structure(cache, ids) == []
    for cache, ids in branches:
        assert (engine.prefill(cache, ids).logits - recomputed(MODEL, ids)).abs().max() < TOLERANCE


@given(shared=ids_lists, left=ids_lists, right=ids_lists)
@settings(max_examples=examples(30))
def test_a_fork_does_not_disturb_the_other(shared: list[int], left: list[int], right: list[int]) -> None:
    engine = Engine(MODEL)
    cache = engine.new_cache()
    engine.prefill(cache, shared + left)
    before = cache.content_digest()
    other = cache.fork()
    engine.prefill(other, shared + right)
    engine.prefill(other, shared[:1] + right)
    assert cache.content_digest() == before
    assert cache.token_ids == shared + left


def test_a_fork_copies_nothing_until_it_must() -> None:
    engine = Engine(MODEL)
    cache = engine.new_cache()
    engine.prefill(cache, [1, 2, 3])
    other = cache.fork()
    assert other.layers[0].keys.data_ptr() == cache.layers[0].keys.data_ptr()
    engine.prefill(other, [1, 2, 3, 4])
    assert other.layers[0].keys.data_ptr() == cache.layers[0].keys.data_ptr()
    engine.prefill(cache, [1, 2, 3, 5])
    assert other.layers[0].keys.data_ptr() != cache.layers[0].keys.data_ptr()
    assert other.token_ids == [1, 2, 3, 4]


def test_a_fork_that_is_gone_costs_nothing() -> None:
    """What an audit looked at through a fork is no reason to copy the prefix at the next prune."""
    engine = Engine(MODEL)
    cache = engine.new_cache()
    engine.prefill(cache, list(range(100)))
    place = cache.layers[0].keys.data_ptr()
    other = cache.fork()
    engine.prefill(other, [*range(99), 7, 8])
    assert cache.layers[0].keys.data_ptr() == place != other.layers[0].keys.data_ptr()
    kept = cache.fork()
    del other
    engine.prefill(cache, [*range(40), 9])
    assert cache.layers[0].keys.data_ptr() != place == kept.layers[0].keys.data_ptr()
    place = cache.layers[0].keys.data_ptr()
    del kept
    engine.prefill(cache, [*range(30), 9])
    assert cache.layers[0].keys.data_ptr() == place


def test_a_prune_copies_no_tensor_of_the_prefix() -> None:
    engine = Engine(MODEL)
    cache = engine.new_cache()
    engine.prefill(cache, list(range(100)))
    place = cache.layers[0].keys.data_ptr()
    engine.prefill(cache, [*range(40), *range(80, 100)])
    assert cache.layers[0].keys.data_ptr() == place


@pytest.mark.parametrize("length", [MIN_CAPACITY - 1, MIN_CAPACITY, MIN_CAPACITY + 1, 2 * MIN_CAPACITY])
def test_buffers_grow_at_their_edge(length: int) -> None:
    engine = Engine(MODEL, prefill_chunk=100)
    cache = engine.new_cache()
    ids = [i % 640 for i in range(length)]
    engine.prefill(cache, ids)
    logits = engine.prefill(cache, [*ids, 7]).logits
    assert (logits - recomputed(MODEL, [*ids, 7])).abs().max() < TOLERANCE


def test_an_interrupted_pass_leaves_nothing_behind() -> None:
    engine = Engine(MODEL)
    cache = engine.new_cache()
    engine.prefill(cache, [1, 2, 3])

    def stop(*args: Any) -> None:
        raise KeyboardInterrupt

    handle = MODEL.model.layers[1].register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        engine.prefill(cache, [1, 2, 3, 4, 5])
    handle.remove()
    assert cache.lengths() == [5, 3] and cache.num_cached_tokens == 3
    logits = engine.prefill(cache, [1, 2, 3, 9]).logits
    assert (logits - recomputed(MODEL, [1, 2, 3, 9])).abs().max() < TOLERANCE


def test_the_digest_tells_states_apart() -> None:
    engine = Engine(MODEL)
    digests = []
    for ids in ([1, 2, 3], [1, 2, 4], [1, 2, 3]):
        cache = engine.new_cache()
        engine.prefill(cache, ids)
        digests.append(cache.content_digest())
    assert digests[0] == digests[2] != digests[1]
    assert [len(digest) for digest in digests[0]] == [16, 16]
    cache.layers[1].values[0, 1, 0, 3] += 1e-12
    assert cache.content_digest()[0] == digests[0][0] and cache.content_digest()[1] != digests[0][1]


def test_layers_answer_as_transformers_asks() -> None:
    engine = Engine(MODEL)
    cache = engine.new_cache()
    assert cache.num_cached_tokens == 0 and cache.nbytes == 0
    engine.prefill(cache, [1, 2, 3])
    layer = cache.layers[0]
    assert layer.get_mask_sizes(4) == (7, 0)
    layer.crop(-1)
    layer.crop(0)
    assert layer.get_seq_length() == 2
    assert layer.get_max_length() == -1 and not layer.is_sliding and layer.is_croppable
    with pytest.raises(ValueError, match="negative"):
        layer.crop(1)
    layer.reset()
    assert layer.get_seq_length() == 0


def test_truncating_to_what_is_not_cached_is_refused() -> None:
    engine = Engine(MODEL)
    cache = engine.new_cache()
    engine.prefill(cache, [1, 2, 3])
    for length in (-1, 4):
        with pytest.raises(ValueError, match="cannot truncate"):
            cache.truncate(length)
    cache.truncate(3)
    assert cache.token_ids == [1, 2, 3]
    cache.token_ids.pop()
    with pytest.raises(ValueError, match="cannot truncate"):
        cache.truncate(3)
    cache.truncate(0)
    assert cache.token_ids == [] and cache.lengths() == [0, 0] and cache.schedule.passes == []


def test_provenance_is_the_passes_that_wrote_what_is_left() -> None:
    engine = Engine(MODEL, prefill_chunk=4)
    cache = engine.new_cache()
    began = time.perf_counter()
    engine.prefill(cache, list(range(10)))
    took = time.perf_counter() - began
    assert [(p.start, len(p.token_ids)) for p in cache.schedule.passes] == [(0, 4), (4, 4), (8, 2)]
    assert 0 < sum(p.seconds for p in cache.schedule.passes) <= took
    for length, left in ((9, 3), (8, 2), (5, 2), (4, 1), (1, 1)):
        cache.truncate(length)
        assert len(cache.schedule.passes) == left


def test_a_buffer_that_is_full_to_the_last_slot_is_not_copied() -> None:
    layer = BufferLayer()
    one = torch.zeros((1, 2, 1, 4))
    layer.update(one.expand(1, 2, MIN_CAPACITY - 1, 4), one.expand(1, 2, MIN_CAPACITY - 1, 4))
    place = layer.keys.data_ptr()
    layer.update(one, one)
    assert layer.keys.data_ptr() == place
    layer.update(one, one)
    assert layer.keys.data_ptr() != place


def test_appending_copies_rarely() -> None:
    """Buffers grow by half: the copies of a long reply stay within twice its slots."""
    layer, one = BufferLayer(), torch.zeros((1, 1, 1, 2))
    copied, place = 0, 0
    for _ in range(20 * MIN_CAPACITY):
        layer.update(one, one)
        if layer.keys.data_ptr() != place:
            copied, place = copied + layer.get_seq_length() - 1, layer.keys.data_ptr()
    assert copied <= 2.5 * layer.get_seq_length()


def test_two_prompts_of_equal_length_differ_after_a_prune() -> None:
    engine = Engine(MODEL)
    kept = list(range(50, 60))
    logits = []
    for system in ([1, 2, 3, 4], [5, 6, 7, 8]):
        cache = engine.new_cache()
        engine.prefill(cache, [*system, *range(20), *kept])
        logits.append(engine.prefill(cache, system + kept).logits)
    assert (logits[0] - logits[1]).abs().max() > 1e-3


class OriginalCache:
    """The defect that the project was founded on: the stored prefix is handed out by reference, its length is
    the one noted when it was stored, and the mask is as long as that says."""

    def __init__(self, prefix: list[int]) -> None:
        self.stored = DynamicCache(config=MODEL.config)
        self.prefix = prefix
        with torch.no_grad():
            MODEL(input_ids=torch.tensor([prefix]), past_key_values=self.stored)
        self.noted_length = len(prefix)

    def logits(self, conversation: list[int]) -> torch.Tensor:
        length = self.noted_length + len(conversation)
        with torch.no_grad():
            return MODEL(
                input_ids=torch.tensor([conversation]),
                past_key_values=self.stored,
                attention_mask=torch.ones((1, length), dtype=torch.long),
                position_ids=torch.arange(self.noted_length, length).unsqueeze(0),
            ).logits[0, -1]


distinct = st.lists(st.integers(0, 639), min_size=8, max_size=24, unique=True)


@given(prefix=distinct, first=distinct, kept=distinct)
@settings(max_examples=examples(20))
def test_the_original_bug_fails_the_same_comparison(
    prefix: list[int], first: list[int], kept: list[int]
) -> None:
    # The short mask shows the oldest slots: where those happen to repeat what was kept, nothing is wrong.
    assume(first[: len(kept)] != kept)
    original = OriginalCache(prefix)
    before = original.logits(first)
    assert (before - recomputed(MODEL, prefix + first)).abs().max() < TOLERANCE
    after = original.logits(kept)
    assert (after - recomputed(MODEL, prefix + kept)).abs().max() > 1e6 * TOLERANCE
