"""E1: repeating the passes gives the same bits; one bit of damage does not go unseen."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.amounts import examples
from support.cache_steps import changed, ids_lists, steps
from support.sessions import random_model

from introspect.audits.replay import RunReplay
from introspect.engine.cache_replay import first_difference, replay_passes
from introspect.engine.engine import Engine
from introspect.engine.schedule import PLAIN
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


def test_a_sign_of_zero_is_a_difference_and_the_bits_of_what_is_no_number_are_none() -> None:
    engine = Engine(MODELS[torch.float32])
    one, other = engine.new_cache(), engine.new_cache()
    for cache, zero, nothing in ((one, 0.0, 0x7FC00000), (other, -0.0, 0x7FC00001)):
        engine.prefill(cache, list(range(12)))
        cache.layers[0].values[0, 0, 4, 1] = zero
        cache.layers[0].keys[0, 0, 2, 1].view(torch.int32).fill_(nothing)
    found = first_difference(one, other, 12)
    assert found is not None and (found.layer, found.slot, found.tensor, found.slots) == (0, 4, "values", 1)
    assert first_difference(one, other, 4) is None


def another_form(cache: Any, kind: str) -> None:
    """Give the topmost layer of a cache a form that the model does not write, with the same numbers."""
    layer = cache.layers[-1]
    if kind == "no layer":
        cache.layers.pop()
    elif kind == "one layer more":
        cache.layers.append(layer.fork())
    elif kind == "empty layer":
        cache.layers[-1] = type(layer)()
    elif kind == "V one slot short":
        layer.values = layer.values[:, :, :-1]
    else:
        change = {
            "two rows": lambda t: t.repeat(2, 1, 1, 1),
            "double": lambda t: t.double(),
            "bits": lambda t: t.view(torch.int32),
            "fewer heads": lambda t: t[:, :1],
            "narrower": lambda t: t[..., :4],
        }[kind]
        layer.keys, layer.values = change(layer.keys), change(layer.values)


FORMS = ["no layer", "one layer more", "empty layer", "V one slot short", "two rows", "double", "bits"]


@pytest.mark.parametrize("kind", [*FORMS, "fewer heads", "narrower"])
@pytest.mark.parametrize("times", [0, 1])
@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_another_form_is_a_difference_whether_the_bytes_are_known_or_not(
    kind: str, times: int, seconds: float
) -> None:
    engine = Engine(MODELS[torch.float32], prefill_chunk=8)
    cache, replay = engine.new_cache(), RunReplay(engine)
    engine.prefill(cache, list(range(20)))
    for token_id in (31, 32, 33):
        engine.forward(cache, [token_id], PLAIN)
    for _ in range(times):
        assert replay.check(cache, replay.plan(cache, 23, 1e9, random.Random(0))) is None
    another_form(cache, kind)
    found = replay.check(cache, replay.plan(cache, 23, seconds, random.Random(0)))
    assert found is not None and found.layer >= 1


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
@settings(max_examples=examples(20))
def test_a_reply_that_is_not_drawn_still_has_the_bytes_that_it_had_when_it_ended(
    dtype: torch.dtype, data: Any
) -> None:
    """What no replay is paid for is compared with the digests that were taken as the reply ended."""
    engine = Engine(MODELS[dtype], prefill_chunk=8)
    cache, replay = engine.new_cache(), RunReplay(engine)
    engine.prefill(cache, list(range(20)))
    for _ in range(2):
        for token_id in (31, 32, 33, 34):
            engine.forward(cache, [token_id], PLAIN)
        cache.state_digest()
        engine.prefill(cache, [*cache.token_ids, 40, 41])
    if data.draw(st.booleans(), "looked at before"):
        assert replay.check(cache, replay.plan(cache, 26, 0.0, random.Random(0))) is None
    layer, name = data.draw(st.integers(0, 1)), data.draw(st.sampled_from(["keys", "values"]))
    slot = data.draw(st.sampled_from([20, 21, 22, 23, 26, 27, 28, 29]))
    raw = getattr(cache.layers[layer], name)[0, 0, slot].view(torch.uint8)
    raw[data.draw(st.integers(0, raw.numel() - 1))] ^= 1 << data.draw(st.integers(0, 7))
    plan = replay.plan(cache, len(cache.token_ids), 0.0, random.Random(0))
    found = replay.check(cache, plan)
    assert plan.replies == 2 and not plan.drawn
    assert found is not None and (found.layer, found.slot, found.tensor) == (layer, slot, name)
