"""The record of a run on disk: what is written is what is read, and no damage goes unnoticed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.amounts import examples
from support.record_examples import (
    CALL,
    PROSE,
    conversation,
    generation,
    prune,
    run_start,
    ticking_clock,
    written,
)

from introspect import events as ev
from introspect.errors import ConfigError, IntrospectError, RecordError
from introspect.runlog.codec import canonical, sealed, to_plain_record, typed_event
from introspect.runlog.latest_link import link_latest
from introspect.runlog.plain_values import MAX_DEPTH, recordable
from introspect.runlog.reader import read_events
from introspect.runlog.sources import find_source, is_event_log
from introspect.runlog.writer import RunWriter
from introspect.tools.plain_data import plain

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=60)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)


ALIASES = ("Status", "RunStatus", "FinishReason", "MessageKind", "AuditLevel")
"""Fields of these types have a test of their own."""


def lines_of(run: Path) -> list[bytes]:
    return (run / "events.jsonl").read_bytes().splitlines(keepends=True)


def test_a_run_has_its_name_its_manifest_and_a_first_record(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, run_start(), {"seed": 7}, ticking_clock()) as writer:
        run = writer.directory
        assert re.fullmatch(r"20251110T204745Z-phase1a-[0-9a-f]{4}", run.name)
        assert json.loads((run / "manifest.json").read_text()) == {"seed": 7}
        first = json.loads(lines_of(run)[0])
        assert (first["event"], first["seq"], first["prev"]) == ("run_start", 0, "")
        assert re.fullmatch(r"2025-11-10T20:47:45\.\d{3}Z", first["time"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [run.name]


def test_two_runs_of_the_same_second_do_not_meet(tmp_path: Path) -> None:
    runs = {written(tmp_path, []) for _ in range(20)}
    assert len(runs) == 20


def test_the_chain_is_what_the_contract_says_it_is(tmp_path: Path) -> None:
    prev = ""
    for number, line in enumerate(lines_of(written(tmp_path, conversation(PROSE + CALL)))):
        record = json.loads(line)
        stated = record.pop("checksum")
        text = json.dumps(record, sort_keys=True, separators=(",", ":"))
        assert stated == hashlib.sha256(text.encode()).hexdigest()[:32]
        assert (record["prev"], record["seq"]) == (prev, number)
        prev = stated


def test_token_events_are_never_written(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, run_start(), {}) as writer:
        assert writer.write(ev.Token(experiment=0, turn=1, text="a", sampled=1, cached_tokens=612)) is None
        assert len(lines_of(writer.directory)) == 1


@settings(
    max_examples=examples(30), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=ANY_TEXT, result=JSON_VALUES, reasoning=ANY_TEXT)
def test_events_come_back_as_they_were(tmp_path: Path, text: str, result: Any, reasoning: str) -> None:
    events = [
        generation(text),
        ev.ToolCall(experiment=0, turn=1, function="f", arguments={"a": result}, reasoning=reasoning),
        ev.ToolResult(experiment=0, turn=1, function="f", ok=True, result=result, text=text, seconds=0.25),
        prune(),
        ev.RunEnd(status="complete", summary={}),
    ]
    run = written(tmp_path, events)
    log = read_events(run / "events.jsonl")
    assert log.findings == ()
    assert [read.event for read in log.events][1:] == events
    assert all(len(line.decode("ascii").splitlines()) == 1 for line in lines_of(run))


def test_numbers_that_json_has_no_word_for_come_back(tmp_path: Path) -> None:
    events = [
        generation("x", logprobs=(math.nan, -math.inf, math.inf)),
        ev.RunEnd(status="failed", summary={"kl": math.nan}),
    ]
    log = read_events(written(tmp_path, events) / "events.jsonl")
    assert log.findings == ()
    logprobs = log.events[1].event.logprobs  # type: ignore[union-attr]
    assert math.isnan(logprobs[0]) and logprobs[1:] == (-math.inf, math.inf)
    assert log.events[2].event.summary == {"kl": "NaN"}  # type: ignore[union-attr]


def resealed(run: Path, number: int, **changes: Any) -> Path:
    """A record with other values in one event and checksums that fit, as another program may write it."""
    prev, lines = "", []
    for place, line in enumerate(lines_of(run)):
        record = json.loads(line) | (changes if place == number else {})
        lines.append(canonical(record := sealed(record, place, record["time"], prev)))
        prev = record["checksum"]
    (run / "events.jsonl").write_text("".join(line + "\n" for line in lines))
    return run / "events.jsonl"


@pytest.mark.parametrize("foreign", ["paused", "", "\x1b[31mred\n", 7, None, ["stop"], {}, True])
@pytest.mark.parametrize(
    ("number", "field", "known"),
    [
        (1, "finish_reason", "stop, length, non-finite"),
        (2, "kind", "task, memory_note, feedback, last_reply"),
        (3, "level", "e0, e1, e2"),
        (4, "status", "complete, limited, failed, corrupt"),
        (5, "status", "complete, limited, failed, corrupt, interrupted"),
    ],
)
def test_a_value_outside_a_closed_set_is_one_finding(
    tmp_path: Path, number: int, field: str, known: str, foreign: Any
) -> None:
    events: list[ev.Event] = [
        generation("x"),
        ev.UserMessage(experiment=0, turn=1, kind="feedback", text="x"),
        ev.Audit(experiment=0, turn=1, level="e1", codes=(), detail="x"),
        ev.ExperimentEnd(experiment=0, name="one", status="limited", reason="x", turns=1, tool_calls=0),
        ev.RunEnd(status="limited", summary={}),
    ]
    run = written(tmp_path, events)
    assert read_events(resealed(run, 0)).findings == ()
    log = read_events(resealed(run, number, **{field: foreign}))
    [finding] = [found for found in log.findings if found.code == "record-damaged"]
    assert (finding.line, finding.message) == (number + 1, f"'{field}' is not one of {known}")
    assert log.records == 6 and len(log.events) == 5


OF_NO_TYPE = {
    "int": [True, "1", 1.5, None, [1]],
    "int | None": [True, "1", 1.5, [1]],
    "str": [1, None, ["x"], True],
    "str | None": [1, ["x"], {}],
    "bool": [0, 1, "true", None],
    "bool | None": [0, 1, "true"],
    "float": [True, "1", "nan", None, [0.5], 10**400],
    "tuple[int, ...]": ["1", [1.0], [True], [None], {}, None],
    "tuple[str, ...]": ["a", [1], [None], {"a": 1}, None],
    "tuple[float, ...]": ["NaN", ["x"], [True], [None], 0.5],
    "tuple[JSON, ...]": [[1], [[]], {}, None],
    "JSON": [None, [], "x", 1],
    "JSON | None": [[], "x", 1],
    "dict[str, list[tuple[int, float]]]": [[], {"a": [[1]]}, {"a": [[1.5, 1.5]]}, {"a": [1, 2]}, {"a": None}],
}
"""Values that no field of a type has, by how the type is spelt in the source."""


@pytest.mark.parametrize(
    "event", [run_start(), *conversation("a", prune_before=0)], ids=lambda event: event.event
)
def test_a_value_of_another_type_is_a_finding_that_names_its_field(tmp_path: Path, event: ev.Event) -> None:
    record = json.loads(canonical(to_plain_record(event)))
    for field in dataclasses.fields(event):
        spelt = field.type if isinstance(field.type, str) else ""
        for wrong in OF_NO_TYPE.get(spelt, [] if spelt in ("Any", *ALIASES) else [Ellipsis]):
            with pytest.raises(ValueError, match=f"^'{field.name}' is not "):
                typed_event(record | {field.name: wrong})
        if field.default is field.default_factory is dataclasses.MISSING:
            with pytest.raises(ValueError, match=f"^a {event.event} without '{field.name}'$"):
                typed_event({key: value for key, value in record.items() if key != field.name})


def test_a_record_without_the_newer_fields_is_read(tmp_path: Path) -> None:
    """As programs wrote it before a field was added: the field has its default, and nothing is damaged."""
    newer = {
        "run_start": {"forced_retokenised", "notes_before", "requirement"},
        "generation": {"digest_seconds"},
        "prune": {"shortened_texts"},
        "tool_result": {"record"},
    }
    run = written(tmp_path, conversation(PROSE + CALL, PROSE, prune_before=1), schema=1)
    before, prev, lines = read_events(run / "events.jsonl"), "", []
    for place, line in enumerate(lines_of(run)):
        record = json.loads(line)
        older = {key: record[key] for key in record.keys() - newer.get(record["event"], set())}
        lines.append(canonical(older := sealed(older, place, record["time"], prev)))
        prev = older["checksum"]
    (run / "events.jsonl").write_text("".join(line + "\n" for line in lines))
    after = read_events(run / "events.jsonl")
    assert after.findings == ()
    assert [read.event for read in after.events] == [read.event for read in before.events]


def test_nesting_without_end_is_recorded_cut(tmp_path: Path) -> None:
    deep: Any = {}
    for _ in range(5000):
        deep = {"a": deep}
    log = read_events(
        written(tmp_path, [ev.ToolCall(experiment=0, turn=1, function="f", arguments=deep, reasoning="")])
        / "events.jsonl"
    )
    assert [finding.code for finding in log.findings] == ["record-open"]
    depth, value = 0, log.events[1].event.arguments  # type: ignore[union-attr]
    while isinstance(value, dict):
        depth, value = depth + 1, value["a"]
    assert depth == MAX_DEPTH and isinstance(value, str)


@settings(
    max_examples=examples(50), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_every_change_of_a_byte_is_noticed_and_none_is_a_crash(tmp_path: Path, data: st.DataObject) -> None:
    run = written(tmp_path, [generation("some text"), prune(), ev.RunEnd(status="complete", summary={})])
    path = run / "events.jsonl"
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 2))
    content[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[place]))
    path.write_bytes(bytes(content))
    try:
        findings = read_events(path).findings
    except RecordError:
        return
    assert any(finding.severity == "corrupt" for finding in findings), bytes(content[place - 20 : place + 20])


@pytest.mark.parametrize("removed", [1, 2, 3])
def test_a_removed_line_is_noticed_where_the_next_one_stands(tmp_path: Path, removed: int) -> None:
    run = written(
        tmp_path,
        [generation("a"), generation("b"), generation("c"), ev.RunEnd(status="complete", summary={})],
    )
    lines = lines_of(run)
    (run / "events.jsonl").write_bytes(b"".join(lines[:removed] + lines[removed + 1 :]))
    assert [(f.code, f.line) for f in read_events(run / "events.jsonl").findings] == [
        ("record-damaged", removed + 1)
    ]


def test_a_torn_last_line_is_a_note_wherever_it_is_torn(tmp_path: Path) -> None:
    run = written(tmp_path, [generation("a"), generation("b")])
    lines = lines_of(run)
    for kept in range(1, len(lines[-1]) - 1, 37):
        (run / "events.jsonl").write_bytes(b"".join(lines[:-1]) + lines[-1][:kept])
        log = read_events(run / "events.jsonl")
        assert [(f.code, f.severity) for f in log.findings] == [
            ("record-torn", "note"),
            ("record-open", "note"),
        ]
        assert log.records == 2


HOSTILE_LINES = [
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"event": ' + b"[" * 100_000,
    b'{"event": 5}',
    b'{"event": "generation"}',
    b'{"event": ["generation"]}',
    b'{"event": "run_start", "utc_offset": 1e999}',
    b'{"event": "prune", "kept_turns": "two", "seq": -1}',
    b'{"n": ' + b"9" * 10_000 + b"}",
    b"null",
    b"",
    b"\x00" * 1000,
    b'{"event": "generation", "token_ids": {"a": 1}, "checksum": 5, "prev": [], "time": {}}',
]


@pytest.mark.parametrize("hostile", HOSTILE_LINES, ids=range(len(HOSTILE_LINES)))
def test_a_hostile_line_is_a_finding_and_the_rest_is_read(tmp_path: Path, hostile: bytes) -> None:
    run = written(tmp_path, [generation("a"), ev.RunEnd(status="complete", summary={})])
    lines = lines_of(run)
    (run / "events.jsonl").write_bytes(lines[0] + hostile + b"\n" + b"".join(lines[1:]))
    log = read_events(run / "events.jsonl")
    assert {finding.code for finding in log.findings} == {"record-damaged"}
    assert log.findings[0].line == 2
    assert len(log.events) == 3
    (run / "alone.jsonl").write_bytes(hostile)
    with pytest.raises(RecordError) as raised:
        read_events(run / "alone.jsonl")
    assert "\n" not in str(raised.value)


def test_an_event_of_a_newer_version_is_counted_and_passed_over(tmp_path: Path) -> None:
    run = written(tmp_path, [generation("a")])
    *_, last = [json.loads(line) for line in lines_of(run)]
    record = {"event": "novelty", "seq": 2, "time": last["time"], "prev": last["checksum"]}
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    record["checksum"] = hashlib.sha256(text.encode()).hexdigest()[:32]
    with (run / "events.jsonl").open("a") as stream:
        stream.write(json.dumps(record) + "\n")
    log = read_events(run / "events.jsonl")
    assert (log.records, len(log.events)) == (3, 2)
    assert [finding.severity for finding in log.findings] == ["note"]


def test_going_on_after_a_crash_gives_an_unbroken_record(tmp_path: Path) -> None:
    run = written(tmp_path, [generation("a")])
    whole = (run / "phase1a.log").read_bytes()
    with (run / "events.jsonl").open("ab") as stream:
        stream.write(b'{"event":"gener')
    (run / "phase1a.log").write_bytes(whole[: len(whole) // 2])
    with RunWriter.reopen(run, "phase1a", ticking_clock()) as writer:
        assert (run / "phase1a.log").read_bytes() == whole
        writer.write(generation("b"))
        writer.write(ev.RunEnd(status="complete", summary={}))
    log = read_events(run / "events.jsonl")
    assert log.findings == ()
    assert [read.seq for read in log.events] == [0, 1, 2, 3]


def test_a_damaged_run_is_not_continued(tmp_path: Path) -> None:
    run = written(tmp_path, [generation("a")])
    lines = lines_of(run)
    (run / "events.jsonl").write_bytes(lines[0] + lines[1].replace(b'"turn":1', b'"turn":2'))
    before = (run / "events.jsonl").read_bytes()
    with pytest.raises(RecordError, match="damaged at line 2"):
        RunWriter.reopen(run, "phase1a")
    assert (run / "events.jsonl").read_bytes() == before


def test_a_place_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ConfigError) as raised:
        RunWriter.create(blocked / "runs", run_start(), {})
    assert "\n" not in str(raised.value) and "--output" in str(raised.value)
    assert list(tmp_path.iterdir()) == [blocked]


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        RunWriter.create(tmp_path, run_start(), {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_place_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(ConfigError, match="Permission denied"):
        RunWriter.create(tmp_path, run_start(), {})


def test_the_link_leads_to_the_newest_log_and_spares_real_files(tmp_path: Path) -> None:
    output = Path("data/runs")
    for _ in range(2):
        with RunWriter.create(tmp_path / output, run_start(), {}) as writer:
            link = link_latest(writer, output, root=tmp_path)
            assert link == tmp_path / "data/logs/phase1a.log"
            assert not os.path.isabs(os.readlink(link))
            assert link.resolve() == (writer.directory / "phase1a.log").resolve()
    assert link_latest(writer, tmp_path / "elsewhere", root=tmp_path) is None
    link.unlink()
    link.write_text("the seed's own log")
    assert link_latest(writer, output, root=tmp_path) is None
    assert link.read_text() == "the seed's own log"


def make_run(output: Path, name: str, modified: int) -> Path:
    run = output / name
    run.mkdir(parents=True)
    (run / "events.jsonl").write_text("{}\n")
    os.utime(run, (modified, modified))
    return run


def test_sources_are_found_by_what_they_are_called(tmp_path: Path) -> None:
    old = make_run(tmp_path, "20250101T000000Z-phase1a-0001", modified=900)
    new = make_run(tmp_path, "20250102T000000Z-phase1a-0001", modified=100)
    make_run(tmp_path, "20250103T000000Z-phase1b-0002", modified=10)
    other = make_run(tmp_path, "20250103T000000Z-phase1b-0001", modified=20)
    (tmp_path / ".20250109T000000Z-phase1a-0001.77").mkdir()
    (tmp_path / "20250110T000000Z-phase1a-0001").mkdir()
    for source, run in [
        ("phase1a", new),
        ("latest", other),
        ("log", other),
        ("phase1b", other),
        (str(old), old),
    ]:
        assert find_source(source, tmp_path) == run / "events.jsonl"
    assert find_source(str(old / "events.jsonl"), tmp_path) == old / "events.jsonl"


def test_runs_are_found_by_their_id_and_by_parts_of_their_names(tmp_path: Path) -> None:
    first = make_run(tmp_path, "20250101T000000Z-phase1a-2025", modified=1)
    second = make_run(tmp_path, "20250102T000000Z-phase1a-0a1b", modified=2)
    third = make_run(tmp_path, "20250103T120000Z-phase1b-0a1c", modified=3)
    for source, run in [
        (second.name, second),
        ("0a1b", second),
        ("a1b", second),
        ("0103T12", third),
        ("phase1b-0", third),
        ("2025", first),  # an id before a part: all three names have it
    ]:
        assert find_source(source, tmp_path) == run / "events.jsonl"


def test_a_part_that_names_several_runs_lists_them(tmp_path: Path) -> None:
    names = [f"2025010{day}T000000Z-phase1a-00{day}f" for day in range(1, 10)]
    for name in names:
        make_run(tmp_path, name, modified=1)
    make_run(tmp_path, "20250101T000000Z-phase1b-001f", modified=1)
    with pytest.raises(RecordError) as raised:
        find_source("001f", tmp_path)
    assert names[0] in str(raised.value) and "20250101T000000Z-phase1b-001f" in str(raised.value)
    with pytest.raises(RecordError, match=r"names 9 runs.* and 3 more; give a longer part"):
        find_source("phase1a-", tmp_path)


def test_a_path_comes_before_every_other_meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "runs", "20250101T000000Z-phase1a-00ff", modified=1)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for name in ("latest", "phase1a", "00ff"):
        assert find_source(name, tmp_path / "runs") == run / "events.jsonl"
        (here / name).write_text("a log")
        assert find_source(name, tmp_path / "runs") == Path(name)
    # A directory without a record is none of a run, and takes no other meaning away.
    (here / "latest").unlink()
    (here / "latest").mkdir()
    assert find_source("latest", tmp_path / "runs") == run / "events.jsonl"
    (here / "empty").mkdir()
    with pytest.raises(RecordError, match=r"no events\.jsonl"):
        find_source("empty", tmp_path / "runs")


@pytest.mark.parametrize("source", ["phase1x", "", "no/such/file", "a\x00b", "x" * 5000, "\x1b[31mred\n"])
def test_a_source_that_is_not_there_is_one_line(tmp_path: Path, source: str) -> None:
    make_run(tmp_path, "20250101T000000Z-phase1a-0001", modified=1)
    with pytest.raises(IntrospectError) as raised:
        path = find_source(source, tmp_path)
        read_events(path)
    assert str(raised.value).isprintable()


def test_no_runs_and_empty_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no runs yet"):
        find_source("latest", tmp_path / "nothing")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(RecordError, match="empty"):
        is_event_log(tmp_path / "empty")


@given(value=JSON_VALUES, depth=st.integers(0, MAX_DEPTH + 2))
def test_what_a_tool_may_return_is_recorded_whole(value: Any, depth: int) -> None:
    """One rule for depth and for numbers that JSON has no word for, at the tools' door and in the record."""
    for _ in range(depth):
        value = [value, math.inf]
    try:
        returned = plain(value)
    except ValueError:
        assert depth > MAX_DEPTH - 10
        return
    assert recordable(returned) == returned
    assert json.dumps(returned, allow_nan=False)
