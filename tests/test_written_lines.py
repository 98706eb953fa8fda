"""A line as its writer wrote it is read in one pass: with the same outcome as by the general way."""

from __future__ import annotations

import gc
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.record_examples import conversation, generation, prune, run_start

from introspect import events as ev
from introspect.runlog.codec import as_written, canonical, parse_line, sealed, to_plain_record, typed_event
from introspect.runlog.reader import LineReader, read_events

TIME = "2026-11-09T12:00:00.000Z"
EVENTS: list[ev.Event] = [
    run_start(),
    *conversation("x"),
    generation("y", logprobs=(-math.inf, math.nan)),
    prune(),
    ev.Error(message="m", traceback=None),
    ev.ToolCall(experiment=0, turn=1, function="f", arguments={"a": [1, 2.5, None]}, reasoning=""),
    ev.RunEnd(status="complete", summary={"event": "prune", "checksum": "0" * 32}),
]
TEXTS = st.text(st.characters(codec=None), max_size=20) | st.sampled_from(
    ['","checksum":"', "\ud800", "NaN", "Infinity", '"event":"prune"', "\x1b[2J", "\\", '{"event":"x"}']
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def line_of(event: ev.Event) -> bytes:
    return canonical(sealed(to_plain_record(event), 3, TIME, "0" * 32)).encode("ascii") + b"\n"


def in_general(raw: bytes) -> tuple[Any, list[str]]:
    """What the reader gives for a line when it parses it, spells it anew and compares the checksum."""
    return LineReader(line=1, prev="0" * 32)._take_any(raw)


def same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)


def test_every_kind_of_event_is_read_in_one_pass_as_in_two() -> None:
    for event in EVENTS:
        raw = line_of(event)
        if b"NaN" not in raw:
            read = as_written(raw)
            assert read is not None and same(read[0], typed_event(parse_line(raw.decode())))
        assert same(LineReader(prev="0" * 32).take(raw), in_general(raw))


@given(arguments=st.dictionaries(TEXTS, VALUES, max_size=3), text=TEXTS, result=VALUES)
def test_whatever_an_event_holds_both_ways_read_the_same(
    arguments: dict[str, Any], text: str, result: Any
) -> None:
    call = ev.ToolCall(experiment=0, turn=1, function=text, arguments=arguments, reasoning=text)
    answer = ev.ToolResult(
        experiment=0, turn=1, function=text, ok=True, result=result, text=text, seconds=math.nan
    )
    for event in (call, answer):
        raw = line_of(event)
        taken, damage = LineReader(prev="0" * 32).take(raw)
        assert not damage and same((taken, damage), in_general(raw))


@given(st.sampled_from(EVENTS), st.data())
def test_a_changed_byte_is_judged_the_same_both_ways(event: ev.Event, data: st.DataObject) -> None:
    raw = bytearray(line_of(event))
    place = data.draw(st.integers(0, len(raw) - 2))
    raw[place : place + data.draw(st.integers(0, 2))] = data.draw(
        st.sampled_from([b"", b" ", b"0", b"NaN", b"1e999", b"true", b'"', b'"a":1,', b"\xff", b"\\ud800"])
    )
    assert same(LineReader(prev="0" * 32).take(bytes(raw)), in_general(bytes(raw)))


def test_the_search_for_cycles_is_on_again_after_reading(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line_of(EVENTS[0]))
    read_events(path)
    assert gc.isenabled()


@pytest.mark.parametrize(
    "time", ["2026-02-30T12:00:00.000Z", "2026-19-01T12:00:00.000Z", "2026-01-01T29:00:00.000Z"]
)
def test_a_time_that_there_is_not_is_damage(time: str) -> None:
    raw = canonical(sealed(to_plain_record(EVENTS[-1]), 3, time, "")).encode("ascii") + b"\n"
    assert LineReader().take(raw) == (None, ["no number or time of its writer"])
