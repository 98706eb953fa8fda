"""A reply for which there is not enough memory: its experiment fails with the reason, and the run goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from support.sessions import DONE, a_phase, call_text, forced_session, run_session

from introspect.commands.live_line import LiveLine
from introspect.events import Audit, ExperimentEnd, ExperimentStart, Generation, Prefill, Token, Warning
from introspect.prompt.formats import ChatML

LOOK = call_text("get_architecture_summary")
EXPERIMENTS = ({"name": "one", "task": "Look."}, {"name": "two", "task": "Look again."})
NO_AUDIT = {"e0": "never", "e1": "never", "e2": "never"}
ERRORS = {
    "gpu": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"),
    "python": MemoryError(),
}


@contextmanager
def full_memory(model: Any, error: Exception, number: int) -> Iterator[None]:
    """Let the pass with this number, from 1, fail when one layer has written K and V and the others not."""
    passes = [0]
    layer = model.model.layers[1]

    def hook(module: Any, args: Any) -> None:
        passes[0] += 1
        if passes[0] == number:
            raise error

    handle = layer.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def passes_of(model: Any, byte_format: ChatML) -> list[tuple[str, int]]:
    """The kind and the turn of every pass of the first experiment, as a run without a fault makes them."""
    phase = a_phase(experiments=EXPERIMENTS[:1], audit=NO_AUDIT)
    stream, _ = run_session(forced_session(model, byte_format, phase, [[LOOK, LOOK, DONE]]))
    kinds: list[tuple[str, int]] = []
    for event in stream:
        if isinstance(event, Prefill):
            kinds += [("prefill", event.turn)] * len(event.chunks)
        if isinstance(event, Generation):
            kinds += [("decode", event.turn)] * (len(event.token_ids) - 1)
    return kinds


@pytest.mark.parametrize(
    ("kind", "name", "turn"),
    [("prefill", "gpu", 1), ("prefill", "cpu", 2), ("decode", "python", 1), ("decode", "gpu", 3)],
)
def test_an_experiment_without_memory_fails_and_the_next_goes_on(
    model: Any, byte_format: ChatML, kind: str, name: str, turn: int
) -> None:
    kinds = passes_of(model, byte_format)
    # The last of its kind in the turn: of a prefill in chunks the earlier ones have written all layers.
    number = len(kinds) - kinds[::-1].index((kind, turn))
    phase = a_phase(experiments=EXPERIMENTS, audit={"e0": "every_turn", "e1": "every_prune", "e2": "once"})
    replies = [[LOOK, LOOK, DONE]] * 2
    session = forced_session(model, byte_format, phase, replies)
    with full_memory(model, ERRORS[name], number):
        stream, status = run_session(session)
    ends = [event for event in stream if isinstance(event, ExperimentEnd)]
    assert status == "failed" and [end.status for end in ends] == ["failed", "complete"]
    warnings = [event for event in stream if isinstance(event, Warning)]
    assert [(w.code, w.experiment, w.turn) for w in warnings] == [("out-of-memory", 0, turn)]
    # The turn of which nothing came is no turn of the experiment.
    assert [end.turns for end in ends] == [turn - 1, 3] == [row["turns"] for row in session.tally.rows("")]
    assert ends[0].reason == warnings[0].message and "memory" in ends[0].reason
    assert not [event for event in stream if isinstance(event, Audit) and event.codes]
    made = [(event.experiment, event.turn) for event in stream if isinstance(event, Generation)]
    assert made == [(0, t) for t in range(1, turn)] + [(1, t) for t in range(1, 4)]
    assert kind == "prefill" or any(isinstance(e, Token) and e.turn == turn for e in stream)
    line = LiveLine(lambda: 0.0)
    for event in stream:
        line.take(event)
        if isinstance(event, ExperimentStart):
            # What was streamed of a reply that never came is no part of the run.
            assert f" {line.tally.generated} tokens" in line.text(200).plain


@pytest.mark.parametrize(("kind", "turn"), [("prefill", 2), ("decode", 2)])
def test_what_comes_after_is_what_the_record_says(
    model: Any, byte_format: ChatML, kind: str, turn: int
) -> None:
    """The cache holds no slot that no recorded pass has written; logits are those of an uncached pass."""
    kinds = passes_of(model, byte_format)
    number = len(kinds) - kinds[::-1].index((kind, turn))
    phase = a_phase(experiments=EXPERIMENTS, audit=NO_AUDIT)
    session = forced_session(model, byte_format, phase, [[LOOK, LOOK, DONE]] * 2)
    with full_memory(model, ERRORS["gpu"], number):
        stream, _ = run_session(session)
    written: list[int] = []
    for event in stream:
        if isinstance(event, Prefill):
            assert event.start <= len(written)
            written[event.start :] = event.token_ids
        if isinstance(event, Generation):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([written]), use_cache=False).logits[0, -1]
            for token_id, value in event.top_logits["first"][:5]:
                assert float(logits[token_id]) == pytest.approx(value, abs=2e-3)
            written += event.token_ids[:-1]
    assert written == session.cache.token_ids


def test_another_error_is_no_want_of_memory(model: Any, byte_format: ChatML) -> None:
    session = forced_session(model, byte_format, a_phase(), [[LOOK, DONE]])
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with full_memory(model, error, 1), pytest.raises(RuntimeError, match="mat1"):
        run_session(session)


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("level", ["e1", "e2"])
def test_an_audit_without_memory_is_skipped_with_the_reason(
    model: Any, byte_format: ChatML, name: str, level: str
) -> None:
    phase = a_phase(experiments=EXPERIMENTS[:1], audit=NO_AUDIT | {level: "end"})
    session = forced_session(model, byte_format, phase, [[LOOK, LOOK, DONE]])
    passes = len(passes_of(model, byte_format))
    with full_memory(model, ERRORS[name], passes + 1):
        stream, status = run_session(session)
    audits = [event for event in stream if isinstance(event, Audit)]
    assert status == "complete"
    assert [(audit.level, audit.codes) for audit in audits] == [(level, ())]
    assert "more memory than there is" in str(audits[0].skipped)
