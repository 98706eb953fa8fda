"""Logits that are not finite end a run as corrupt, wherever they arise; audits of a record see them too."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.sessions import DONE, a_phase, call_text, forced_session, phase_for, random_model, run_session

from introspect import events
from introspect.audits.gaps import distance, largest_gap, mean_gap
from introspect.audits.record import audit_recompute, audit_replay
from introspect.audits.recorded import audit_schedule, recorded_turns
from introspect.engine.decoding import DecodingSequence
from introspect.engine.engine import Engine
from introspect.engine.finite import examine_logits, is_sound, largest_difference
from introspect.engine.sampling import ForcedSampler, GreedySampler
from introspect.execution.opening import open_run
from introspect.execution.options import RunOptions
from introspect.execution.preparation import prepare
from introspect.prompt.formats import ChatML
from introspect.runlog.codec import canonical, sealed, to_plain_record
from introspect.runlog.reader import read_events

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("row", "sound"),
    [
        ([0.0, 1.0, -3.0], True),
        ([-INF, 1.0, -INF], True),
        ([3.4e38, -3.4e38, 0.0], True),
        ([0.0, NAN, 1.0], False),
        ([0.0, INF, 1.0], False),
        ([-INF, -INF, -INF], False),
        ([NAN, INF, -INF], False),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_is_sound_where_a_distribution_can_be_made_of_it(
    row: list[float], sound: bool, dtype: torch.dtype
) -> None:
    logits = torch.tensor(row, dtype=dtype)
    assert is_sound(logits) == sound
    assert (examine_logits(logits, Engine(random_model()).new_cache()) is None) == sound
    with np.errstate(all="ignore"):
        shares = np.exp(np.array(row) - np.max(row))
        shares /= shares.sum()
    assert bool(np.isfinite(shares).all()) == sound


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [(1.0, 1.5, 0.5), (NAN, NAN, 0.0), (-INF, -INF, 0.0), (NAN, 1.0, INF), (INF, -INF, INF), (1.0, NAN, INF)],
)
def test_a_comparison_with_nan_never_passes_silently(one: float, other: float, apart: float) -> None:
    assert distance(one, other) == apart
    assert largest_difference(torch.tensor([0.0, one]), torch.tensor([0.0, other])) == apart
    assert largest_gap({"first": [(3, one), (4, 0.0)]}, {"first": [(4, 0.0), (3, other)]}) == apart
    assert mean_gap([one, 0.0], [other, 0.0]) == apart / 2


def nan_weight(model: Any) -> None:
    model.model.layers[0].mlp.down_proj.weight[3, 5] = NAN


def overflowing(model: Any) -> None:
    model.half()
    model.model.layers[1].mlp.up_proj.weight *= 200
    model.model.layers[1].mlp.gate_proj.weight *= 200
    model.model.layers[1].mlp.down_proj.weight *= 200


def nan_in_the_head(model: Any) -> None:
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    model.lm_head.weight[17] = NAN


def infinite_logit(model: Any) -> None:
    nan_in_the_head(model)
    model.lm_head.weight[17] = 0.0
    model.lm_head.bias = torch.nn.Parameter(torch.zeros(640))
    model.lm_head.bias[17] = INF


def nothing_but_minus_infinity(model: Any) -> None:
    infinite_logit(model)
    model.lm_head.bias[:] = -INF


@pytest.mark.parametrize(
    ("spoil", "codes", "hint"),
    [
        (nan_weight, ("non-finite-logits", "non-finite"), "layer 1"),
        (overflowing, ("non-finite-logits",), "--dtype bfloat16 or float32"),
        (nan_in_the_head, ("non-finite-logits",), "LM head"),
        (infinite_logit, ("non-finite-logits",), "1 +Inf"),
        (nothing_but_minus_infinity, ("non-finite-logits",), "640 -Inf"),
    ],
)
@pytest.mark.parametrize("forced", [True, False])
@pytest.mark.parametrize("audit", [{}, {"e0": "never", "e1": "never", "e2": "never"}])
def test_a_run_ends_corrupt_and_says_where_and_what_to_do(
    spoil: Any, codes: tuple[str, ...], hint: str, forced: bool, audit: dict[str, str], tiny_format: ChatML
) -> None:
    model = random_model()
    with torch.no_grad():
        spoil(model)
    session = forced_session(model, tiny_format, a_phase(audit=audit), [[DONE]])
    if not forced:
        session.forced_replies = None
    stream, status = run_session(session)
    assert status == "corrupt"
    [verdict] = [e for e in stream if isinstance(e, events.Audit)]
    assert verdict.codes == codes and hint in verdict.detail
    assert session.tally.audits["failed"] == 1
    [reply] = [e for e in stream if isinstance(e, events.Generation)]
    assert (reply.token_ids, reply.finish_reason) == ((), "non-finite")
    end = stream[-1]
    assert isinstance(end, events.ExperimentEnd) and (end.status, "finite" in end.reason) == ("corrupt", True)


def spoilt_token(token_id: int) -> Any:
    """A model whose numbers overflow once it has read one token."""
    model = random_model()
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    with torch.no_grad():
        model.model.embed_tokens.weight[token_id] = INF
    return model


@pytest.fixture
def mid_reply(tiny_format: ChatML) -> tuple[Any, Any, list[Any]]:
    """A run in whose second reply a token stands that spoils everything after it."""
    text = call_text("query_memory", prose="All goes well until Z, and then no more.")
    [token_id] = tiny_format.encode("Z")
    model = spoilt_token(token_id)
    session = forced_session(model, tiny_format, a_phase(), [[call_text("query_memory"), text, DONE]])
    stream, status = run_session(session)
    assert status == "corrupt"
    return model, session, stream


def test_a_reply_ends_before_the_row_that_is_not_finite(
    mid_reply: tuple[Any, Any, list[Any]], tiny_format: ChatML
) -> None:
    _, session, stream = mid_reply
    replies = [e for e in stream if isinstance(e, events.Generation)]
    assert replies[-1].text.endswith("All goes well until Z") and replies[-1].finish_reason == "non-finite"
    assert all(math.isfinite(value) for reply in replies for value in reply.logprobs)
    assert session.cache.token_ids[-len(replies[-1].token_ids) + 1 :] == list(replies[-1].token_ids[:-1])
    verdict = [e for e in stream if isinstance(e, events.Audit)][-1]
    prompt = replies[-1].prompt_tokens + len(replies[-1].token_ids) - 1
    assert verdict.codes == ("non-finite-logits", "non-finite") and f"slot {prompt}" in verdict.detail


@pytest.mark.parametrize("level", ["e0", "e1", "e2"])
def test_the_record_of_such_a_run_fails_its_audit_by_name(
    level: str, mid_reply: tuple[Any, Any, list[Any]]
) -> None:
    model, _, stream = mid_reply
    turns = recorded_turns(stream)
    engine = Engine(model)
    if level == "e0":
        verdict = audit_schedule(turns, 640)
    elif level == "e1":
        verdict = audit_replay(turns, engine)
    else:
        verdict = audit_recompute(turns, engine, "cpu", "float32")
    assert [failure["turn"] for failure in verdict.failures] == [2]
    assert "non-finite-logits" in verdict.failures[0]["codes"]
    json.dumps([verdict.failures, verdict.noise], allow_nan=False)


@pytest.mark.parametrize("level", ["e1", "e2"])
def test_a_sound_model_is_not_what_such_a_record_tells_of(
    level: str, mid_reply: tuple[Any, Any, list[Any]]
) -> None:
    turns = recorded_turns(mid_reply[2])
    engine = Engine(random_model())
    found = audit_replay(turns, engine) if level == "e1" else audit_recompute(turns, engine, "cpu", "float32")
    assert found.failures[-1]["turn"] == 2
    assert "finite" in found.failures[-1]["why"]


def sampled_through(
    model: Any, prompt: list[int], reply: list[int]
) -> tuple[events.Prefill, events.Generation]:
    """A turn as it was recorded before replies ended at such logits: tokens sampled from NaN."""
    engine = Engine(model)
    cache = engine.new_cache()
    prefill = engine.prefill(cache, prompt)
    sequence = DecodingSequence(
        cache=cache,
        sampler=ForcedSampler(reply),
        logits=prefill.logits,
        stop_ids=frozenset(),
        max_new_tokens=len(reply),
        through_faults=True,
    )
    list(engine.decode([sequence]))
    generation = events.Generation(
        experiment=0,
        turn=1,
        prompt_tokens=len(prompt),
        cached_tokens=0,
        token_ids=tuple(reply),
        text="",
        finish_reason="length",
        seconds=0.0,
        logprobs=tuple(sequence.logprobs),
        top_logits=sequence.top_logits,
        logits_digest=sequence.logits_digest,
        state_digest=cache.state_digest(),
        decode_path="forward-1",
        max_new_tokens=len(reply),
    )
    prefill_event = events.Prefill(
        experiment=0, turn=1, start=0, token_ids=tuple(prompt), chunks=(len(prompt),), seconds=0.0
    )
    return prefill_event, generation


@pytest.mark.parametrize("level", ["e1", "e2"])
def test_an_old_record_of_sampled_nan_is_named_and_nan_equals_nan(level: str) -> None:
    model = spoilt_token(9)
    turns = recorded_turns([*sampled_through(model, [5, 6, 7], [8, 9, 10, 11])])
    assert any(math.isnan(value) for value in turns[0].generation.logprobs)
    engine = Engine(model)
    verdict = (
        audit_replay(turns, engine) if level == "e1" else audit_recompute(turns, engine, "cpu", "float32")
    )
    [failure] = verdict.failures
    assert "non-finite-logits" in failure["codes"]
    assert "are not those of the record" not in failure["why"]
    json.dumps([verdict.failures, verdict.noise], allow_nan=False)


def test_masked_ids_are_no_fault_for_any_audit(tiny_format: ChatML) -> None:
    """Rows of the vocabulary that are never to be chosen have logits of minus infinity."""
    model = random_model()
    model.lm_head.bias = torch.nn.Parameter(torch.zeros(640))
    with torch.no_grad():
        model.lm_head.bias[600:] = -INF
    phase = a_phase(audit={"e2": "every_turn"})
    session = forced_session(model, tiny_format, phase, [[call_text("query_memory"), DONE]])
    stream, status = run_session(session)
    assert status == "complete" and session.tally.audits["failed"] == 0
    turns = recorded_turns(stream)
    assert audit_replay(turns, Engine(model)).failures == []
    assert audit_recompute(turns, Engine(model), "cpu", "float32").failures == []
    reply = replace(next(e for e in stream if isinstance(e, events.Generation)), logprobs=(-INF, NAN, -0.5))
    assert "NaN" in canonical(sealed(to_plain_record(reply), 0, "", ""))


def test_a_sequence_beside_a_spoilt_one_goes_on() -> None:
    """Decoding several replies at once: the one whose logits are not finite ends alone."""
    model = spoilt_token(9)
    alone, together = [], []
    for starts, into in (([[5, 6]], alone), ([[5, 6], [5, 9]], together)):
        engine = Engine(model)
        for start in starts:
            cache = engine.new_cache()
            logits = engine.prefill(cache, start).logits
            into.append(
                DecodingSequence(
                    cache=cache,
                    sampler=GreedySampler(),
                    logits=logits,
                    stop_ids=frozenset(),
                    max_new_tokens=4,
                )
            )
        for step in engine.decode(into):
            assert all(sequence.token_ids for sequence in step)
    assert together[0].token_ids == alone[0].token_ids and together[0].fault is None
    assert (together[1].token_ids, together[1].finish_reason) == ([], "non-finite")


def test_a_run_of_the_command_line_has_a_whole_record(
    model_dir: Path,
    tmp_path: Path,
    model: Any,
) -> None:
    spoilt = tmp_path / "model"
    bad = copy.deepcopy(model)
    with torch.no_grad():
        nan_weight(bad)
    bad.save_pretrained(spoilt)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (spoilt / name).write_bytes((model_dir / name).read_bytes())
    phase = phase_for(spoilt)
    options = RunOptions(tmp_path / "runs")
    summary = open_run(prepare(phase, options), lambda: False).execute(lambda e: None)
    assert summary["status"] == "corrupt"
    assert summary["failures"][0]["codes"] == ["non-finite-logits", "non-finite"]
    log = read_events(Path(summary["run"]) / "events.jsonl")
    assert not log.findings and isinstance(log.events[-1].event, events.RunEnd)
