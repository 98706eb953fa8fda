"""Streaming and remembering: moments of any tensor against numpy, and when they are measured again."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.family_models import Case, context_of
from support.sessions import DONE, a_phase, call_text, forced_session, random_model, run_session

from introspect.prompt.formats import ChatML
from introspect.tools.context import ToolContext
from introspect.tools.instruments import streaming
from introspect.tools.instruments.registry import ALL_TOOLS
from introspect.tools.instruments.streaming import Moments, moments
from introspect.tools.instruments.weight_comparison import compare

CLOSE = 1e-10


@given(
    st.lists(st.integers(1, 700), min_size=1, max_size=3),
    st.floats(-1e3, 1e3),
    st.floats(1e-6, 1e3),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
    st.booleans(),
    st.integers(0, 9),
)
def test_streamed_moments_are_those_of_numpy(
    shape: list[int], mean: float, std: float, dtype: torch.dtype, turned: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = [min(size, 40) for size in shape] if len(shape) == 3 else shape
    tensor = (torch.randn(shape, generator=generator) * std + mean).to(dtype)
    tensor = tensor.transpose(0, -1) if turned else tensor
    wide = tensor.double().numpy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "BLOCK", 1000)
        found = moments(tensor)
    expected = {"mean": wide.mean(), "std": wide.std(), "min": wide.min(), "max": wide.max()}
    measured = {"mean": found.mean, "std": found.std, "min": found.low, "max": found.high}
    largest = max(abs(value) for value in expected.values())
    assert all(abs(measured[key] - value) <= CLOSE * largest for key, value in expected.items())
    assert found.std == pytest.approx(wide.std(), rel=1e-6, abs=1e-12 * abs(mean))
    assert found.norm == pytest.approx(np.linalg.norm(wide), rel=CLOSE)
    assert found.count == wide.size


@given(st.integers(1, 60), st.integers(1, 60), st.booleans(), st.booleans())
def test_comparison_takes_elements_in_order_whatever_the_layout(
    rows: int, columns: int, first: bool, second: bool
) -> None:
    generator = torch.Generator().manual_seed(rows)
    a, b = (
        torch.randn(columns, rows, generator=generator).T if turned else torch.randn(rows, columns)
        for turned in (first, second)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "BLOCK", 100)
        found = compare(a, b)
    x, y = a.double().numpy(), b.double().numpy()
    assert found.product == pytest.approx((x * y).sum(), rel=1e-9, abs=1e-9)
    assert found.distance == pytest.approx(((x - y) ** 2).sum(), rel=1e-9)
    assert found.largest == np.abs(x - y).max()


def test_constant_and_empty_tensors_have_no_spread() -> None:
    assert moments(torch.full((3000,), 0.1)).std == 0.0
    assert moments(torch.zeros(0)) == Moments()
    zero = compare(torch.zeros(4), torch.ones(4)).reported()
    assert zero["cosine"] is None and zero["relative_distance"] is None and zero["norm_2"] == 2.0


class Measurements:
    """Counts the tensors that were measured again, by what the context remembers of each."""

    def __init__(self, context: ToolContext) -> None:
        self.context = context
        self.before: dict[int, Any] = {}

    def new(self) -> int:
        memo = dict(self.context.weight_memo)
        count = sum(self.before.get(key) is not entry for key, entry in memo.items())
        self.before = memo
        return count


def test_a_tensor_is_measured_again_when_it_changed_and_only_then(
    byte_format: ChatML,
) -> None:
    model = random_model()
    context = context_of(model, byte_format, 4000)
    measurements = Measurements(context)
    weight = model.model.layers[0].mlp.up_proj.weight
    name = "model.layers.0.mlp.up_proj"

    def mean() -> float:
        result = ALL_TOOLS["get_weight_statistics"].call(context, {"layer_name": name})
        return float(result["tensors"][0]["mean"])

    tensors = len(list(model.parameters()))
    first = ALL_TOOLS["get_weight_summary"].call(context, {})
    assert measurements.new() == tensors
    assert ALL_TOOLS["get_weight_summary"].call(context, {}) == first and measurements.new() == 0
    mean()
    ALL_TOOLS["get_weight_statistics"].call(context, {"layer_name": "lm_head"})
    assert measurements.new() == 0
    changes = [
        lambda: weight.add_(1.0),
        lambda: weight.view(-1)[17].fill_(1e4),
        lambda: weight.data.mul_(2.0),
        lambda: setattr(weight, "data", torch.full_like(weight, 3.0)),
        lambda: setattr(
            model.model.layers[0].mlp.up_proj, "weight", torch.nn.Parameter(torch.full((48, 32), 5.0))
        ),
    ]
    for change in changes:
        with torch.no_grad():
            change()
        now = model.model.layers[0].mlp.up_proj.weight.detach().double().numpy()
        assert mean() == pytest.approx(now.mean(), rel=6e-4)
        assert measurements.new() == 1


def test_two_models_do_not_share_what_was_measured(byte_format: ChatML) -> None:
    means = []
    for scale in (1.0, 2.0):
        model = random_model()
        with torch.no_grad():
            model.model.norm.weight.fill_(scale)
        context = context_of(model, byte_format, 4000)
        result = ALL_TOOLS["get_weight_statistics"].call(context, {"layer_name": "model.norm"})
        means.append(result["tensors"][0]["mean"])
    assert means == [1.0, 2.0]


def test_the_memo_keeps_no_model_alive(byte_format: ChatML) -> None:
    model = random_model()
    ALL_TOOLS["get_weight_summary"].call(context_of(model, byte_format, 4000), {})
    gone, tensor = weakref.ref(model), weakref.ref(model.model.norm.weight)
    del model
    gc.collect()
    assert gone() is None and tensor() is None


def test_progress_is_told_to_the_end(case: Case) -> None:
    told: list[tuple[str, int, int]] = []
    context = replace(case.context, progress=lambda *step: told.append(step))
    ALL_TOOLS["get_weight_summary"].call(context, {})
    total = sum(raw.size for raw in case.raw.values())
    assert [step[1] for step in told] == sorted({step[1] for step in told})
    assert len(told) == len(case.raw) and told[-1][1:] == (total, total)


def test_a_run_tells_the_progress_of_its_tools(model: Any, byte_format: ChatML) -> None:
    told: list[tuple[str, int, int]] = []
    phase = a_phase(tools=("get_weight_summary",))
    session = forced_session(model, byte_format, phase, [[call_text("get_weight_summary"), DONE]])
    session.context.progress = lambda *step: told.append(step)
    run_session(session)
    total = sum(p.numel() for p in model.parameters())
    assert told[-1] == ("weights", total, total)
