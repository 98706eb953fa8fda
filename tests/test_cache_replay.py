"""E1: repeating the passes gives the same bits; one bit of damage does not go unseen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.amounts import examples
from support.cache_steps import changed, ids_lists, steps
from support.sessions import random_model

from introspect.engine.cache_replay import first_difference, replay_passes
from introspect.engine.engine import Engine
from introspect.model.cache_audit import check_structure

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
MODELS = {dtype: random_model(dtype) for dtype in DTYPES}


@pytest.mark.parametrize("dtype", DTYPES)
@given(prefix=ids_lists, chunk=st.sampled_from([3, 8, 512]), steps=steps)
@settings(max_examples=examples(25))
def test_a_sound_cache_is_replayed_to_the_bit(
    dtype: torch.dtype, prefix: list[int], chunk: int, steps: list[Any]
) -> None:
    engine = Engine(MODELS[dtype], prefill_chunk=chunk)
    cache, ids = engine.new_cache(), list(prefix)
    engine.prefill(cache, ids)
    for step in steps:
        if step[0] == "fork":
            cache = cache.fork()
            continue
        if step[0] == "generate":
            for _ in range(step[1]):
                ids = [*ids, int(engine.prefill(cache, ids).logits.argmax())]
        ids = changed(step, ids, len(prefix))
        engine.prefill(cache, ids)
    replay = replay_passes(engine, cache.schedule)
    assert replay.token_ids == cache.token_ids
    assert first_difference(cache, replay, len(cache.token_ids)) is None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("name", ["keys", "values"])
def test_the_smallest_damage_is_found(dtype: torch.dtype, layer: int, name: str) -> None:
    engine = Engine(MODELS[dtype])
    cache = engine.new_cache()
    engine.prefill(cache, list(range(30)))
    damaged = getattr(cache.layers[layer], name)
    value = damaged[0, 1, 17, 3].clone()
    damaged[0, 1, 17, 3] = torch.nextafter(value, torch.tensor(float("inf"), dtype=dtype))
    found = first_difference(cache, replay_passes(engine, cache.schedule), 30)
    assert found is not None and (found.layer, found.slot, found.tensor, found.slots) == (layer, 17, name, 1)
    assert found.size == float((damaged[0, 1, 17, 3].double() - value.double()).abs())
    damaged[0, 0, 18, 0] += 5
    again = first_difference(cache, replay_passes(engine, cache.schedule), 30)
    assert again is not None and (again.slot, again.size, again.slots) == (17, found.size, 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_sign_of_zero_is_a_bit_and_nan_is_nan(dtype: torch.dtype) -> None:
    engine = Engine(MODELS[dtype])
    cache, twin = engine.new_cache(), engine.new_cache()
    for one in (cache, twin):
        engine.prefill(one, list(range(9)))
        one.layers[1].values[0, 0, 4, 0] = 0.0
        one.layers[0].values[0, 0, 3, 0] = float("nan")
    assert first_difference(cache, twin, 9) is None
    cache.layers[1].values[0, 0, 4, 0] = -0.0
    found = first_difference(cache, twin, 9)
    assert found is not None and (found.layer, found.slot, found.size) == (1, 4, 0.0)


def test_decoded_slots_can_be_left_out() -> None:
    engine = Engine(MODELS[torch.float32])
    cache = engine.new_cache()
    ids = list(range(10))
    engine.prefill(cache, ids)
    for token_id in (11, 12, 13):
        engine.forward(cache, [token_id])
    assert len(cache.schedule.before(10).passes) == 1
    assert len(cache.schedule.before(12).passes) == 3
    replay = replay_passes(engine, cache.schedule.before(10))
    assert first_difference(cache, replay, 10) is None


def test_a_replay_is_as_long_as_asked() -> None:
    engine = Engine(MODELS[torch.float32], prefill_chunk=4)
    cache = engine.new_cache()
    engine.prefill(cache, list(range(10)))
    assert [p.start for p in cache.schedule.before(4).passes] == [0]
    assert [p.start for p in cache.schedule.before(5).passes] == [0, 4]
    replay = replay_passes(engine, cache.schedule.before(6))
    assert replay.lengths() == [6, 6] and first_difference(cache, replay, 6) is None


def test_layers_of_another_format_or_length_are_differences() -> None:
    engine = Engine(MODELS[torch.bfloat16])
    cache = engine.new_cache()
    engine.prefill(cache, list(range(30)))
    replay = replay_passes(engine, cache.schedule)
    small = cache.fork()
    for layer in small.layers:
        layer.keys, layer.values = (t.to(torch.float8_e4m3fn) for t in (layer.keys, layer.values))
    found = first_difference(small, replay, 30)
    assert found is not None and (found.layer, found.slot, found.slots) == (0, 0, 30)
    assert check_structure(small, list(range(30))) == []
    ragged = cache.fork()
    ragged.layers[1].truncate(28)
    found = first_difference(ragged, replay, 30)
    assert found is not None and (found.layer, found.slot, found.slots) == (1, 28, 2)
