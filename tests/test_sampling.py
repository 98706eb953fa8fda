"""Sampling against the probabilities that numpy computes, and its independence of everything global."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from introspect.engine.sampling import GreedySampler, NucleusSampler, first_above, reply_seed, sampler_for

LOGITS = torch.tensor([2.0, 0.5, -1.0, 1.0, 0.0, -4.0])


def nucleus(logits: np.ndarray, temperature: float, top_p: float) -> np.ndarray:
    """Probabilities after temperature and top-p, the obvious way."""
    scaled = logits / temperature
    p = np.exp(scaled - scaled.max())
    p /= p.sum()
    order = np.argsort(-p, kind="stable")
    size = int(np.searchsorted(np.cumsum(p[order]), top_p)) + 1
    kept = np.zeros_like(p)
    kept[order[:size]] = p[order[:size]]
    return kept / kept.sum()


@given(temperature=st.sampled_from([0.5, 1.0, 2.0]), top_p=st.sampled_from([0.3, 0.8, 0.95, 1.0]))
def test_frequencies_are_those_of_the_nucleus(temperature: float, top_p: float) -> None:
    sampler = NucleusSampler(temperature, top_p, seed=7)
    counts = np.zeros(len(LOGITS))
    for _ in range(4000):
        counts[sampler.choose(LOGITS)] += 1
    expected = nucleus(LOGITS.double().numpy(), temperature, top_p)
    assert np.abs(counts / counts.sum() - expected).max() < 0.04
    assert counts[expected == 0].sum() == 0


def test_a_large_vocabulary_gives_the_same_nucleus() -> None:
    """More candidates than are sorted at first: the rest is sorted when they do not reach top-p."""
    generator = torch.Generator().manual_seed(1)
    flat = torch.rand(5000, generator=generator) * 0.01
    drawn = {NucleusSampler(1.0, 0.9, seed).choose(flat) for seed in range(200)}
    expected = nucleus(flat.double().numpy(), 1.0, 0.9)
    assert all(expected[i] > 0 for i in drawn) and len(drawn) > 150


@given(top_p=st.sampled_from([0.25, 0.5, 0.75]))
def test_a_nucleus_that_reaches_top_p_exactly_ends_there(top_p: float) -> None:
    drawn = {NucleusSampler(1.0, top_p, seed).choose(torch.zeros(4)) for seed in range(60)}
    assert len(drawn) == 4 * top_p


@given(seed=st.integers(0, 2**40), last=st.integers(0, 5))
def test_without_a_nucleus_a_draw_is_the_inverse_of_the_distribution(seed: int, last: int) -> None:
    logits = LOGITS.roll(last)
    draw = torch.rand((), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).item()
    p = np.exp(logits.double().numpy() / 0.8)
    expected = int(np.searchsorted(np.cumsum(p / p.sum()), draw, side="right"))
    assert NucleusSampler(0.8, 1.0, seed).choose(logits) == expected


def test_a_draw_that_rounds_to_the_whole_gives_the_last_id() -> None:
    cumulative = torch.tensor([0.5, 0.9])
    assert first_above(cumulative, torch.tensor(0.9)) == 1
    assert first_above(cumulative, torch.tensor(0.5)) == 1
    assert first_above(cumulative, torch.tensor(0.1)) == 0


def test_the_global_generator_is_neither_used_nor_changed() -> None:
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    first = [NucleusSampler(1.0, 1.0, 5).choose(LOGITS) for _ in range(5)]
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(99)
    assert [NucleusSampler(1.0, 1.0, 5).choose(LOGITS) for _ in range(5)] == first


def test_seeds_of_replies_differ_and_are_stable() -> None:
    seeds = {reply_seed(s, e, t) for s in range(5) for e in range(5) for t in range(20)}
    assert len(seeds) == 500
    assert reply_seed(0, 0, 1) == 3857964456596338571


def test_temperature_zero_is_greedy() -> None:
    assert isinstance(sampler_for(0.0, 0.5, 1), GreedySampler)
    assert isinstance(sampler_for(0.7, 0.5, 1), NucleusSampler)
    assert GreedySampler().choose(LOGITS) == 0


def by_hand(logits: list[float], temperature: float, top_p: float, draw: float) -> int:
    """The id that a draw means, in 60 digits. Exponents may be as large as they like there."""
    with mpmath.workdps(60):
        largest = max(logits)
        weights = [
            mpmath.exp((mpmath.mpf(v) - mpmath.mpf(largest)) / mpmath.mpf(temperature))
            if v != -math.inf
            else mpmath.mpf(0)
            for v in logits
        ]
        total = mpmath.fsum(weights)
        order = list(range(len(logits)))
        if top_p < 1:
            order.sort(key=lambda i: (-weights[i], i))
            kept: list[int] = []
            while not kept or mpmath.fsum(weights[i] for i in kept) < mpmath.mpf(top_p) * total:
                kept.append(order[len(kept)])
            order = kept
        threshold, reached = mpmath.mpf(draw) * mpmath.fsum(weights[i] for i in order), mpmath.mpf(0)
        for i in order:
            reached += weights[i]
            if reached > threshold:
                return i
        return order[-1]


@given(
    steps=st.lists(st.integers(-9, 9), min_size=2, max_size=8, unique=True),
    scale=st.sampled_from([2.0**-40, 0.125, 1.0, 2.0**60, 2.0**119]),
    masked=st.booleans(),
    temperature=st.sampled_from([5e-324, 1e-310, 2.2e-308, 1e-300, 1e-38, 1e-3, 0.7, 10.0]),
    top_p=st.sampled_from([5e-324, 1e-300, 0.37, 0.9, 1 - 2**-53, 1.0]),
    seed=st.integers(0, 2**40),
)
def test_any_temperature_gives_what_sixty_digits_give(
    steps: list[int], scale: float, masked: bool, temperature: float, top_p: float, seed: int
) -> None:
    values = [*(step * scale for step in steps), *([-math.inf] if masked else [])]
    draw = torch.rand((), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).item()
    chosen = NucleusSampler(temperature, top_p, seed).choose(torch.tensor(values))
    assert chosen == by_hand(values, temperature, top_p, draw)


@given(temperature=st.sampled_from([5e-324, 1e-310, 1e-300]), seed=st.integers(0, 2**40))
def test_the_limit_of_cold_shares_between_equals(temperature: float, seed: int) -> None:
    logits = torch.tensor([-7.0, 3.0, 2.0, 3.0])
    draw = torch.rand((), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).item()
    assert NucleusSampler(temperature, 1.0, seed).choose(logits) == (1 if draw < 0.5 else 3)


@given(temperature=st.floats(0.05, 10), seed=st.integers(0, 2**40), data=st.data())
def test_ordinary_temperatures_choose_what_records_have(
    temperature: float, seed: int, data: st.DataObject
) -> None:
    """Softmax of the quotients, as in every record so far: not a bit may move."""
    values = data.draw(st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=20))
    logits = torch.tensor(values, dtype=torch.float32)
    draw = torch.rand((), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    cumulative = torch.cumsum(torch.softmax(logits.double() / temperature, dim=-1), dim=-1)
    expected = int(torch.searchsorted(cumulative, draw * cumulative[-1], right=True))
    assert NucleusSampler(temperature, 1.0, seed).choose(logits) == min(expected, len(values) - 1)
