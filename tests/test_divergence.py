"""Where two runs part: the first event and the first token that differ, and nothing before them."""

from __future__ import annotations

import io
import json
import math
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from support.in_process import introspect_here
from support.record_examples import conversation, generation, prune, run_start, written
from support.sessions import opened_run, phase_for

from introspect import events as ev
from introspect.commands.diff import show_divergence
from introspect.errors import RecordError
from introspect.readers.divergence import Divergence, diverged, divergence, same
from introspect.readers.parting import differing_fields, parting
from introspect.report.divergence_page import divergence_page
from introspect.runlog.reader import EventLog, ReadEvent, read_events

ACTING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
RUN = [run_start(), *conversation("One reply.", "Another.", "A third.", prune_before=1)]


def log_of(events: list[ev.Event], begin: int = 1) -> EventLog:
    read = [
        ReadEvent(line=line, seq=line, time="2025-11-10T20:47:00.000Z", checksum=str(line), session=1,
                  utc_offset=0, event=event)
        for line, event in enumerate(events, begin)
    ]  # fmt: skip
    return EventLog(len(read), tuple(read), (), 0)


def compared(left: list[ev.Event], right: list[ev.Event]) -> Divergence:
    return divergence("left", log_of(left), "right", log_of(right, 100))


def changed(event: ev.Event) -> list[tuple[str, ev.Event]]:
    """The event with one field another, for each field that says what a run did."""
    other: dict[type, Any] = {
        int: lambda v: v + 1, str: lambda v: v + "x", bool: lambda v: not v, tuple: lambda v: (*v, "1"),
        dict: lambda v: {**v, "new": 1}, type(None): lambda v: "x",
    }  # fmt: skip
    silent = {"seconds", "digest_seconds", "time"}
    if isinstance(event, ev.RunStart):
        silent |= set(vars(event)) - {"system_prompt", "system_tokens", "notes_before", "tool_framing"}
    if isinstance(event, ev.RunEnd):
        silent |= {"summary"}
    if isinstance(event, ev.Audit):
        # Which checks were made, and how long that took, is of the day; what they found is of the run.
        silent |= {"detail", "figures", "skipped", "experiment", "turn", "level"}
    fields = [name for name in vars(event) if name not in silent]
    return [
        (name, replace(event, **{name: other[type(getattr(event, name))](getattr(event, name))}))
        for name in fields
    ]


@pytest.mark.parametrize("index", range(len(RUN)))
def test_every_field_of_every_event_is_found_where_it_differs(index: int) -> None:
    for name, event in changed(RUN[index]):
        found = compared(RUN, [*RUN[:index], event, *RUN[index + 1 :]])
        assert found.event is not None and not found.equal
        assert (found.event.index, found.event.fields) == (index, (name,))
        assert found.event.left is not None and found.event.left.line == index + 1
        assert found.event.right is not None and found.event.right.line == index + 100
        assert (found.token is None) == (not isinstance(event, ev.Generation) or name != "token_ids")
        if name not in ("experiment", "turn"):
            later = [
                *RUN[:index],
                event,
                *[replace(e, turn=99) if hasattr(e, "turn") else e for e in RUN[index + 1 :]],
            ]
            again = compared(RUN, later).event
            assert again is not None and (again.index, again.fields) == (index, (name,))


def audit(level: str = "e1", turn: int = 2, **fields: Any) -> ev.Audit:
    return ev.Audit(**{"experiment": 0, "turn": turn, "level": level, "codes": (), "detail": ""} | fields)


def with_audits(*audits: ev.Audit) -> list[ev.Event]:
    """The run, each audit behind the last event of its turn."""
    stream = list(RUN)
    for each in audits:
        stream.insert(max(i for i, e in enumerate(stream) if getattr(e, "turn", 0) == each.turn) + 1, each)
    return stream


sound_audits = st.lists(
    st.builds(audit, st.sampled_from(["e0", "e1", "e2"]), st.integers(1, 3), skipped=st.none() | st.text()),
    max_size=4,
)


@given(left=sound_audits, right=sound_audits)
def test_which_sound_audits_were_made_or_skipped_is_no_difference(
    left: list[ev.Audit], right: list[ev.Audit]
) -> None:
    assert compared(with_audits(*left), with_audits(*right)).equal
    assert compared(with_audits(*left), RUN).equal


@given(left=sound_audits, right=sound_audits, turn=st.integers(1, 3), level=st.sampled_from(["e1", "e2"]))
def test_what_an_audit_found_is_a_difference_beside_any_other(
    left: list[ev.Audit], right: list[ev.Audit], turn: int, level: str
) -> None:
    damaged = with_audits(*right, bad := audit(level, turn, codes=("prefix-mutated",)))
    for one, other in ((with_audits(*left), damaged), (damaged, with_audits(*left))):
        found = compared(one, other)
        assert not found.equal and found.event is not None
        assert bad in [read.event for read in (found.event.left, found.event.right) if read is not None]
    assert compared(damaged, damaged).equal


def test_an_audit_that_found_something_stands_beside_the_one_that_was_skipped() -> None:
    skipped = with_audits(audit(skipped="it would take 9.0 s"))
    found = compared(skipped, with_audits(audit(codes=("prefix-mutated",)))).event
    assert found is not None and found.fields == ("codes",)


def test_times_and_what_a_run_was_given_are_no_difference() -> None:
    slower = [replace(event, seconds=9.9) if hasattr(event, "seconds") else event for event in RUN]
    slower[0] = run_start(seed=7, environment={"threads": 4}, settings={"a": {"b": [1]}}, utc_offset=0)
    slower[-1] = ev.RunEnd(status="complete", summary={"seconds": 99, "run": "elsewhere"})
    found = compared(RUN, slower)
    assert found.equal and found.token is None
    assert found.given == {
        "seed": ("0", "7"),
        "environment.threads": (None, "4"),
        "a.b": (None, "[1]"),
    }
    assert found.events_compared == len(RUN) and found.tokens_compared == 9


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.sampled_from([0.0, 1.0, math.nan, math.inf])
    | st.just("a"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=6,
)


@given(left=values, right=values)
def test_values_are_the_same_where_their_json_is(left: Any, right: Any) -> None:
    spelled = [json.dumps(value, sort_keys=True) for value in (left, right)]
    assert same(left, right) == (spelled[0] == spelled[1]) and same(left, json.loads(spelled[0]))


def test_values_of_any_depth_are_compared() -> None:
    deep, other = 1, 2
    for _ in range(5000):
        deep, other = {"a": [deep]}, {"a": [other]}
    assert same(deep, deep) and not same(deep, other)
    run = [run_start(), ev.ToolCall(experiment=0, turn=1, function="f", arguments=deep, reasoning="")]
    found = compared(run, [run[0], replace(run[1], arguments=other)])
    assert found.event is not None and differing_fields(found.event)[0].left == "(cannot be shown)"


def test_a_document_is_its_contents_wherever_it_lay() -> None:
    row = {"id": "d", "title": "D", "summary": "s", "file": "/a/d.md", "text": "One.", "sha256": "00"}
    here, there, other = (
        [run_start(documents=(row | changes,)), *RUN[1:]]
        for changes in ({}, {"file": "/b/d.md"}, {"text": "Two.", "sha256": "01"})
    )
    assert compared(here, there).equal
    found = compared(here, other).event
    assert found is not None and (found.index, found.fields) == (0, ("documents",))


@pytest.mark.parametrize("kept", range(1, len(RUN)))
def test_a_run_that_ends_early_has_no_more(kept: int) -> None:
    left, right = compared(RUN, RUN[:kept]), compared(RUN[:kept], RUN)
    for found in (left, right):
        assert found.event is not None and found.event.index == kept == found.events_compared
        replies = [sum(isinstance(e, ev.Generation) for e in events) for events in (RUN, RUN[:kept])]
        assert (found.token is None) == (replies[0] == replies[1])
    assert left.event is not None and left.event.right is None
    assert right.event is not None and right.event.left is None


@given(
    a=st.lists(st.lists(st.integers(0, 2), max_size=4), max_size=4),
    b=st.lists(st.lists(st.integers(0, 2), max_size=4), max_size=4),
)
def test_the_first_token_is_that_of_a_search_over_all_places(a: list[list[int]], b: list[list[int]]) -> None:
    def run(replies: list[list[int]]) -> list[ev.Event]:
        made = [generation("", turn, token_ids=tuple(ids)) for turn, ids in enumerate(replies, 1)]
        return [run_start(), *made]

    places = [(r, p) for r in range(5) for p in range(5)]

    def at(replies: list[list[int]], place: tuple[int, int]) -> int | None:
        reply, position = place
        return replies[reply][position] if reply < len(replies) and position < len(replies[reply]) else None

    first = next((place for place in places if at(a, place) != at(b, place)), None)
    token = compared(run(a), run(b)).token
    assert (token and (token.reply, token.position)) == first
    assert token is None or (token.left, token.right) == (at(a, first), at(b, first))


def test_a_run_that_was_taken_up_again_is_compared_as_the_one_that_it_is() -> None:
    broken = [*RUN[:6], ev.Error(message="killed"), ev.RunEnd(status="interrupted", summary={}), *RUN[6:]]
    assert compared(RUN, broken).equal
    stopped = [*RUN[:6], ev.RunEnd(status="interrupted", summary={})]
    found = compared(RUN, stopped).event
    assert found is not None and found.index == 6
    failed = [*RUN[:-1], ev.Error(message="disk"), ev.RunEnd(status="failed", summary={})]
    found = compared(RUN, failed).event
    assert found is not None and found.index == len(RUN) - 1 and found.right is not None
    assert isinstance(found.right.event, ev.Error)


@given(left=st.text(max_size=80), right=st.text(max_size=80))
def test_texts_are_shown_from_before_they_part(left: str, right: str) -> None:
    a, b = parting(left, right)
    assert left.endswith(a.removeprefix("…")) or left.startswith("…")
    assert right.endswith(b.removeprefix("…")) or right.startswith("…")
    if left != right:
        assert a != b


def test_two_runs_of_one_seed_are_equal_and_of_two_seeds_are_not(model_dir: Path, tmp_path: Path) -> None:
    places = []
    for seed in (1, 1, 2):
        phase = phase_for(model_dir, generation={"seed": seed, "max_new_tokens": 12})
        run = opened_run(phase, tmp_path)
        run.execute(lambda event: None)
        places.append(str(run.writer.directory))
    same = diverged(places[0], places[1], tmp_path)
    assert same.equal and same.tokens_compared > 12 and same.given == {}
    other = diverged(places[0], places[2], tmp_path)
    assert other.token is not None and other.event is not None
    ids = [
        [read.event.token_ids for read in read_events(Path(place) / "events.jsonl").events
         if isinstance(read.event, ev.Generation)]
        for place in (places[0], places[2])
    ]  # fmt: skip
    token = other.token
    assert ids[0][: token.reply] == ids[1][: token.reply]
    assert ids[0][token.reply][: token.position] == ids[1][token.reply][: token.position]
    assert ids[0][token.reply][token.position] == token.left != token.right
    assert set(other.given) == {"seed", "generation.seed"}


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (
        written(tmp_path, conversation("One.", "Two.")),
        written(tmp_path, conversation("One.", "Two.")),
    )
    three = written(tmp_path, conversation("One.", "Three.", prune_before=1))
    done = introspect_here(capsys, "diff", str(one), str(two), "--json")
    found = json.loads(done.out)
    assert done.code == 0 and done.err == "" and done.out.count("\n") == 1
    assert (found["equal"], found["first_event"], found["first_token"]) == (True, None, None)
    done = introspect_here(capsys, "diff", str(one), str(three), "--json", "--html", str(tmp_path / "d.html"))
    found = json.loads(done.out)
    assert done.code == 3 and found["equal"] is False and found["first_token"] is None
    assert (
        found["first_event"]["left"]["event"] == "prefill"
        and found["first_event"]["right"]["event"] == "prune"
    )
    assert "Where two runs part" in (tmp_path / "d.html").read_text()
    done = introspect_here(capsys, "diff", str(one), str(three))
    assert done.code == 3 and "prune" in done.out and "prefill" in done.out
    assert introspect_here(capsys, "diff", str(one), "nothing", "--output", str(tmp_path)).code == 2
    log = next(one.glob("*.log"))
    with pytest.raises(RecordError, match="no event log"):
        diverged(str(one), str(log), tmp_path)


def test_long_settings_that_part_late_are_shown_from_there_and_whole_on_a_page() -> None:
    left, right = ("word " * 1000 + end for end in ("here", "there"))
    found = compared([run_start(settings={"text": left})], [run_start(settings={"text": right})])
    console = Console(file=io.StringIO(), width=80, highlight=False)
    show_divergence(found, console)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert ' here"' in shown and ' there"' in shown and shown.count("word") < 30
    html = divergence_page(found)
    assert left in html and right in html


@given(text=st.text(st.characters(), max_size=60), other=st.text(st.characters(), max_size=300))
def test_nothing_acts_on_the_display(text: str, other: str) -> None:
    left = [run_start(settings={text: other}), generation(text), prune(reasons=(text,))]
    right = [run_start(settings={other: text}), generation(other), ev.Error(message=other)]
    for pair in ((left, right), (left[:1], right), (left, [*left[:2], right[2]])):
        console = Console(file=io.StringIO(), width=80, highlight=False)
        show_divergence(divergence(text, log_of(pair[0]), other, log_of(pair[1])), console)
        assert isinstance(console.file, io.StringIO)
        shown = console.file.getvalue()
        assert not [c for c in shown if c not in "\n\u200c\u200d" and unicodedata.category(c) in ACTING]
        rows = [line for line in shown.split("\n") if not line.startswith(("left  ", "right "))]
        assert max(map(cell_len, rows)) <= 80
