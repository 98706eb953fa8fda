"""Damage of a cache that a fast decode path wrote is named as that of one which the model's modules wrote."""

from __future__ import annotations

import copy
import random
from functools import cache

import pytest
import torch
from fault_matrix import a_conversation, after_a_prune, audited
from small_models import small_model

from introspect.audits.auditor import RunAuditor
from introspect.engine.cache import TokenCache
from introspect.engine.cache_replay import first_difference, repeat_each
from introspect.engine.decode_paths import usable_step
from introspect.engine.engine import Engine
from introspect.engine.schedule import STEP
from introspect.faults.catalogue import FAULTS
from introspect.faults.scene import Conversation, Depth, Place, Scene

CASES: list[tuple[str, Place, Depth]] = [
    ("element-corrupted", "last", "last"),
    ("element-corrupted", "first-kept", "middle"),
    ("bit-flipped", "last-prefix", "first"),
    ("slot-overwritten", "last", "middle"),
    ("slot-overwritten", "first-prefix", "last"),
    ("prefix-scaled", "first-kept", "middle"),
    ("keys-as-values", "first-kept", "last"),
]


@cache
def decoded_by_step() -> tuple[Engine, Conversation, TokenCache, RunAuditor]:
    """A cache in bf16 whose last ids, of more than one turn, were decoded by `step`."""
    rng = random.Random(5)
    model = small_model(dtype=torch.bfloat16)
    try:
        step = usable_step(model)
    except ValueError as error:
        pytest.skip(f"no compiler that torch can use, and without one a step rounds as modules do: {error}")
    engine, conversation = Engine(model, step=step), a_conversation(rng)
    clean, auditor = after_a_prune(engine, conversation, rng)
    assert sum(one.path == STEP for one in clean.schedule.passes) > 5
    return engine, conversation, clean, auditor


@pytest.mark.parametrize(("name", "place", "depth"), CASES)
def test_damage_is_named(name: str, place: Place, depth: Depth) -> None:
    engine, conversation, clean, auditor = decoded_by_step()
    generator = torch.Generator().manual_seed(3)
    scene = Scene(
        model=engine.model,
        clean=clean,
        conversation=conversation,
        place=place,
        depth=depth,
        generator=generator,
    )
    damaged = FAULTS[name].planted(scene)
    damaged.cache.schedule = clean.schedule.copy()

    codes = audited(copy.copy(auditor), damaged.cache, damaged.intended)

    assert set(codes) & set(FAULTS[name].codes), codes


def test_each_pass_repeated_on_a_sound_cache_gives_its_bits() -> None:
    engine, conversation, clean, _ = decoded_by_step()

    written = repeat_each(engine, clean.schedule, clean)

    assert first_difference(clean, written, len(conversation.ids)) is None


def test_one_damaged_slot_shows_in_its_own_pass_and_in_none_that_read_sound_slots() -> None:
    """What was written before the damage and does not read it comes out as it stands in the cache."""
    engine, _, clean, _ = decoded_by_step()
    last = clean.num_cached_tokens - 1
    damaged = clean.fork()
    damaged.truncate(last)
    for layer, source in zip(damaged.layers, clean.layers, strict=True):
        layer.update(source.keys[:, :, last:] * 2, source.values[:, :, last:])
    damaged.token_ids, damaged.schedule = list(clean.token_ids), clean.schedule.copy()

    difference = first_difference(damaged, repeat_each(engine, clean.schedule, damaged), last + 1)

    assert difference is not None
    assert (difference.layer, difference.slot, difference.slots) == (0, last, 1)
