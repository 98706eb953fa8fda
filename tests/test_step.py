"""The decode path `step`: the same computation as the model's own modules, hooks and audits included."""

from __future__ import annotations

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
from introspect.engine.one_row import OneRowKernels, attention, attention_by_products, product
from introspect.engine.schedule import PLAIN, STEP
from introspect.engine.step import Step
from introspect.errors import ConfigError, UnknownPath

FUSED = OneRowKernels(name="fused", product=product, attention=attention, fuses=True)
UNCOMPILED = OneRowKernels(name="uncompiled", product=product, attention=attention)
PROMPT = list(range(5, 60))
COVERED = [
    "llama", "mixtral", "qwen2", "qwen2_moe", "qwen3", "gemma", "phi", "phi3", "gpt2", "gpt_neox", "opt",
    "stablelm", "olmo2", "granite", "cohere2", "deepseek_v3", "minicpm3", "glm4", "smollm3", "nemotron",
    "diffllama", "jetmoe",
]  # fmt: skip
"""Of each way of building attention and products one family; the others of the table are their kin."""


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
    for step in (Step(model.eval()), Step(model, UNCOMPILED)):
        plain, stepped, cache = by_both(model, step)
        assert float((plain - stepped).abs().max()) < 1e-5 * max(1.0, float(plain.abs().max()))
        assert cache.lengths() == [len(PROMPT) + 1] * len(cache.layers)


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
    for computed in (attention, attention_by_products):
        assert np.abs(computed(query, keys, values, 0.3).double().numpy() - meant).max() < 1e-5


def test_a_hook_that_is_registered_acts_as_it_does_on_the_plain_path() -> None:
    model = random_model()
    step = Step(model, UNCOMPILED)
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


def test_a_session_decoded_by_the_step_is_audited_by_the_step(model: Any, byte_format: Any) -> None:
    engine = Engine(model, step=Step(model))
    phase = a_phase(memory={"max_conversation_tokens": 6000})
    session = forced_session(model, byte_format, phase, [STEPS], engine)
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


def test_a_model_is_decoded_plainly_unless_the_step_is_asked_for() -> None:
    model = random_model()
    assert choose_decode_path(model).name == PLAIN
    assert choose_decode_path(model, "step").name == STEP
    eager = small_model("qwen2", torch.float32, 2)
    eager.set_attn_implementation("eager")
    with pytest.raises(ConfigError, match="its attention is eager"):
        choose_decode_path(eager, "step")
