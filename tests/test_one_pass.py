"""E2, the witness of a deterministic fault of the forward pass: made once a run, at no cost to the cache."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import fill_weights, small_model
from support.family_models import SHAPES, build
from support.sessions import DONE, a_phase, call_text, forced_session, random_model, run_session
from transformers import Phi3Config, Phi3ForCausalLM

from introspect import events
from introspect.audits.one_pass import against_one_pass, alarm_of_rounding, refused_one_pass
from introspect.audits.record import audit_recompute, audit_replay
from introspect.audits.recorded import recorded_turns
from introspect.engine.cache_layers import MIN_CAPACITY
from introspect.engine.engine import Engine
from introspect.prompt.formats import ChatML

SWITCH = 600
"""Positions from which on the model below turns its keys by other factors."""


def changing_model(long: float = 40.0) -> Any:
    """A random model with longrope: above `SWITCH` positions in a pass, every key is turned otherwise."""
    half = 4
    config = Phi3Config(
        vocab_size=640, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=8192, original_max_position_embeddings=SWITCH,
        pad_token_id=0,
        rope_parameters={
            "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * half,
            "long_factor": [long] * half, "original_max_position_embeddings": SWITCH,
        },
    )  # fmt: skip
    model = Phi3ForCausalLM(config)
    fill_weights(model)
    return model.eval()


PRUNED = {"max_turns": 2, "keep_recent_turns": 1}
STEPS = [*[call_text("query_memory")] * 5, DONE]


def audits(stream: list[Any], level: str) -> list[events.Audit]:
    return [e for e in stream if isinstance(e, events.Audit) and e.level == level]


def test_factors_that_switch_with_the_length_have_a_witness_by_default(byte_format: ChatML) -> None:
    phase = a_phase(tools=("query_memory",))
    session = forced_session(changing_model(), byte_format, phase, [[call_text("query_memory"), DONE]])
    stream, status = run_session(session)
    [first, *_] = [e for e in stream if isinstance(e, events.Prefill)]
    assert len(first.token_ids) < SWITCH < len(session.cache.token_ids)
    assert status == "corrupt"
    assert all(not verdict.codes for level in ("e0", "e1") for verdict in audits(stream, level))
    assert audits(stream, "e1")
    [verdict] = audits(stream, "e2")
    assert verdict.codes == ("unknown",) and "deterministic fault of the forward pass" in verdict.detail
    assert verdict.figures["max_abs_logit"] > 2 * verdict.figures["alarm"]


@pytest.mark.parametrize("shorter", [True, False])
def test_the_same_switch_is_seen_in_the_record(shorter: bool, byte_format: ChatML) -> None:
    """Below the switch the record is sound. Beyond it schedules of passes agree with each other in their
    error, so that measuring rounding by other schedules would take the fault for it."""
    model = changing_model(1.0 if shorter else 40.0)
    phase = a_phase(tools=("query_memory",), audit={"e2": "never"})
    session = forced_session(model, byte_format, phase, [[call_text("query_memory"), DONE]])
    stream, status = run_session(session)
    assert status == "complete"
    turns = recorded_turns(stream)
    assert audit_replay(turns, Engine(model)).failures == []
    assert bool(audit_recompute(turns, Engine(model), "cpu", "float32").failures) != shorter


@pytest.mark.parametrize(
    ("experiments", "turns"), [(1, [(0, 3), (0, 6)]), (2, [(0, 3), (1, 6)])], ids=["one", "two"]
)
def test_once_is_the_first_prune_of_a_run_and_its_end(
    experiments: int, turns: list[tuple[int, int]], model: Any, tiny_format: ChatML
) -> None:
    tasks = tuple({"name": f"e{i}", "task": "Look at yourself."} for i in range(experiments))
    phase = a_phase(tools=("query_memory",), memory=PRUNED, experiments=tasks)
    session = forced_session(model, tiny_format, phase, [STEPS] * experiments)
    stream, status = run_session(session)
    assert status == "complete"
    assert [(verdict.experiment, verdict.turn) for verdict in audits(stream, "e2")] == turns


def test_a_model_that_is_not_small_pays_within_its_share(model: Any, tiny_format: ChatML) -> None:
    """An audit that would cost too much is told as skipped, with the reason, and stays due."""
    phase = a_phase(tools=("query_memory",), memory=PRUNED, audit={"e1": "never"})
    session = forced_session(model, tiny_format, phase, [STEPS])
    auditor: Any = session.auditor
    auditor._small = False
    auditor.clock = lambda: auditor.began + 1e-9
    stream, status = run_session(session)
    assert status == "complete"
    skipped = audits(stream, "e2")
    prunes = [e for e in stream if isinstance(e, events.Prune)]
    assert len(skipped) == len(prunes) + 1 and all("it would take" in v.skipped for v in skipped)
    assert session.tally.audits["e2"] == 0


def test_a_pass_that_takes_too_much_memory_is_not_made() -> None:
    small, eager = random_model(), random_model()
    eager.config._attn_implementation = "eager"
    assert refused_one_pass(small, 8192) is None
    assert "MiB" in (refused_one_pass(small, 10**7) or "")
    assert "MiB" in (refused_one_pass(eager, 8192) or "") and refused_one_pass(eager, 2000) is None


@settings(max_examples=25)
@given(prompt=st.integers(2, 80), decoded=st.integers(0, 12), chunk=st.integers(1, 90))
def test_the_look_leaves_the_cache_byte_for_byte_and_unshared(prompt: int, decoded: int, chunk: int) -> None:
    engine = Engine(random_model(), chunk)
    cache = engine.new_cache()
    engine.prefill(cache, list(range(prompt)))
    for token_id in range(decoded):
        engine.forward(cache, [token_id])
    before, ids, passes = cache.content_digest(), list(cache.token_ids), list(cache.schedule.passes)
    places = [layer.keys.data_ptr() for layer in cache.layers]
    found = against_one_pass(engine, cache)
    assert not found.alarmed and found.alarm == 1e-3
    assert (cache.content_digest(), cache.token_ids, cache.schedule.passes) == (before, ids, passes)
    engine.forward(cache, [0])
    assert [layer.keys.data_ptr() for layer in cache.layers] == places or prompt + decoded == MIN_CAPACITY


@pytest.mark.parametrize("name", sorted(SHAPES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rounding_is_no_alarm(name: str, dtype: torch.dtype) -> None:
    """Logits a hundred times as large round a hundred times as coarsely: the fixed alarm alone would fire."""
    for loud in (1.0, 100.0):
        model = build(SHAPES[name]).to(dtype)
        head = model.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.detach() * loud)
        engine = Engine(model, 16)
        cache = engine.new_cache()
        engine.prefill(cache, [3 + i % 90 for i in range(40)])
        for token_id in range(3, 15):
            engine.forward(cache, [token_id])
        found = against_one_pass(engine, cache)
        assert not found.alarmed, found


def test_an_alarm_is_never_loosened_by_what_is_no_number() -> None:
    assert alarm_of_rounding("cpu", "float32", float("nan")) == 1e-3
    assert alarm_of_rounding("cpu", "float32", float("inf")) == 1e-3
    assert alarm_of_rounding("cpu", "float32", 1.0) == 4.0


def test_e1_is_made_at_every_prune_whatever_the_time_and_says_which_replies_it_left(
    model: Any, tiny_format: ChatML
) -> None:
    """New passes of a prompt cost one prefill again; decoded ids would cost the whole decoding."""
    phase = a_phase(tools=("query_memory",), memory=PRUNED, audit={"e2": "never"})
    session = forced_session(model, tiny_format, phase, [STEPS])
    auditor: Any = session.auditor
    auditor._small = False
    auditor.clock = lambda: auditor.began
    stream, status = run_session(session)
    assert status == "complete"
    prunes = [event for event in stream if isinstance(event, events.Prune)]
    *at_prunes, at_end = audits(stream, "e1")
    assert [verdict.turn for verdict in at_prunes] == [event.turn for event in prunes]
    assert all(verdict.skipped is None and not verdict.codes for verdict in (*at_prunes, at_end))
    first, *later = at_prunes
    assert first.figures["known_tokens"] == 0
    for verdict in later:
        fed = next(e for e in stream if isinstance(e, events.Prefill) and e.turn == verdict.turn)
        assert verdict.figures["known_tokens"] == fed.start >= session.system_tokens
        assert verdict.figures["passes"] == len(fed.chunks)
    assert at_end.figures["replies_drawn"] == 0 < at_end.figures["replies"]
    assert f"decoded replies drawn and repeated: 0 of {at_end.figures['replies']}" in at_end.detail


@pytest.mark.parametrize("seed", [98, 321, 425])
def test_rounding_of_large_keys_is_no_fault(seed: int) -> None:
    """One draw of rounding may lie far below the next: one alone took these sound caches for faulty."""
    engine = Engine(small_model(family="qwen2", key_bias=100.0, loud=50.0, dtype=torch.float32))
    cache, rng = engine.new_cache(), random.Random(seed)
    engine.prefill(cache, [rng.randrange(640) for _ in range(20)])
    for _ in range(25):
        engine.forward(cache, [rng.randrange(640)], engine.decode_path)
    found = against_one_pass(engine, cache)
    assert found.size > 1e-3 and not found.alarmed
