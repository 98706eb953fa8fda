"""What `check_cache` may compute, counted at the model's own layers, and what it says where that ends."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from fault_matrix import a_conversation, a_schedule, filled
from small_models import small_model
from support.amounts import sampled
from support.library_caches import IDS, LOUD, dynamic

from introspect.faults.catalogue import FAULTS
from introspect.faults.scene import Scene
from introspect.model.cache_audit import check_cache

MODELS = ({"family": "qwen2"}, {"family": "llama"}, LOUD)
SCHEDULES = ([40], [1] * 40, [20, 13, *[1] * 7], [7] * 5 + [5], [31, 9])
DTYPES = (torch.float32, torch.bfloat16)
VOCABULARY = 640


class Work:
    """Ids that enter decoder layers, and tokens of one batch that only K and V of layer 0 were asked of."""

    def __init__(self, length: int, layers: int) -> None:
        self.length, self.layers, self.ids, self.looked_up, self.waiting = length, layers, 0, 0, 0

    @property
    def passes(self) -> float:
        """Forward passes of all ids through all layers; fewer than 512 ids count as 2,048."""
        return self.ids / ((self.length if self.length >= 512 else 2048) * self.layers)

    def enter(self, layer: int, hidden: torch.Tensor) -> None:
        rows = hidden.shape[0] * hidden.shape[1]
        if layer == 0:
            self.looked_up, self.waiting = self.looked_up + self.waiting, 0
        if layer == 0 and hidden.shape[0] > 1:
            self.waiting = rows
        else:
            self.ids, self.waiting = self.ids + self.waiting + rows, 0


@contextmanager
def counted(model: Any, length: int) -> Iterator[Work]:
    """The work inside the block, counted at the entry of every decoder layer."""
    layers = model.base_model.layers
    work = Work(length, len(layers))

    def hook(index: int) -> Any:
        def enter(module: Any, arguments: Any, keywords: Any) -> None:
            work.enter(index, arguments[0] if arguments else keywords["hidden_states"])

        return enter

    hooks = [layer.register_forward_pre_hook(hook(i), with_kwargs=True) for i, layer in enumerate(layers)]
    try:
        yield work
    finally:
        for handle in hooks:
            handle.remove()


SOUND = sampled(
    [(made, dtype, schedule) for made in MODELS for dtype in DTYPES for schedule in SCHEDULES], every=3
)


@pytest.mark.parametrize(("made", "dtype", "schedule"), SOUND, ids=str)
def test_a_sound_cache_costs_at_most_three_passes(
    made: dict[str, Any], dtype: torch.dtype, schedule: list[int]
) -> None:
    model = small_model(dtype=dtype, **made)
    cache = dynamic(model, IDS, schedule)
    with counted(model, len(IDS)) as work:
        assert check_cache(model, cache, IDS) == []
    assert work.passes <= 3
    with counted(model, len(IDS)) as work:
        assert check_cache(model, cache, IDS, passes=schedule) == []
    assert work.ids == len(IDS) * len(model.base_model.layers)


LONG_SCHEDULES = ([600], [281, 187, *[1] * 132], [7] * 85 + [5])
LONG = sampled([(dtype, schedule) for dtype in DTYPES for schedule in LONG_SCHEDULES], every=2)


@pytest.mark.parametrize(("dtype", "schedule"), LONG, ids=lambda of: str(of)[:16])
def test_long_caches_keep_to_the_bound_of_their_own_ids(dtype: torch.dtype, schedule: list[int]) -> None:
    model, length = small_model(dtype=dtype), sum(schedule)
    ids = [(7 * i + i // 9) % VOCABULARY for i in range(length)]
    cache = dynamic(model, ids, schedule)
    with counted(model, length) as work:
        assert check_cache(model, cache, ids) == []
    assert work.ids <= 3 * length * work.layers
    cache.layers[1].values[0, 1, 250] = cache.layers[1].values[0, 1, 100]
    with counted(model, length) as work:
        assert check_cache(model, cache, ids) != []
    assert work.ids <= 12 * length * work.layers


@pytest.mark.parametrize("name", FAULTS)
def test_a_damaged_cache_costs_at_most_twelve_passes(name: str) -> None:
    rng = random.Random(name)
    model = small_model(dtype=rng.choice(DTYPES), **rng.choice(MODELS))
    talk, fault = a_conversation(rng), FAULTS[name]
    scene = Scene(
        model=model,
        clean=filled(model, list(talk.ids), a_schedule(rng, len(talk.ids))),
        conversation=talk,
        place=rng.choice(fault.places),
        depth=rng.choice(fault.depths),
        generator=torch.Generator().manual_seed(1),
    )
    damaged = fault.planted(scene)
    length = max(damaged.cache.num_cached_tokens, len(damaged.intended))
    with counted(model, length) as work:
        check_cache(model, damaged.cache, damaged.intended)
    assert work.passes <= 12
    assert work.looked_up <= VOCABULARY + 2 * length


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("length", [1, 2, 5, 90, 200])
def test_noise_everywhere_costs_at_most_twelve_passes(length: int, dtype: torch.dtype) -> None:
    model = small_model(dtype=dtype)
    ids = [(7 * i) % VOCABULARY for i in range(length)]
    cache, generator = dynamic(model, ids), torch.Generator().manual_seed(length)
    for layer in cache.layers:
        for tensor in (layer.keys, layer.values):
            noise = torch.randn(tensor.shape, generator=generator) * torch.finfo(dtype).eps
            tensor.copy_(tensor * (1 + 100 * noise))
    with counted(model, length) as work:
        assert check_cache(model, cache, ids) != []
    assert work.passes <= 12


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_given_passes_show_one_step_of_rounding(dtype: torch.dtype) -> None:
    model, schedule = small_model(dtype=dtype), [20, 13, *[1] * 7]
    cache = dynamic(model, IDS, schedule)
    held = cache.layers[1].values[0, 0, 5]
    held[3] = torch.nextafter(held[3], torch.full_like(held[3], torch.inf))
    assert check_cache(model, cache, IDS, passes=schedule) == ["undecided"]
    held[3] += 1
    assert check_cache(model, cache, IDS, passes=schedule) == ["element-corrupted"]


def test_passes_that_did_not_fill_the_cache_name_no_fault() -> None:
    model = small_model()
    pairs = [(given, schedule) for given in ([40], [1] * 40, [7] * 5 + [5]) for schedule in SCHEDULES]
    for given, schedule in sampled(pairs, every=2):
        codes = check_cache(model, dynamic(model, IDS, schedule), IDS, passes=given)
        assert codes in ([], ["undecided"])
        assert codes == [] or given != schedule


@pytest.mark.parametrize("given", [[39], [41], [40, 0], [41, -1], [], [20.0, 20], [[40]]], ids=str)
def test_passes_are_those_of_the_ids(given: Any) -> None:
    model = small_model()
    with pytest.raises(ValueError, match="passes"):
        check_cache(model, dynamic(model), IDS, passes=given)
