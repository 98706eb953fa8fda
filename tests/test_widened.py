"""Prompts in 16 bit by products in fp32: no further from fp32 than torch's own, and the model as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import small_model
from support.sessions import a_phase, forced_session, run_session

from introspect.audits.record import audit_replay
from introspect.audits.recorded import recorded_turns
from introspect.engine.engine import Engine
from introspect.engine.widened import WidenedProducts

PROMPT = list(range(5, 75))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["qwen2", "llama", "gemma"])
def test_widened_products_are_nearer_to_fp32_than_narrow_ones(family: str, dtype: torch.dtype) -> None:
    model = small_model(family, dtype)
    exact = small_model(family, torch.float32)
    exact.load_state_dict({name: tensor.float() for name, tensor in model.state_dict().items()})
    logits = {}
    for name, engine in (
        ("own", Engine(model)),
        ("widened", Engine(model, widened=WidenedProducts(model))),
        ("exact", Engine(exact)),
    ):
        logits[name] = engine.prefill(engine.new_cache(), PROMPT).logits
    apart = {name: float((logits[name] - logits["exact"]).pow(2).mean().sqrt()) for name in logits}
    assert 0 < apart["widened"] <= 1.5 * apart["own"]
    assert not [module for module in model.modules() if "forward" in module.__dict__]


def test_only_prompts_are_widened() -> None:
    model = small_model("qwen2", torch.bfloat16, hidden=256)
    plain, wide = Engine(model), Engine(model, widened=WidenedProducts(model))
    cache = plain.new_cache()
    plain.prefill(cache, PROMPT)
    other = cache.fork()
    assert torch.equal(plain.forward(cache, [7], "plain"), wide.forward(other, [7], "plain"))
    assert not torch.equal(plain.forward(plain.new_cache(), PROMPT), wide.forward(wide.new_cache(), PROMPT))


def test_a_run_with_widened_prompts_is_audited_by_widened_prompts(byte_format: Any, tmp_path: Path) -> None:
    model = small_model("qwen2", torch.bfloat16)
    engine = Engine(model, widened=WidenedProducts(model))
    phase = a_phase(memory={"max_conversation_tokens": 6000})
    session = forced_session(model, byte_format, phase, [["x"] * 4], engine)
    stream, _ = run_session(session, engine=engine)
    turns = recorded_turns(stream)
    assert session.tally.audits["failed"] == 0
    assert audit_replay(turns, Engine(model, widened=WidenedProducts(model))).failures == []
    assert audit_replay(turns, Engine(model)).failures != []
