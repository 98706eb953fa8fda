"""Units of rounding and rotary angles of the check, against numpy, the next number and the model itself."""

from __future__ import annotations

import ast
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import small_model
from support.places import ROOT
from transformers import AutoConfig, AutoModelForCausalLM

from introspect.cache_check.recompute import block_ranges, rotary_tables
from introspect.cache_check.rounding import noise_step, rounding_step

FORMATS = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def next_up(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The distance from each magnitude to the next number above it, float64."""
    size = values.abs().to(dtype)
    return torch.nextafter(size, torch.full_like(size, torch.inf)).double() - size.double()


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@given(exponent=st.integers(-12, 12), fraction=st.floats(1, 1.99), sign=st.sampled_from([-1, 1]))
def test_a_step_is_the_distance_to_the_next_number(
    dtype: torch.dtype, exponent: int, fraction: float, sign: int
) -> None:
    values = (torch.tensor([fraction, 1.0], dtype=torch.float64) * sign * 2.0**exponent).to(dtype)
    steps = rounding_step(values, dtype)
    assert steps.dtype == torch.float64 and torch.equal(steps, next_up(values, dtype))
    if dtype in (torch.float32, torch.float64):
        assert np.array_equal(steps.numpy(), np.spacing(np.abs(values.numpy())).astype(np.float64))


@pytest.mark.parametrize("dtype", FORMATS, ids=str)
def test_nothing_has_a_smaller_step_than_the_smallest_number(dtype: torch.dtype) -> None:
    tiny = torch.tensor([0.0, torch.finfo(dtype).tiny], dtype=dtype)
    assert torch.equal(
        rounding_step(tiny, dtype),
        torch.full((2,), tiny[1].item() * torch.finfo(dtype).eps, dtype=torch.float64),
    )


@pytest.mark.parametrize("tensor", ["keys", "values"])
def test_noise_comes_in_steps_of_a_pair_and_of_the_row(tensor: str) -> None:
    generator = torch.Generator().manual_seed(6)
    rows = torch.randn(2, 5, 8, generator=generator) * torch.logspace(-3, 3, 8)
    level = rows.double().numpy()
    expected = np.abs(level)
    if tensor == "keys":
        # Elements 0 and 4, 1 and 5, ... are turned together.
        expected = np.maximum(expected, np.roll(expected, 4, axis=-1))
    expected = np.maximum(expected, np.sqrt((level**2).mean(axis=-1, keepdims=True)))
    steps = np.spacing(expected.astype(np.float32)).astype(np.float64)
    assert np.array_equal(noise_step(rows, tensor, torch.float32).numpy(), steps)


def yarn_model() -> Any:
    """Its rotary module scales cosine and sine, which angles have no part in."""
    config = AutoConfig.for_model(
        "qwen2", vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
        rope_parameters={"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0,
                         "original_max_position_embeddings": 64},
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("family", ["qwen2", "gemma", "yarn"])
def test_angles_are_those_of_the_models_own_rotary_module(family: str) -> None:
    model = yarn_model() if family == "yarn" else small_model(family)
    positions = torch.tensor([0, 1, 2, 17, 100])
    cosine, sine = rotary_tables(model, positions)
    own_cosine, own_sine = model.model.rotary_emb(torch.zeros(1), positions[None])
    assert cosine.shape == sine.shape == (5, own_cosine.shape[-1] // 2)
    angles = torch.atan2(own_sine[0].double(), own_cosine[0].double())[:, : cosine.shape[1]]
    assert torch.allclose(torch.cos(angles), cosine.double(), atol=1e-6)
    assert torch.allclose(torch.sin(angles), sine.double(), atol=1e-6)
    if family != "yarn":
        rates = 10_000.0 ** -(np.arange(4) / 4)
        assert np.allclose(cosine.numpy(), np.cos(positions.numpy()[:, None] * rates), atol=1e-5)


@given(rows=st.sets(st.integers(0, 40), min_size=1), size=st.integers(1, 9), over=st.integers(0, 9))
def test_ranges_to_recompute_hold_the_blocks_of_their_rows_and_no_other(
    rows: set[int], size: int, over: int
) -> None:
    """Against the set of slots whose block, counted from slot 0, has one of the rows."""
    length = max(rows) + 1 + over
    ranges = block_ranges(sorted(rows), size, length)
    covered = [slot for start, end in ranges for slot in range(start, end)]
    assert covered == [slot for slot in range(length) if slot // size in {row // size for row in rows}]
    assert all(start % size == 0 for start, _ in ranges)
    assert all(end < start for (_, end), (start, _) in pairwise(ranges))


def names_used(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    named = {node.id for node in nodes if isinstance(node, ast.Name)}
    named |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    return named | {a.name for node in nodes if isinstance(node, ast.ImportFrom) for a in node.names}


def test_planters_and_other_tests_take_no_unit_of_the_detectors() -> None:
    """What is planted in units of the check would shrink with an error in them, and be found all the same."""
    paths = [*(ROOT / "introspect" / "faults").glob("*.py"), *(ROOT / "scripts").rglob("*.py")]
    paths += [path for path in (ROOT / "tests").rglob("*.py") if path.name != Path(__file__).name]
    users = [
        path.name for path in paths if names_used(path) & {"rounding_step", "noise_step", "rotary_tables"}
    ]
    assert len(paths) > 100 and not users
