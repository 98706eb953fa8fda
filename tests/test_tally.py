"""The figures of a run as a fold over its events, against counts made here from the events' JSON."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.amounts import examples
from support.record_examples import generation, prune, run_start

from introspect import events as ev
from introspect.runlog.codec import to_plain_record
from introspect.tally import NOTHING_DONE, Tally, common_prefix

ids = st.lists(st.integers(0, 2), max_size=6).map(tuple)
experiments = st.integers(0, 2)


@st.composite
def results(draw: st.DrawFn) -> ev.ToolResult:
    note = draw(st.none() | st.integers(1, 4))
    return ev.ToolResult(
        experiment=draw(experiments),
        turn=1,
        function="f" if note is None else "record_observation",
        ok=draw(st.booleans()),
        result={} if note is None else {"saved": True, "note_id": note},
        text="",
        seconds=0.5,
    )


@st.composite
def prompts(draw: st.DrawFn) -> ev.Prefill:
    fed = draw(ids)
    start = draw(st.integers(0, 8))
    return ev.Prefill(
        experiment=0,
        turn=1,
        start=start,
        token_ids=fed,
        chunks=(len(fed),),
        seconds=draw(st.sampled_from([0.25, 1.0])),
    )


@st.composite
def audits(draw: st.DrawFn) -> ev.Audit:
    return ev.Audit(
        experiment=draw(experiments),
        turn=draw(st.integers(1, 3)),
        level=draw(st.sampled_from(["e0", "e1", "e2"])),
        codes=tuple(draw(st.lists(st.sampled_from("abc"), max_size=2))),
        detail="",
        skipped=draw(st.none() | st.just("too long")),
    )


one_event = st.one_of(
    st.builds(ev.ExperimentStart, experiment=experiments, name=st.sampled_from("xyz"), task=st.just("t")),
    prompts(),
    st.builds(
        lambda experiment, tokens: generation("r", experiment=experiment, token_ids=tokens, seconds=2.0),
        experiments,
        ids,
    ),
    results(),
    st.sampled_from([prune(), prune(dropped_messages=(), refused="nothing older")]),
    audits(),
    st.builds(
        ev.UserMessage,
        experiment=experiments,
        turn=st.just(1),
        kind=st.sampled_from(["task", "memory_note", "feedback"]),
        text=st.just(""),
    ),
    st.builds(
        ev.Warning,
        experiment=experiments,
        turn=st.just(1),
        code=st.sampled_from([NOTHING_DONE, "no-call"]),
        message=st.just(""),
    ),
    st.sampled_from(
        [
            ev.RunEnd(status="interrupted", summary={}),
            ev.RunResumed(records=1, tokens=1, changed=()),
            ev.Error(message="the program failed"),
        ]
    ),
    st.builds(
        ev.ExperimentEnd,
        experiment=experiments,
        name=st.just("x"),
        status=st.sampled_from(["complete", "failed"]),
        reason=st.just("r"),
        turns=st.just(9),
        tool_calls=st.just(9),
    ),
)


def of_kind(lines: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] == kind]


def misses_of(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # Between a claim and its answer a run can break off, and be taken up again.
    lines = [line for line in lines if line["event"] not in ("run_end", "run_resumed", "error")]
    before = [None, *lines]
    return [
        line
        for line, last in zip(lines, before, strict=False)
        if line["event"] == "user_message"
        and line["kind"] == "feedback"
        and not (last and last["event"] == "warning" and last["code"] == "nothing-done")
    ]


def shared(one: list[int], other: list[int]) -> int:
    return max(n for n in range(len(one) + 1) if one[:n] == other[:n])


def least_and_peak(lines: list[dict[str, Any]]) -> tuple[int, int]:
    held: list[int] = []
    prompt: list[int] = []
    least = peak = 0
    for line in lines:
        if line["event"] == "prefill":
            prompt = held[: line["start"]] + line["token_ids"]
            least += max(1, len(prompt) - shared(held, prompt))
            held = prompt
        elif line["event"] == "generation":
            held = prompt + line["token_ids"][:-1]
            peak = max(peak, len(held))
    return least, peak


@settings(max_examples=examples(150), deadline=None)
@given(stream=st.lists(one_event, max_size=25))
def test_figures_are_those_of_a_recount(stream: list[ev.Event]) -> None:
    tally, lines = Tally.of(stream), json.loads(json.dumps([to_plain_record(event) for event in stream]))
    replies, called = of_kind(lines, "generation"), of_kind(lines, "tool_result")
    misses, checks = misses_of(lines), of_kind(lines, "audit")
    assert tally.turns == len(replies)
    assert tally.prunes == sum(line["refused"] is None for line in of_kind(lines, "prune"))
    assert tally.generated == sum(len(line["token_ids"]) for line in replies)
    assert tally.prefilled == sum(len(line["token_ids"]) for line in of_kind(lines, "prefill"))
    ok = [line for line in called if line["ok"]]
    assert tally.tool_calls() == {
        "total": len(called) + len(misses), "ok": len(ok), "malformed": len(misses)
    }  # fmt: skip
    assert {name: row["calls"] for name, row in tally.by_tool.items()} == Counter(
        line["function"] for line in called
    )
    made = Counter(line["level"] for line in checks if line["skipped"] is None)
    failed = [line for line in checks if line["codes"]]
    assert tally.audits == {
        **{level: made[level] for level in ("e0", "e1", "e2")},
        "skipped": len(checks) - made.total(),
        "failed": len(failed),
    }
    assert [(row["experiment"], row["turn"], row["level"], row["codes"]) for row in tally.failures] == [
        (line["experiment"], line["turn"], line["level"], line["codes"]) for line in failed
    ]
    assert sorted(tally.codes) == sorted({code for line in failed for code in line["codes"]})
    saved = {line["result"]["note_id"] for line in ok if line["function"] == "record_observation"}
    assert tally.notes == len(saved)
    assert (tally.minimum, tally.cached_peak) == least_and_peak(lines)
    assert tally.decode_seconds == 2.0 * len(replies)


@settings(max_examples=examples(150), deadline=None)
@given(stream=st.lists(one_event, max_size=25))
def test_rows_are_those_of_a_recount_from_where_each_experiment_begins(stream: list[ev.Event]) -> None:
    lines = json.loads(json.dumps([to_plain_record(event) for event in stream]))
    rows = {}
    for index in range(3):
        starts = [
            place
            for place, line in enumerate(lines)
            if line["event"] == "experiment_start" and line["experiment"] == index
        ]
        if not starts:
            continue
        after = [line for line in lines[starts[0] :] if line.get("experiment") == index]
        called, ended = of_kind(after, "tool_result"), of_kind(after, "experiment_end")
        answered = [line for line in misses_of(lines[starts[0] :]) if line["experiment"] == index]
        rows[index] = {
            "name": lines[starts[0]]["name"],
            "status": ended[-1]["status"] if ended else "open",
            "turns": len(of_kind(after, "generation")),
            "tool_calls": len(called) + len(answered),
            "no_tool_used": not any(line["ok"] for line in called),
        }
    found = [
        {key: row[key] for key in row.keys() - {"notes", "reason"}} for row in Tally.of(stream).rows("open")
    ]
    assert found == [rows[index] for index in sorted(rows)]


@settings(max_examples=examples(100), deadline=None)
@given(turns=st.lists(st.tuples(ids.filter(len), ids), min_size=1, max_size=8))
def test_the_least_that_must_be_fed_is_what_no_prefix_has(turns: list[tuple[tuple[int, ...], ...]]) -> None:
    """Streams of a cache that keeps the longest common prefix; the minimum is counted from whole prompts."""
    stream: list[ev.Event] = []
    held: list[int] = []
    least = peak = 0
    for prompt, reply in turns:
        common = 0
        while common < min(len(prompt), len(held)) and prompt[common] == held[common]:
            common += 1
        least += max(1, len(prompt) - common)
        start = min(common, len(prompt) - 1)
        fed = prompt[start:]
        stream.append(
            ev.Prefill(experiment=0, turn=1, start=start, token_ids=fed, chunks=(len(fed),), seconds=0.0)
        )
        stream.append(generation("r", token_ids=reply))
        held = [*prompt, *reply[:-1]]
        peak = max(peak, len(held))
    tally = Tally.of(stream)
    assert tally.minimum == tally.prefilled == least
    assert tally.cached_peak == peak and list(tally.expected_ids) == held


@given(a=ids, b=ids)
def test_the_common_prefix_is_the_longest(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    length = common_prefix(a, b)
    assert a[:length] == b[:length]
    assert length == min(len(a), len(b)) or a[length] != b[length]


def test_a_note_counts_once_in_a_run_and_once_in_each_experiment_that_saves_it() -> None:
    """A phase that requires notes of each experiment asks what it has saved, not whether it was the first."""

    def saved(experiment: int, note: int) -> ev.ToolResult:
        return ev.ToolResult(
            experiment=experiment, turn=1, function="record_observation", ok=True,
            result={"saved": True, "note_id": note}, text="", seconds=0.1,
        )  # fmt: skip

    starts = [ev.ExperimentStart(experiment=index, name=str(index), task="t") for index in (0, 1)]
    stream = [starts[0], saved(0, 1), saved(0, 1), starts[1], saved(1, 1), saved(1, 2), saved(1, 2)]
    tally = Tally.of(stream)
    assert tally.notes == 2 and [row["notes"] for row in tally.rows("open")] == [1, 2]


@pytest.mark.parametrize(("schema", "seconds"), [(1, 2.25), (2, 2.0)])
def test_the_rate_is_that_of_decoding_in_every_schema(schema: int, seconds: float) -> None:
    """In records of schema 1 the seconds of a reply span its prefill also."""
    prefill = ev.Prefill(experiment=0, turn=1, start=0, token_ids=(1,), chunks=(1,), seconds=0.25)
    tally = Tally.of([run_start(schema=schema), prefill, generation("r", tokens=41, seconds=seconds)] * 2)
    assert tally.tokens_per_second == pytest.approx(20.0)
    assert Tally.of([generation("r", tokens=1)]).tokens_per_second is None


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 0.0, 5e-324, -1.0])
def test_no_time_in_a_record_makes_a_rate_that_is_no_number(seconds: float) -> None:
    rate = Tally.of([run_start(schema=1), generation("r", seconds=seconds)]).tokens_per_second
    assert rate is None or rate == 0.0
