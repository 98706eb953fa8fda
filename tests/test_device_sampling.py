"""An id that the device chooses is that which `sampling` chooses, and nothing is read back for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.amounts import examples
from torch.utils._python_dispatch import TorchDispatchMode

from introspect.engine.capture import NotRepeatable, repeatable_only
from introspect.engine.device_row import DeviceRow
from introspect.engine.device_sampling import choose_on_device, nucleus_choice
from introspect.engine.sampling import CANDIDATES, ForcedSampler, GreedySampler, NucleusSampler

TEMPERATURES = st.sampled_from([1e-320, 1e-30, 0.05, 0.7, 1.0, 1.5, 1e3, 1e30])
TOP_PS = st.sampled_from([1e-9, 0.1, 0.5, 0.9, 0.95, 0.999999, 1.0])


@st.composite
def logits(draw: Any) -> torch.Tensor:
    """Rows with ties and ids that are never chosen, of fewer and of more entries than are sorted first."""
    size = draw(st.sampled_from([1, 2, 7, 300, CANDIDATES + 1, 5000]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    row = torch.randn(size, generator=generator) * draw(st.sampled_from([0.0, 0.01, 1.0, 8.0, 1e30]))
    if draw(st.booleans()):
        row = row.round()
    if draw(st.booleans()) and size > 1:
        row[torch.rand(size, generator=generator) < 0.3] = -torch.inf
        row[draw(st.integers(0, size - 1))] = 1.0
    return row.to(draw(st.sampled_from([torch.float32, torch.float64])))


@settings(max_examples=examples(300), deadline=None)
@given(row=logits(), temperature=TEMPERATURES, top_p=TOP_PS, seed=st.integers(0, 2**62))
def test_the_device_chooses_the_same_ids_by_the_same_draws(
    row: torch.Tensor, temperature: float, top_p: float, seed: int
) -> None:
    here, there = (NucleusSampler(temperature, top_p, seed) for _ in range(2))
    for _ in range(3):
        meant = here.choose(row)
        asked = DeviceRow(row)
        asked.ask(there)
        found = asked.figures().token_id
        assert meant == (asked.chosen_here(there) if found is None else found)
    assert here.draw() == there.draw()


@given(row=logits())
def test_the_device_is_greedy_as_the_sampler_is(row: torch.Tensor) -> None:
    choice = choose_on_device(GreedySampler(), row)
    assert choice is not None and choice.settled.all()
    assert int(choice.token_id) == GreedySampler().choose(row)


def test_it_is_settled_but_where_too_few_candidates_were_sorted() -> None:
    flat, steep = torch.zeros(5000), torch.linspace(0, 200, 5000)
    assert not nucleus_choice(flat, 1.0, 0.9, 0.5).settled
    assert nucleus_choice(flat, 1.0, 0.2, 0.5).settled
    assert nucleus_choice(flat, 1.0, 1.0, 0.5).settled
    assert nucleus_choice(steep, 1.0, 0.9, 0.5).settled


def test_a_sampler_that_has_to_see_the_row_is_left_to_the_processor() -> None:
    row = DeviceRow(torch.tensor([0.0, 2.0, 1.0]))
    assert row.ask(ForcedSampler([2])) is None
    assert row.figures().token_id is None and row.chosen_here(ForcedSampler([2])) == 2


class NothingRead(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses the operation by which a number is read from a tensor."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("top_p", [0.9, 1.0])
@pytest.mark.parametrize("temperature", [1e-320, 0.7])
def test_nothing_is_read_from_the_device(temperature: float, top_p: float) -> None:
    row = torch.randn(3000)
    with NothingRead(), repeatable_only():  # type: ignore[no-untyped-call]
        nucleus_choice(row, temperature, top_p, 0.3)
        DeviceRow(row).ask(GreedySampler())
        DeviceRow(row).ask(ForcedSampler([1]))
        with pytest.raises(NotRepeatable):
            row[0].item()


@given(row=logits(), bad=st.sampled_from([None, torch.nan, torch.inf, -torch.inf]), whole=st.booleans())
def test_figures_are_those_of_the_row(row: torch.Tensor, bad: float | None, whole: bool) -> None:
    if bad is not None:
        row[slice(None) if whole else slice(1)] = bad
    asked = DeviceRow(row)
    asked.ask(NucleusSampler(1.0, 0.9, 0))
    figures = asked.figures()
    assert figures.sound == bool(torch.isfinite(row.max()))
    if figures.sound:
        meant = torch.logsumexp(row, dim=-1)
        assert figures.log_sum == float(meant)
        if figures.token_id is not None:
            assert figures.logit == float(row[figures.token_id])
    elif figures.token_id is not None:
        assert 0 <= figures.token_id < len(row)
