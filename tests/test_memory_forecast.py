"""What a turn will take of the memory: forecast from above, told before it is tried, and acted upon."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import small_model
from support.allocations import peak_bytes
from support.sessions import DONE, a_phase, call_text, forced_session, opened_run, phase_for

from introspect.checkpoint.device_memory import room_for_run, taken_memory
from introspect.commands.dry_run import forecast
from introspect.engine.engine import Engine
from introspect.engine.kv_cache import KVCache
from introspect.engine.sampling import ForcedSampler
from introspect.engine.widened import WidenedProducts
from introspect.errors import ConfigError
from introspect.events import Audit, Event, Generation, Prune, Warning
from introspect.execution.options import RunOptions
from introspect.phase.config import MIB
from introspect.prompt.formats import ChatML
from introspect.prompt.prompt import Prompt
from introspect.session.driver import EngineDriver, drive
from introspect.session.exchange import GenerationRequest
from introspect.session.loop import run_phase
from introspect.session.memory import MemoryWatch

LOOK = call_text("get_architecture_summary")


def a_request(cache: Any, ids: list[int], reply: int) -> GenerationRequest:
    return GenerationRequest(
        experiment=0,
        turn=1,
        prompt=Prompt(tuple(ids), ()),
        cache=cache,
        sampler=ForcedSampler([5] * reply),
        stop_ids=frozenset(),
        max_new_tokens=reply,
        forced=True,
    )


@pytest.mark.parametrize(
    ("cached", "prompt", "reply"), [(0, 40, 2), (0, 700, 30), (240, 250, 40), (500, 520, 100)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_forecast_bounds_what_the_allocator_gives(
    byte_format: ChatML, dtype: torch.dtype, cached: int, prompt: int, reply: int
) -> None:
    """From above, and not by much: peaks by the allocator's own record."""
    model = small_model("qwen2", dtype, 2, vocabulary=640)
    wide = dtype == torch.bfloat16
    engine = Engine(model, prefill_chunk=128, widened=WidenedProducts(model) if wide else None)
    cache = engine.new_cache()
    ids = [i % 600 for i in range(prompt)]
    if cached:
        engine.prefill(cache, ids[:cached])
    request = a_request(cache, ids, reply)
    needed = MemoryWatch(engine).needed(request)
    driver = EngineDriver(engine, byte_format)
    peak = peak_bytes(lambda: list(driver.serve(request)))
    assert peak <= needed <= 3 * peak


@given(st.lists(st.integers(1, 700), min_size=1, max_size=6), st.integers(1, 2000))
def test_the_growth_of_buffers_is_what_they_take(fed: list[int], more: int) -> None:
    cache, layers = KVCache(2), 2
    form = (1, 2, 1, 8)

    def write(count: int) -> None:
        states = torch.zeros(form).expand(1, 2, count, 8)
        for layer in cache.layers:
            layer.update(states, states)

    def held() -> int:
        return sum(
            b.numel() * 4
            for layer in cache.layers
            if layer._buffer
            for b in (layer._buffer.keys, layer._buffer.values)
        )

    slot = layers * 2 * 2 * 8 * 4
    for count in fed:
        write(count)
    before = held()
    length = cache.lengths()[0] + more
    foreseen = cache.bytes_to_hold(length, slot)
    for _ in range(more):
        write(1)
    grown = held() - before
    assert grown <= foreseen <= grown + before + slot * 256
    assert (grown == 0) == (foreseen == 0)


def with_limit(session: Any, engine: Engine, limit: int | None) -> tuple[list[Event], str]:
    driver = EngineDriver(engine, session.prompt_format, memory=MemoryWatch(engine, limit))
    stream = drive(run_phase(session, session.phase.experiments), driver)
    events: list[Event] = []
    try:
        while True:
            events.append(next(stream))
    except StopIteration as end:
        return events, end.value


def test_a_turn_that_would_not_fit_prunes_first_and_is_tried_all_the_same(
    model: Any, byte_format: ChatML
) -> None:
    """A forecast may be wrong: only an allocator ends a run."""
    session = forced_session(model, byte_format, a_phase(), [[LOOK, LOOK, LOOK, DONE]])
    stream, status = with_limit(session, Engine(model), 1)
    warnings = [event for event in stream if isinstance(event, Warning)]
    prunes = [event for event in stream if isinstance(event, Prune)]
    assert status == "complete" and [e.turn for e in stream if isinstance(e, Generation)] == [1, 2, 3, 4]
    assert [(w.code, w.turn) for w in warnings] == [("memory-forecast", turn) for turn in (1, 2, 3, 4)]
    assert all("would take" in w.message and "max_conversation_tokens" in w.message for w in warnings)
    assert all("forecast" in reason for prune in prunes for reason in prune.reasons)
    assert [bool(prune.dropped_messages) for prune in prunes] == [False, False, True, True]
    assert not [event for event in stream if isinstance(event, Audit) and event.codes]


def test_where_there_is_room_nothing_changes(model: Any, byte_format: ChatML) -> None:
    def left(limit: int | None) -> list[Any]:
        session = forced_session(model, byte_format, a_phase(), [[LOOK, LOOK, LOOK, DONE]])
        stream, _ = with_limit(session, Engine(model), limit)
        kinds = (Generation, Prune, Warning)
        return [
            replace(e, seconds=0.0, digest_seconds=0.0) if isinstance(e, Generation) else e
            for e in stream
            if isinstance(e, kinds)
        ]

    assert left(None) == left(1 << 50)


def test_what_is_left_of_a_limit_is_what_is_not_taken() -> None:
    taken = taken_memory("cpu")
    assert taken is not None and taken > 50 * MIB
    room = room_for_run("cpu", taken + 64 * MIB)
    assert room is not None and abs(room - 64 * MIB) < 32 * MIB
    assert room_for_run("cpu", 1) == pytest.approx(-taken, rel=0.2)


def test_a_run_says_what_memory_it_has(model_dir: Path, tmp_path: Path) -> None:
    run = opened_run(phase_for(model_dir, limits={"max_turns": 1}), tmp_path / "a")
    memory = run.start.environment["memory"]
    assert memory["source"] == "device" and memory["limit"] > memory["taken"] > 0
    run._close()
    phase = phase_for(model_dir, memory={"limit": 1 << 20}, limits={"max_turns": 1})
    run = opened_run(phase, tmp_path / "b")
    assert run.start.environment["memory"] == {
        "limit": 1 << 40,
        "source": "memory.limit",
        "taken": run.start.environment["memory"]["taken"],
    }
    assert run.driver.memory is not None and run.driver.memory.limit == 1 << 40
    run._close()


def test_a_limit_that_the_model_takes_already_is_refused(model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"memory\.limit: 1 MiB"):
        opened_run(phase_for(model_dir, memory={"limit": 1}), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_shows_the_limit(model_dir: Path, tmp_path: Path) -> None:
    free = forecast(phase_for(model_dir), RunOptions(tmp_path))
    assert free["limit_bytes"] == free["free_bytes"]
    report = forecast(phase_for(model_dir, memory={"limit": 2}), RunOptions(tmp_path))
    assert report["limit_bytes"] == 2 * MIB
    assert report["room_bytes"] == 2 * MIB - report["memory_bytes"]["total"]
