"""The decode path `step`: the same computation as the model's own modules, hooks and audits included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_families import write_family
from small_models import small_model
from support.sessions import (
    STEPS,
    a_phase,
    forced_session,
    opened_run,
    phase_for,
    random_model,
    run_session,
)
from transformers import AutoModelForCausalLM

from introspect.audits.record import audit_replay
from introspect.audits.recorded import recorded_turns
from introspect.commands.audit import audit_command
from introspect.engine.decode_paths import choose_decode_path, usable_step
from introspect.engine.engine import Engine
from introspect.engine.one_row import OneRowKernels, attention, attention_beside, product
from introspect.engine.schedule import PLAIN, STEP
from introspect.engine.step import Step
from introspect.errors import ConfigError, UnknownPath

UNCOMPILED = OneRowKernels(name="uncompiled", product=product)
TRACED = OneRowKernels(name="traced", product=product, fuse=lambda graph: graph)
"""Layers as graphs of what their modules did, each operation by torch's own code."""
PROMPT = list(range(5, 60))
COVERED = [
    "llama", "mixtral", "qwen2", "qwen2_moe", "qwen3", "gemma", "phi", "phi3", "gpt2", "gpt_neox", "opt",
    "stablelm", "olmo2", "granite", "cohere2", "deepseek_v3", "minicpm3", "glm4", "smollm3", "nemotron",
    "diffllama", "jetmoe",
]  # fmt: skip
"""Of each way of building attention and products one family; the others of the table are their kin."""


RUN_AS_THEY_ARE = {"mixtral", "qwen2_moe", "deepseek_v3", "minicpm3", "diffllama", "jetmoe"}
"""Families whose layers are not traced: experts are chosen by value, or K and V differ in width."""


def by_both(model: Any, step: Step, prompt: list[int] = PROMPT) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """Logits after one more id by `plain` and by `step`, from the same cache; and the cache of the step."""
    engine = Engine(model, step=step)
    cache = engine.new_cache()
    engine.prefill(cache, prompt)
    other = cache.fork()
    return engine.forward(cache, [7], PLAIN), engine.forward(other, [7], STEP), other


@pytest.mark.parametrize("family", COVERED)
def test_the_step_of_a_family_is_its_own_pass(family: str, tmp_path: Path) -> None:
    directory = write_family(family, tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="sdpa")
    for kernels in (None, UNCOMPILED, TRACED):
        step = Step(model.eval(), kernels)
        plain, stepped, cache = by_both(model, step)
        assert float((plain - stepped).abs().max()) < 1e-5 * max(1.0, float(plain.abs().max()))
        assert cache.lengths() == [len(PROMPT) + 1] * len(cache.layers)
    assert {layer.is_traced for layer in step.layers} == {family not in RUN_AS_THEY_ARE}


@given(
    rows=st.integers(1, 9),
    columns=st.sampled_from([1, 7, 64, 4095, 4096, 4864, 5003, 8192, 11008]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    seed=st.integers(0, 2**31),
)
def test_a_product_is_that_of_numpy(rows: int, columns: int, dtype: torch.dtype, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator).to(dtype)
    row = torch.randn(columns, generator=generator).to(dtype)
    meant = weight.double().numpy() @ row.double().numpy()
    allowed = 1e-6 * (np.abs(weight.double().numpy()) @ np.abs(row.double().numpy())) + 1e-12
    assert (np.abs(product(weight, row).double().numpy() - meant) <= allowed).all()


@given(
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 4),
    slots=st.integers(1, 40),
    widths=st.tuples(st.integers(1, 16), st.integers(1, 16)),
    seed=st.integers(0, 2**31),
)
def test_attention_of_one_query_is_that_of_numpy(
    kv_heads: int, group: int, slots: int, widths: tuple[int, int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(kv_heads, group, widths[0], generator=generator)
    keys = torch.randn(kv_heads, slots, widths[0], generator=generator)
    values = torch.randn(kv_heads, slots, widths[1], generator=generator)
    scores = np.einsum("hgd,hsd->hgs", query.double(), keys.double()) * 0.3
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    meant = np.einsum("hgs,hsd->hgd", shares / shares.sum(-1, keepdims=True), values.double())
    assert np.abs(attention(query, keys, values, 0.3).double().numpy() - meant).max() < 1e-5
    if slots > 1 and widths[0] == widths[1]:
        earlier, new = (keys[:, :-1], values[:, :-1]), (keys[:, -1], values[:, -1])
        found = attention_beside(query, earlier, new, 0.3)
        assert np.abs(found.double().numpy() - meant).max() < 1e-5


@pytest.mark.parametrize("kernels", [UNCOMPILED, TRACED])
def test_a_hook_that_is_registered_acts_as_it_does_on_the_plain_path(kernels: OneRowKernels) -> None:
    model = random_model()
    step = Step(model, kernels)
    quiet = by_both(model, step)[0]
    seen: list[str] = []

    def doubled(module: Any, inputs: Any, output: Any) -> Any:
        seen.append(type(module).__name__)
        return output * 2

    for module in (model.model.layers[0].mlp.up_proj, model.model.layers[1].self_attn.o_proj):
        module.register_forward_hook(doubled)
    plain, stepped, _ = by_both(model, step)
    assert float((plain - quiet).abs().max()) > 1e-3
    assert float((plain - stepped).abs().max()) < 1e-5
    assert seen == ["Linear"] * 6  # two modules, in the prefill and by either path


@pytest.mark.parametrize("raised", [KeyboardInterrupt, RuntimeError])
def test_whatever_happens_in_a_pass_the_model_is_as_it_was(raised: type[BaseException]) -> None:
    model = random_model()
    step = Step(model, UNCOMPILED)

    def fails(*arguments: Any) -> None:
        raise raised

    handle = model.model.layers[1].register_forward_pre_hook(fails)
    with pytest.raises(raised), step():
        model(input_ids=torch.tensor([[1]]))
    handle.remove()
    assert model.config._attn_implementation == "sdpa"
    assert not [module for module in model.modules() if "forward" in module.__dict__]


def test_a_hook_of_a_whole_layer_acts_once_around_its_traced_code() -> None:
    model = random_model()
    step = Step(model, TRACED)
    by_both(model, step)
    seen: list[str] = []

    def doubled(module: Any, inputs: Any, output: Any) -> Any:
        seen.append(type(module).__name__)
        return output * 2

    model.model.layers[0].register_forward_hook(doubled)
    plain, stepped, _ = by_both(model, step)
    assert float((plain - stepped).abs().max()) < 1e-5
    assert len(seen) == 3 and all(layer.is_traced for layer in step.layers)


def test_traced_layers_read_the_weights_that_the_model_has_now() -> None:
    """Changed in place, and put in another's place: code that kept the old ones would not notice."""
    model = random_model()
    step = Step(model, TRACED)
    before = by_both(model, step)[1]
    layer = model.model.layers[0]
    with torch.no_grad():
        layer.mlp.up_proj.weight.mul_(3)
    layer.self_attn.q_proj.weight = torch.nn.Parameter(layer.self_attn.q_proj.weight.detach() * 2)
    plain, stepped, _ = by_both(model, step)
    assert float((plain - before).abs().max()) > 1e-3
    assert float((plain - stepped).abs().max()) < 1e-5


def test_layers_that_differ_are_not_taken_for_one() -> None:
    model = random_model()
    model.model.layers[1].self_attn.scaling *= 3
    model.model.layers[1].input_layernorm.variance_epsilon = 0.5
    plain, stepped, _ = by_both(model, Step(model, TRACED))
    assert float((plain - stepped).abs().max()) < 1e-5


def test_traced_code_that_computes_something_else_is_not_used() -> None:
    """A kernel that is wrong by a hundredth, as a compiler's fault may be, is found on the first token."""

    def slightly_wrong(graph: torch.fx.GraphModule) -> Callable[..., Any]:
        def run(*inputs: torch.Tensor) -> Any:
            states, key, value = graph(*inputs)
            return states, key, value * 1.01

        return run

    model = random_model()
    step = Step(model, OneRowKernels(name="wrong", product=product, fuse=slightly_wrong))
    plain, stepped, _ = by_both(model, step)
    assert float((plain - stepped).abs().max()) < 1e-5
    assert {layer.why_not for layer in step.layers} == {"its compiled code computes something else"}


def test_want_of_memory_is_no_property_of_a_layer() -> None:
    """A run would go on by other kernels than its record names, and round in another way."""
    failing = [True]

    def fuse(graph: torch.fx.GraphModule) -> Callable[..., Any]:
        if failing[0]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return graph

    model = random_model()
    step = Step(model, OneRowKernels(name="traced", product=product, fuse=fuse))
    with pytest.raises(torch.OutOfMemoryError):
        by_both(model, step)
    failing[0] = False
    by_both(model, step)
    assert all(layer.is_traced and layer.why_not is None for layer in step.layers)


def test_a_layer_that_somebody_gave_a_forward_of_its_own_keeps_it() -> None:
    model = random_model()
    own = model.lm_head.forward
    model.lm_head.forward = lambda states: own(states) + 1
    plain, stepped, _ = by_both(model, Step(model, UNCOMPILED))
    assert float((plain - stepped).abs().max()) < 1e-5
    assert "forward" in model.lm_head.__dict__


def test_a_pass_over_several_ids_is_as_it_ever_was() -> None:
    model = random_model()
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        meant = model(input_ids=ids).logits
        with Step(model, UNCOMPILED)():
            assert torch.equal(model(input_ids=ids).logits, meant)


def test_compiled_kernels_are_the_plain_pass_up_to_rounding_in_bf16() -> None:
    model = small_model("qwen2", torch.bfloat16, 2)
    try:
        step = usable_step(model)
    except ValueError as error:
        pytest.skip(f"no compiler that torch can use: {error}")
    assert step.kernels.name.startswith("inductor ")
    plain, stepped, _ = by_both(model, step)
    exact = by_both(model.float(), Step(model.float(), UNCOMPILED))[0]
    # Rounded once a product where plain bf16 rounds as often: the step is no further from fp32 than that is.
    assert float((stepped - exact).abs().max()) <= 2 * float((plain - exact).abs().max()) + 1e-3


def test_a_session_decoded_by_the_step_is_audited_by_the_step(model: Any, tiny_format: Any) -> None:
    engine = Engine(model, step=Step(model))
    phase = a_phase(memory={"max_conversation_tokens": 6000})
    session = forced_session(model, tiny_format, phase, [STEPS], engine)
    stream, status = run_session(session, engine=engine)
    assert status == "complete" and session.tally.audits["failed"] == 0 and session.tally.audits["e1"] > 0
    assert set(session.tally.decode_paths) == {STEP}
    turns = recorded_turns(stream)
    assert audit_replay(turns, Engine(model, step=Step(model))).failures == []
    with pytest.raises(UnknownPath):
        audit_replay(turns, Engine(model))


def test_a_run_says_how_it_decoded_and_its_record_is_audited_so(model_dir: Path, tmp_path: Path) -> None:
    run = opened_run(phase_for(model_dir, engine={"decode_path": "step"}, limits={"max_turns": 2}), tmp_path)
    told = run.start.environment["decode_path"]
    assert told == {"name": "step", "reason": "asked for", "kernels": "torch"}
    summary = run.execute(lambda event: None)
    assert set(summary["decode_paths"]) == {"step"} and summary["audits"]["failed"] == 0
    assert audit_command(summary["run"], "e1", tmp_path, as_json=True) == 0


def test_a_model_is_decoded_by_the_step_wherever_it_can_be_had() -> None:
    model = random_model()
    assert choose_decode_path(model).name == choose_decode_path(model, "step").name == STEP
    assert choose_decode_path(model, "plain").name == PLAIN
    eager = small_model("qwen2", torch.float32, 2)
    eager.set_attn_implementation("eager")
    auto = choose_decode_path(eager)
    assert auto.name == PLAIN and "its attention is eager" in auto.reason
    with pytest.raises(ConfigError, match="its attention is eager"):
        choose_decode_path(eager, "step")
