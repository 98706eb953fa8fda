"""The auditor of a run by itself: what it may spend, what it spent, and what it does where memory ends."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from support.sessions import random_model

from introspect.audits import auditor
from introspect.audits.auditor import RunAuditor
from introspect.engine.engine import Engine
from introspect.engine.schedule import PLAIN, ForwardPass
from introspect.phase.config import AuditConfig
from introspect.session.protocols import CachedTurn

PROMPT, REPLY = tuple(range(40, 70)), tuple(range(100, 106))
SLOTS = len(PROMPT) + len(REPLY)
ALL = AuditConfig(e0="every_turn", e1="every_turn", e2="every_turn")


def a_turn(model: Any) -> tuple[Engine, CachedTurn]:
    """A prompt written by one pass, and a reply of six ids on it; each pass took a second, by its word."""
    engine = Engine(model)
    cache = engine.new_cache()
    engine.prefill(cache, list(PROMPT))
    for token_id in REPLY:
        engine.forward(cache, [token_id], PLAIN)
    cache.schedule.passes = [ForwardPass(**(vars(p) | {"seconds": 1.0})) for p in cache.schedule.passes]
    return engine, CachedTurn(
        experiment=0,
        turn=1,
        cache=cache,
        token_ids=(*PROMPT, *REPLY),
        prompt_tokens=len(PROMPT),
        messages=(),
        pruned=False,
    )


@pytest.mark.parametrize(
    ("elapsed", "e2", "compared", "made"),
    [
        (5.0, "never", 0, None),
        (11.0, "never", 1, None),
        (35.0, "never", 3, None),
        (1000.0, "never", 6, None),
        # One pass over all takes 36 / 30 s: E2 comes first where a tenth of the time is enough for it.
        (35.0, "end", 2, True),
        (11.0, "end", 1, False),
        (5.0, "end", 0, False),
        (1000.0, "end", 6, True),
    ],
)
def test_audits_of_a_model_that_is_not_small_take_a_tenth_of_the_time(
    elapsed: float, e2: Any, compared: int, made: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditor, "SMALL_MODEL", 1)
    engine, state = a_turn(random_model())
    now = [100.0]
    checks = RunAuditor(engine, AuditConfig(e0="never", e1="end", e2=e2), clock=lambda: now[0])
    now[0] += elapsed
    first, *others = checks.after_experiment(state)
    assert (first.level, first.codes, first.figures["replies_drawn"]) == ("e1", (), int(compared > 0))
    tokens = "36 tokens" if compared == 6 else f"{30 + compared} of 36 tokens"
    assert first.detail.startswith(f"{tokens} bit-equal to a replay of {1 + compared} pass")
    assert [verdict.skipped is None for verdict in others] == ([] if made is None else [made])
    assert all(v.skipped is None or v.skipped.startswith("it would take 1.2 s, over 10%") for v in others)


def test_a_small_model_is_audited_whatever_it_costs() -> None:
    engine, state = a_turn(random_model())
    checks = RunAuditor(engine, ALL, clock=lambda: 0.0)
    assert [(v.level, v.skipped, v.codes) for v in checks.after_turn(state)] == [
        (level, None, ()) for level in ("e0", "e1", "e2")
    ]


def test_the_seconds_of_audits_lie_within_those_that_passed() -> None:
    engine, state = a_turn(random_model())
    checks = RunAuditor(engine, ALL)
    began = time.perf_counter()
    verdicts = [*checks.after_turn(state), *checks.after_experiment(state)]
    passed = time.perf_counter() - began
    assert all(verdict.seconds > 0 for verdict in verdicts)
    assert sum(verdict.seconds for verdict in verdicts) <= passed
    dear = [verdict.seconds for verdict in verdicts if verdict.level != "e0"]
    assert checks.spent == pytest.approx(sum(dear), rel=1e-12)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")])
def test_where_memory_ends_an_audit_is_skipped_with_the_reason(error: Exception) -> None:
    model = random_model()
    engine, state = a_turn(model)
    checks = RunAuditor(engine, ALL)

    def hook(module: Any, args: Any) -> None:
        raise error

    handle = model.model.layers[1].register_forward_pre_hook(hook)
    began = time.perf_counter()
    e0, *others = checks.after_turn(state)
    passed = time.perf_counter() - began
    assert e0.skipped is None and not e0.codes
    assert [(v.level, v.codes) for v in others] == [("e1", ()), ("e2", ())]
    assert [v.skipped for v in others] == [
        f"{level} of {SLOTS} tokens takes more memory than there is" for level in ("E1", "E2")
    ]
    assert all(0 < v.seconds <= passed for v in others) and checks.spent == 0.0
    handle.remove()
    assert [v.skipped for v in checks.after_turn(state)] == [None] * 3


def test_an_error_that_is_no_want_of_memory_is_raised() -> None:
    model = random_model()
    engine, state = a_turn(model)
    for level in ("e1", "e2"):
        when: dict[str, Any] = {"e0": "never", "e1": "never", "e2": "never"} | {level: "end"}
        checks = RunAuditor(engine, AuditConfig(**when))

        def hook(module: Any, args: Any) -> None:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

        handle = model.model.layers[1].register_forward_pre_hook(hook)
        with pytest.raises(RuntimeError, match="mat1"):
            checks.after_experiment(state)
        handle.remove()


@pytest.mark.parametrize(("layer", "slot"), [(0, 0), (1, 12), (1, 33)])
def test_e1_tells_where_and_by_how_much(layer: int, slot: int) -> None:
    engine, state = a_turn(random_model())
    checks = RunAuditor(engine, AuditConfig(e0="never", e1="end", e2="end"))
    state.cache.layers[layer].values[0, 1, slot, 2] += 0.5
    [verdict] = checks.after_experiment(state)
    assert verdict.level == "e1" and verdict.codes
    figures = verdict.figures
    assert (figures["layer"], figures["slot"], figures["tokens"]) == (layer, slot, SLOTS)
    assert figures["max_abs"] == pytest.approx(0.5, abs=1e-5)
    said = f"values of layer {layer} differ from slot {slot} on by up to 0.5, in 1 of {SLOTS} slots"
    assert verdict.detail.startswith(said)


@pytest.mark.parametrize("length", [3, 20, 33])
def test_layers_of_several_lengths_are_told_as_they_are(length: int) -> None:
    """Whatever was decoded on top of the prompt: what is told is what the layers hold."""
    engine, state = a_turn(random_model())
    state.cache.layers[1].truncate(length)
    [verdict] = RunAuditor(engine, ALL).after_turn(state)
    assert (verdict.level, verdict.codes) == ("e0", ("ragged-layers",))
    assert f"layer 1 holds {length} keys and {length} values, layer 0 holds {SLOTS} keys" in verdict.detail
