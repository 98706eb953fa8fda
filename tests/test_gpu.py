"""The decode path `graph` on the device that records it. On a processor the same tests run its eager replay.

`pytest tests/test_gpu.py -m gpu` is what a GPU is needed for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import small_model
from support.digest_by_hand import by_hand
from support.sessions import DONE, STEPS, a_phase, forced_session, opened_run, phase_for, run_session

from introspect.audits.record import audit_replay
from introspect.audits.recorded import recorded_turns
from introspect.commands.audit import audit_command
from introspect.engine.cache_replay import first_difference, replay_passes
from introspect.engine.capture import capture_for
from introspect.engine.decoding import DecodingSequence
from introspect.engine.device_row import DeviceRow
from introspect.engine.engine import Engine
from introspect.engine.graph import Graph
from introspect.engine.graph_trial import usable_graph
from introspect.engine.row_digest import MIX64, SHA256, digest_bytes, mixed
from introspect.engine.sampling import NucleusSampler
from introspect.engine.schedule import GRAPH, PLAIN

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_GPU])]
ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}
"""Parts of the largest logit by which a recorded pass may differ from the plain one."""
PROMPT = [7 * i % 199 for i in range(100)]

devices = pytest.mark.parametrize("device", DEVICES)


def a_model(device: str, dtype: torch.dtype = torch.float32, layers: int = 3) -> Any:
    return small_model("qwen2", dtype, layers, hidden=64).to(device)


@devices
def test_a_recorded_pass_reads_what_stands_there_when_it_is_repeated(device: str) -> None:
    capture = capture_for(torch.device(device))
    given, kept = torch.ones(4, device=device), torch.zeros(4, device=device)

    def run() -> torch.Tensor:
        kept.copy_(given * 2)
        return kept + 1

    with torch.no_grad():
        repeats = [capture(run) for _ in range(2)]
        for number in (3.0, 5.0, 7.0):
            for repeat in repeats:
                given.fill_(number)
                assert repeat().tolist() == [2 * number + 1] * 4 and kept.tolist() == [2 * number] * 4
        del repeats, repeat
        assert capture(run)().tolist() == [15.0] * 4  # when none is left, too


@devices
@pytest.mark.parametrize("dtype", list(ROUNDING))
def test_the_graph_is_the_plain_pass_up_to_rounding(device: str, dtype: torch.dtype) -> None:
    model = a_model(device, dtype)
    engine = Engine(model, graph=Graph(model, step=64))
    cache = engine.new_cache()
    engine.prefill(cache, PROMPT)
    twin = cache.fork()
    for token_id in range(60):  # over the end of a bucket and of a buffer
        made, meant = engine.forward(cache, [token_id], GRAPH), engine.forward(twin, [token_id], PLAIN)
        assert float((made - meant).abs().max()) <= ROUNDING[dtype] * float(meant.abs().max())
    assert cache.lengths() == twin.lengths()


@devices
@pytest.mark.parametrize("dtype", list(ROUNDING))
def test_passes_repeat_themselves_bit_for_bit(device: str, dtype: torch.dtype) -> None:
    model = a_model(device, dtype)
    engine = Engine(model, graph=usable_graph(model))
    cache = engine.new_cache()
    engine.prefill(cache, PROMPT)
    for token_id in range(20):
        engine.forward(cache, [token_id], GRAPH)
    other = replay_passes(engine, cache.schedule)
    assert first_difference(cache, other, len(cache.token_ids)) is None


@devices
def test_what_is_decoded_after_a_prune_is_what_a_fresh_cache_gives(device: str) -> None:
    model = a_model(device)
    engine = Engine(model, graph=Graph(model, step=64))
    cache = engine.new_cache()
    for prompt in (PROMPT, [*PROMPT[:40], *PROMPT[70:]], [*PROMPT, *range(300, 380)], PROMPT[:50]):
        engine.prefill(cache, prompt)
        fresh = engine.new_cache()
        engine.prefill(fresh, prompt)
        for token_id in (1, 2, 3):
            made, meant = (engine.forward(each, [token_id], GRAPH) for each in (cache, fresh))
            assert float((made - meant).abs().max()) <= 1e-3 * float(meant.abs().max())


@devices
def test_a_model_that_was_changed_is_recorded_anew(device: str) -> None:
    model = a_model(device)
    engine = Engine(model, graph=usable_graph(model))
    cache = engine.new_cache()
    engine.prefill(cache, PROMPT)
    engine.forward(cache, [1], GRAPH)
    layer = model.model.layers[1].mlp
    layer.gate_proj.weight = torch.nn.Parameter(layer.gate_proj.weight * 3)
    for _ in range(2):
        cache.truncate(len(PROMPT))
        twin = cache.fork()
        made, meant = engine.forward(cache, [1], GRAPH), engine.forward(twin, [1], PLAIN)
        assert float((made - meant).abs().max()) <= 1e-3 * float(meant.abs().max())


@devices
def test_what_a_device_tells_of_a_row_is_told_without_waiting_for_it(device: str) -> None:
    for seed in range(20):
        row = torch.randn(5000, generator=torch.Generator().manual_seed(seed)) * 4
        sampler = NucleusSampler(0.9, (0.5, 0.9, 1.0)[seed % 3], seed)
        asked, there = DeviceRow(row.to(device)), row.to(device)
        mixed(there)  # what is computed once for each device
        before = torch.cuda.get_sync_debug_mode() if device == "cuda" else 0
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        try:
            asked.ask(NucleusSampler(0.9, sampler.top_p, seed))
        finally:
            if device == "cuda":
                torch.cuda.set_sync_debug_mode(before)
        told = asked.figures()
        assert told.sound and digest_bytes(told.digest) == by_hand(row)
        assert told.token_id in (None, sampler.choose(row))
        assert told.log_sum == pytest.approx(float(torch.logsumexp(row, dim=0)), rel=1e-6)


@devices
def test_replies_by_the_device_are_those_of_the_processor_and_repeat_themselves(device: str) -> None:
    model, replies = a_model(device), []
    for row_digest in (MIX64, MIX64, SHA256):
        engine = Engine(model, graph=Graph(model, step=64), row_digest=row_digest)
        cache = engine.new_cache()
        sequence = DecodingSequence(
            cache=cache,
            sampler=NucleusSampler(0.8, 0.9, 3),
            logits=engine.prefill(cache, list(range(50))).logits,
            stop_ids=frozenset(),
            max_new_tokens=40,
        )
        for _ in engine.decode([sequence]):
            pass
        replies.append((sequence.token_ids, cache.state_digest(), sequence.logits_digest))
    assert replies[0] == replies[1] and replies[0][:2] == replies[2][:2]


@devices
def test_a_session_is_audited_by_the_path_that_it_was_decoded_by(device: str, byte_format: Any) -> None:
    model = small_model("qwen2", torch.float32, 2).to(device)
    engine = Engine(model, graph=usable_graph(model))
    phase = a_phase(memory={"max_conversation_tokens": 6000})
    session = forced_session(model, byte_format, phase, [[*STEPS[3:6], DONE]], engine)
    stream, status = run_session(session, engine=engine)
    assert status == "complete" and session.tally.audits["failed"] == 0
    assert session.tally.audits["e0"] > 0 and session.tally.audits["e1"] > 0
    assert set(session.tally.decode_paths) == {GRAPH}
    assert audit_replay(recorded_turns(stream), Engine(model, graph=usable_graph(model))).failures == []


@devices
def test_the_record_of_a_run_is_audited_with_the_same_kernels(
    device: str, model_dir: Path, tmp_path: Path
) -> None:
    model = {"id": str(model_dir), "device": device, "dtype": "float32"}
    phase = phase_for(model_dir, model=model, engine={"decode_path": "graph"}, limits={"max_turns": 2})
    run = opened_run(phase, tmp_path)
    named = "CUDA graph" if device == "cuda" else "eager replay"
    assert run.start.environment["decode_path"]["kernels"] == f"{named}, buckets of 512"
    summary = run.execute(lambda event: None)
    assert set(summary["decode_paths"]) == {"graph"} and summary["audits"]["failed"] == 0
    assert audit_command(summary["run"], "e1", tmp_path, as_json=True) == 0
