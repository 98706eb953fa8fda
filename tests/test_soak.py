"""A run takes no more of anything the longer it lasts; `scripts/soak.py` takes hundreds of turns."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from soak import CALLS, prepared_run, tensor_bytes
from torch._subclasses.fake_tensor import FakeTensorMode

from introspect.events import Audit, Event, Generation
from introspect.execution.opening import open_run
from introspect.transcript import Message, Transcript

PERIOD = len(CALLS)
"""Turns after which a run does the same again: what it calls, and when it prunes."""
PERIODS = 4
MOST_GROWTH = 48 << 10
"""Bytes of Python's own objects in a period, in which caches of a bounded size still fill."""


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_a_long_run_takes_no_more_than_a_short_one(model_dir: Path, tmp_path: Path) -> None:
    prepared = prepared_run(PERIODS * PERIOD, str(model_dir), tmp_path, "auto", e1="every_prune")
    run = open_run(prepared, lambda: False)
    taken: list[dict[str, int]] = []
    sound = dict.fromkeys(("e0", "e1", "e2"), 0)

    def watch(event: Event) -> None:
        if isinstance(event, Audit):
            sound[event.level] += not event.codes and event.skipped is None
        if not isinstance(event, Generation) or event.turn % PERIOD:
            return
        if event.turn == PERIOD:
            tracemalloc.start()
        gc.collect()
        taken.append(
            {
                "bytes": tracemalloc.get_traced_memory()[0],
                "tensors": tensor_bytes(),
                "files": len(list(Path("/proc/self/fd").iterdir())),
                "threads": threading.active_count(),
                "messages": len(run.session.transcript.messages),
            }
        )

    try:
        summary = run.execute(watch)
    finally:
        tracemalloc.stop()
    assert summary["turns"] == sound["e0"] == PERIODS * PERIOD
    assert sound["e1"] > summary["prunes"] > PERIOD // 2
    assert summary["audits"]["failed"] == summary["audits"]["skipped"] == 0
    # What a run keeps grows in every period; what tests before this one left behind in the process does not.
    for name, most in (("tensors", 1), ("files", 1), ("threads", 1), ("messages", 1), ("bytes", MOST_GROWTH)):
        growth = [after[name] - before[name] for before, after in pairwise(taken[1:])]
        assert min(growth) < most, (name, growth)


def test_tensors_without_memory_count_nothing() -> None:
    """What a compiler leaves behind in a process, where a run is measured after it."""
    gc.collect()
    counted, before = torch.ones(1000), tensor_bytes()
    with FakeTensorMode():
        traced, refusing = torch.ones(1000), torch.ones(1000)
    torch._C._set_throw_on_mutable_data_ptr(refusing)
    functional = torch._to_functional_tensor(counted)
    empty = torch.ones(1000, device="meta")
    assert tensor_bytes() == before
    del counted, traced, refusing, functional, empty
    assert tensor_bytes() == before - 4000


turns = st.lists(st.tuples(st.sampled_from(["look", "note", None]), st.integers(0, 3)), max_size=12)


@given(turns, st.data())
def test_what_is_dropped_is_counted_and_gone(turns: list[tuple[Any, int]], data: st.DataObject) -> None:
    """The window is that of the messages which stay, as they were; of the others the calls are counted."""
    transcript = Transcript().append("task", "Go.")
    every: list[Message] = list(transcript.messages)
    for function, answers in turns:
        transcript = transcript.append("reply", "I look.", reply_ids=(1, 2), function=function)
        every.append(transcript.messages[-1])
        for _ in range(answers):
            transcript = transcript.append("tool_result", "TOOL_RESULTS: {}", function=function)
            every.append(transcript.messages[-1])
        going = data.draw(st.sets(st.sampled_from([m.number for m in transcript.messages[1:]])))
        transcript = transcript.drop(going)
    staying = {message.number for message in transcript.window()}
    assert transcript.window() == [message for message in every if message.number in staying]
    assert [message.number for message in every] == list(range(transcript.count))
    gone = [m.function or "no call" for m in every if m.kind == "reply" and m.number not in staying]
    assert dict(transcript.dropped_calls) == {name: gone.count(name) for name in gone}
