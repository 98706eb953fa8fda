"""A reply for which there is not enough memory: the window is pruned and the turn tried again."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from oom_suite import Kind, Setting, failed_audits, short_phase
from support.amounts import full
from support.sessions import DONE, a_phase, call_text, forced_session, opened_run, phase_for, run_session

from introspect.commands.live_line import LiveLine
from introspect.engine.out_of_memory import is_out_of_memory
from introspect.events import (
    Audit,
    Error,
    Event,
    ExperimentEnd,
    Generation,
    Prefill,
    Prune,
    RunEnd,
    Token,
    ToolResult,
    UserMessage,
    Warning,
)
from introspect.prompt.formats import ChatML
from introspect.runlog.reader import read_events

LOOK = call_text("get_architecture_summary")
EXPERIMENTS = ({"name": "one", "task": "Look."}, {"name": "two", "task": "Look again."})
NO_AUDIT = {"e0": "never", "e1": "never", "e2": "never"}
CPU = "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to get 9 B"
ERRORS: dict[str, Exception] = {
    "gpu": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu": RuntimeError(CPU),
    "python": MemoryError(),
}
NAMED = [
    *ERRORS.values(),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 137438953472 bytes."),
    RuntimeError(
        "MPS backend out of memory (MPS allocated: 9.0 GB, other allocations: 1 MB, max allowed: 9 GB)."
    ),
    RuntimeError("Invalid buffer size: 24.00 GB"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("XPU out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("std::bad_alloc"),
    OSError(12, "Cannot allocate memory"),
]
OTHERS = [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    RuntimeError("CUDA error: device-side assert triggered"),
    ValueError("out of range"),
    KeyError("memory"),
]


@pytest.mark.parametrize("error", NAMED, ids=lambda error: str(error)[:40])
def test_want_of_memory_is_known_however_a_device_words_it(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", OTHERS, ids=str)
def test_another_error_is_none(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_torch_raises_what_is_known(monkeypatch: Any) -> None:
    """What the allocator of this processor says of more than any machine has."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@contextmanager
def full_memory(
    model: Any,
    error: Exception,
    fails: Callable[[int], bool],
    seen: Callable[[Any], None] = lambda args: None,
) -> Iterator[None]:
    """Let passes fail by their number, from 1, when one layer has written K and V and the others not."""
    passes = [0]
    layer = model.model.layers[1]

    def hook(module: Any, args: Any) -> None:
        passes[0] += 1
        seen(args)
        if fails(passes[0]):
            # A new one: an error that is kept keeps the frames that it went through.
            raise type(error)(*error.args)

    handle = layer.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


PATHS: list[tuple[str, Kind]] = [
    ("plain", "layers"),
    ("plain", "operations"),
    ("step", "layers"),
    ("step", "operations"),
    ("graph", "operations"),
]


@pytest.mark.parametrize(("path", "kind"), PATHS)
def test_a_turn_that_ran_out_of_memory_is_that_of_a_run_that_pruned_there(
    model: Any, tiny_format: ChatML, path: str, kind: Kind
) -> None:
    """Wherever a pass fails; `scripts/oom_suite.py` takes every place."""
    setting = Setting(model, tiny_format, short_phase(4, 3), path)
    turns = setting.places(kind)
    assert set(turns) == {1, 2, 3, 4}
    spaced = range(len(turns) // 5, len(turns), len(turns) // (40 if full() else 4))
    meant: dict[int, list[dict[str, Any]]] = {}
    for at in sorted({*spaced, len(turns) - 1}):
        left = setting.with_shortage(kind, at)
        if turns[at] not in meant:
            meant[turns[at]] = setting.pruned_at(turns[at])
        assert left == meant[turns[at]]
        assert failed_audits(left) == 0


def test_it_is_pruned_as_the_settings_would_have_it(model: Any, tiny_format: ChatML) -> None:
    """A phase whose rules prune at the turn gives the same conversation, passes and bytes."""

    def left(max_turns: int, failing: bool) -> list[Any]:
        memory = {"max_turns": max_turns, "max_conversation_tokens": 6000}
        phase = a_phase(memory=memory, audit={"e0": "every_turn", "e1": "every_prune", "e2": "never"})
        session = forced_session(model, tiny_format, phase, [[LOOK, LOOK, LOOK, LOOK, DONE]])
        turn = [0]

        def fails(number: int) -> bool:
            now = session.turn == 4 and turn[0] == 0
            turn[0] += now
            return failing and now

        with full_memory(model, ERRORS["gpu"], fails):
            stream, status = run_session(session)
        assert status == "complete" and not [e for e in stream if isinstance(e, Audit) and e.codes]
        kept = (Prefill, Generation, UserMessage, ToolResult, ExperimentEnd)
        plain = [
            replace(e, seconds=0.0) if hasattr(e, "seconds") else e for e in stream if isinstance(e, kept)
        ]
        plain = [replace(e, digest_seconds=0.0) if isinstance(e, Generation) else e for e in plain]
        prunes = [(e.turn, e.dropped_messages, e.kept_turns) for e in stream if isinstance(e, Prune)]
        return [plain, prunes, session.cache.token_ids, session.cache.content_digest()]  # type: ignore[attr-defined]

    assert left(3, failing=False) == left(60, failing=True)


@pytest.mark.parametrize("name", ERRORS)
def test_the_record_says_what_was_done(model: Any, tiny_format: ChatML, name: str) -> None:
    session = forced_session(model, tiny_format, a_phase(audit=NO_AUDIT), [[LOOK, LOOK, LOOK, DONE]])
    failed = [False]

    def fails(number: int) -> bool:
        now = not failed[0] and session.turn == 3
        failed[0] |= now
        return now

    with full_memory(model, ERRORS[name], fails):
        stream, status = run_session(session)
    warning = next(event for event in stream if isinstance(event, Warning))
    prune = next(event for event in stream if isinstance(event, Prune))
    assert status == "complete" and (warning.code, warning.turn) == ("out-of-memory", 3)
    assert all(key in warning.message for key in ("max_conversation_tokens", "max_new_tokens", "model.dtype"))
    assert prune.turn == 3 and prune.reasons == ("a pass ran out of memory",) and prune.kept_turns == 1
    assert stream.index(warning) < stream.index(prune)
    assert [e.turn for e in stream if isinstance(e, Generation)] == [1, 2, 3, 4]


def test_what_was_streamed_of_a_reply_that_failed_is_no_part_of_the_run(
    model: Any, tiny_format: ChatML
) -> None:
    session = forced_session(model, tiny_format, a_phase(audit=NO_AUDIT), [[LOOK, DONE]])
    line, tokens = LiveLine(lambda: 0.0), [0]

    def watch(event: Event) -> None:
        line.take(event)
        tokens[0] += isinstance(event, Token) and event.turn == 2

    with full_memory(model, ERRORS["gpu"], lambda number: tokens[0] == 5):
        stream, status = run_session(session, watch=watch)
    again = [e.sampled for e in stream if isinstance(e, Token) and e.turn == 2]
    assert status == "failed" or again[5] == 1
    assert line.tally.generated == sum(len(e.token_ids) for e in stream if isinstance(e, Generation))


def test_a_failed_pass_leaves_nothing_behind_when_the_turn_is_tried_again(
    model: Any, tiny_format: ChatML
) -> None:
    """Activations live as long as the frames of the error that ended their pass."""
    session = forced_session(model, tiny_format, a_phase(audit=NO_AUDIT), [[LOOK, DONE]])
    held: list[weakref.ref[torch.Tensor]] = []
    living: list[bool] = []

    def seen(args: Any) -> None:
        living.extend(reference() is not None for reference in held[:1])
        held.append(weakref.ref(args[0]))

    with full_memory(model, ERRORS["gpu"], lambda number: number == 1, seen):
        run_session(session)
    assert len(living) > 1 and not any(living)


def test_twice_in_a_row_ends_the_run(model: Any, tiny_format: ChatML) -> None:
    session = forced_session(
        model, tiny_format, a_phase(experiments=EXPERIMENTS), [[LOOK, LOOK, LOOK, DONE], [LOOK, DONE]]
    )
    with full_memory(model, ERRORS["cpu"], lambda number: session.turn == 3):
        stream, status = run_session(session)
    ends = [event for event in stream if isinstance(event, ExperimentEnd)]
    errors = [event for event in stream if isinstance(event, Error)]
    warnings = [event for event in stream if isinstance(event, Warning)]
    assert status == "failed" and [(end.name, end.status, end.turns) for end in ends] == [
        ("one", "failed", 2)
    ]
    assert [(w.code, w.turn) for w in warnings] == [("out-of-memory", 3)] * 2
    assert len(errors) == 1 and errors[0].traceback is None
    assert "experiment 1, turn 3" in errors[0].message and "max_conversation_tokens" in errors[0].message
    assert ends[0].reason in errors[0].message
    assert not [event for event in stream if isinstance(event, Audit) and event.codes]


def test_the_record_of_a_run_that_ended_so_is_complete(model_dir: Path, tmp_path: Path) -> None:
    run = opened_run(phase_for(model_dir), tmp_path)
    with full_memory(run.session.context.model, ERRORS["gpu"], lambda number: True):
        summary = run.execute(lambda event: None)
    log = read_events(Path(summary["run"]) / "events.jsonl")
    kinds = [type(read.event) for read in log.events]
    assert summary["status"] == "failed" and not log.findings
    assert kinds[-3:] == [Error, ExperimentEnd, RunEnd]


def test_failures_that_are_not_in_a_row_end_nothing(model: Any, tiny_format: ChatML) -> None:
    session = forced_session(model, tiny_format, a_phase(), [[LOOK] * 6 + [DONE]])
    failed: set[int] = set()

    def fails(number: int) -> bool:
        now = session.turn not in failed and session.turn > 1
        failed.add(session.turn)
        return now

    with full_memory(model, ERRORS["gpu"], fails):
        stream, status = run_session(session)
    assert status == "complete"
    assert [e.turn for e in stream if isinstance(e, Warning)] == [2, 3, 4, 5, 6, 7]
    assert not [event for event in stream if isinstance(event, Audit) and event.codes]


def test_another_error_is_no_want_of_memory(model: Any, tiny_format: ChatML) -> None:
    session = forced_session(model, tiny_format, a_phase(), [[LOOK, DONE]])
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with full_memory(model, error, lambda number: number == 1), pytest.raises(RuntimeError, match="mat1"):
        run_session(session)


@pytest.mark.parametrize("name", ERRORS)
def test_a_tool_without_memory_is_an_error_to_the_model_alone(
    model: Any, tiny_format: ChatML, name: str
) -> None:
    """What the model reads has no sizes in it, which are others on every machine; the cache is untouched."""
    probe = call_text("process_text", text="Hello", layer_names=["model.layers.1"])

    def left(failing: bool) -> list[Event]:
        phase = a_phase(audit={"e0": "every_turn", "e1": "end", "e2": "never"})
        session = forced_session(model, tiny_format, phase, [[LOOK, probe, DONE]])
        at_work = [False]
        with full_memory(model, ERRORS[name], lambda number: failing and at_work[0]):
            stream, status = run_session(
                session, watch=lambda event: at_work.__setitem__(0, type(event).__name__ == "ToolCall")
            )
        assert status == "complete" and not [e for e in stream if isinstance(e, (Warning, Prune))]
        return stream

    stream = left(failing=True)
    result = next(e for e in stream if isinstance(e, ToolResult) and e.function == "process_text")
    assert not result.ok and result.traceback and "takes more memory than there is" in result.text
    assert "allocate" not in result.text and not [e for e in stream if isinstance(e, Audit) and e.codes]
    states = [
        [event.state_digest for event in one if isinstance(event, Generation)][:2]
        for one in (stream, left(failing=False))
    ]
    assert states[0] == states[1]


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("level", ["e1", "e2"])
def test_an_audit_without_memory_is_skipped_with_the_reason(
    model: Any, tiny_format: ChatML, name: str, level: str
) -> None:
    phase = a_phase(experiments=EXPERIMENTS[:1], audit=NO_AUDIT | {level: "end"})
    session = forced_session(model, tiny_format, phase, [[LOOK, LOOK, DONE]])
    made = [0]

    def watch(event: Event) -> None:
        made[0] += isinstance(event, Generation)

    with full_memory(model, ERRORS[name], lambda number: made[0] == 3):
        stream, status = run_session(session, watch=watch)
    audits = [event for event in stream if isinstance(event, Audit)]
    assert status == "complete"
    assert [(audit.level, audit.codes) for audit in audits] == [(level, ())]
    assert "more memory than there is" in str(audits[0].skipped)
