"""Rotary factors that change with the length: where they do, and that the context ends there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import fill_weights
from support.broken_models import SIZES, whole_model
from support.sessions import a_phase
from transformers import AutoConfig, AutoModelForCausalLM

from introspect.checkpoint.loading import load_model
from introspect.engine.engine import Engine
from introspect.events import Audit, Generation
from introspect.execution.opening import open_run
from introspect.execution.options import RunOptions
from introspect.execution.preflight import check_model
from introspect.execution.preparation import prepare
from introspect.model.context_length import context_length_of, rotary_switch, usable_context

SWITCH = 48
FACTORS = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.0, 3.0, 9.0, 20.0]}
LONGROPE: dict[str, Any] = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "original_max_position_embeddings": SWITCH,
    **FACTORS,
}
DYNAMIC: dict[str, Any] = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0}
YARN: dict[str, Any] = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 48,
}
PHI3 = {"model_type": "phi3", "original_max_position_embeddings": SWITCH, "sliding_window": 262144}


def config_of(kind: str, rope: dict[str, Any], context: int, **more: Any) -> Any:
    ids = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": None}
    sizes = SIZES | {"max_position_embeddings": context}
    return AutoConfig.for_model(kind, **sizes | ids | more, rope_parameters=dict(rope))


def random_model(config: Any) -> Any:
    model = AutoModelForCausalLM.from_config(config).eval()
    fill_weights(model, 11, vectors=0.3)
    return model


def difference(model: Any, length: int, chunk: int = 7) -> float:
    """The largest difference of a logit of the last token between a cache filled in chunks and one pass."""
    ids = torch.randint(2, 600, (length,), generator=torch.Generator().manual_seed(2)).tolist()
    engine = Engine(model, prefill_chunk=chunk)
    cached = engine.prefill(engine.new_cache(), ids).logits
    with torch.no_grad():
        whole = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
    return float((cached - whole).abs().max())


@pytest.mark.parametrize(
    ("kind", "rope", "context", "more", "switch"),
    [
        ("llama", LONGROPE, 192, {}, ("longrope", SWITCH)),
        ("phi3", LONGROPE, 192, {"original_max_position_embeddings": SWITCH}, ("longrope", SWITCH)),
        ("llama", {**LONGROPE, "original_max_position_embeddings": 999}, 192, {}, ("longrope", 999)),
        ("llama", DYNAMIC, 64, {}, ("dynamic", 64)),
        ("llama", YARN, 192, {}, None),
        ("llama", {"rope_type": "default", "rope_theta": 1e4}, 192, {}, None),
        ("gpt2", {}, 192, {}, None),
    ],
)
def test_where_factors_change(
    kind: str, rope: dict[str, Any], context: int, more: dict[str, Any], switch: tuple[str, int] | None
) -> None:
    config = config_of(kind, rope, context, **more)
    assert rotary_switch(config) == switch
    assert usable_context(config) == min(context, switch[1] if switch else context)


def test_factors_of_each_type_of_layer_are_looked_at() -> None:
    config = config_of("gemma3_text", {"full_attention": LONGROPE, "sliding_attention": YARN}, 192)
    assert rotary_switch(config) == ("longrope", SWITCH)


@pytest.mark.parametrize(
    ("kind", "rope", "context"),
    [("llama", LONGROPE, 192), ("phi3", LONGROPE, 192), ("phimoe", LONGROPE | {
        "short_mscale": 1.0, "long_mscale": 1.2}, 192), ("llama", DYNAMIC, 64)],
)  # fmt: skip
def test_the_cache_is_exact_up_to_the_switch_and_wrong_from_there_on(
    kind: str, rope: dict[str, Any], context: int
) -> None:
    more = {"sliding_window": None} if kind.startswith("phi") else {}
    more |= {"original_max_position_embeddings": SWITCH} if kind == "phi3" else {}
    model = random_model(config_of(kind, rope, context, **more))
    usable = usable_context(model.config)
    assert usable is not None
    for length in (usable // 2, usable - 1, usable):
        assert difference(model, length) < 1e-4
    assert max(difference(model, usable + over) for over in (1, 5)) > 1e-2


def test_factors_that_stay_are_exact_at_every_length() -> None:
    model = random_model(config_of("llama", YARN, 192))
    assert difference(model, 48 + 20) < 1e-4


@pytest.mark.parametrize(
    ("key", "kind"),
    [("max_position_embeddings", "llama"), ("n_positions", "gpt2"), ("max_seq_len", "mpt"),
     ("seq_length", "bloom"), ("n_positions", "ctrl"), ("n_positions", "codegen")],
)  # fmt: skip
def test_the_context_under_the_key_of_its_family(key: str, kind: str) -> None:
    assert context_length_of(AutoConfig.for_model(kind, **{key: 321})) == 321


def test_a_context_that_nobody_knows() -> None:
    assert context_length_of(AutoConfig.for_model("bloom")) is None


def test_a_run_ends_its_replies_where_the_context_ends(tmp_path: Path) -> None:
    rope = LONGROPE | {"original_max_position_embeddings": 2000}
    folder = whole_model(tmp_path / "m", "llama", rope_parameters=rope, max_position_embeddings=8192)
    phase = a_phase(
        model={"id": str(folder), "device": "cpu"},
        tools=("record_observation",),
        generation={"max_new_tokens": 24, "seed": 1, "temperature": 1.0},
        audit={"e0": "every_turn", "e1": "never", "e2": "every_turn"},
        limits={"max_turns": 8},
    )
    row = check_model(phase)
    assert row["model"]["codes"] == ["changing-rotary"]
    assert row["model"]["forecast"]["context_length"] == 2000
    assert load_model(phase.model).context_length == 2000
    opened = open_run(prepare(phase, RunOptions(tmp_path / "runs")), lambda: False)
    seen: list[Any] = []
    opened.session.context_length = opened.session.system_tokens + 60
    opened.execute(seen.append)
    replies = [event for event in seen if isinstance(event, Generation)]
    assert replies
    for reply in replies:
        assert reply.prompt_tokens + len(reply.token_ids) <= opened.session.context_length
    audits = [event for event in seen if isinstance(event, Audit)]
    assert audits and not any(audit.codes for audit in audits)
    assert "changing-rotary" in (opened.writer.directory / "test.log").read_text()
