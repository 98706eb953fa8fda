"""The report of a run: what it shows is in the record, and nothing in a record acts on the page."""

from __future__ import annotations

import base64
import errno
import hashlib
import itertools
import json
import os
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.html_pages import Page
from support.in_process import introspect_here
from support.record_examples import GARBLED, GOOD, conversation, generation, prune, written
from support.report_records import HOSTILE, LENS, attention_record, result

from introspect import events as ev
from introspect.errors import ConfigError, RecordError
from introspect.library.recorded_run import read_run
from introspect.readers.comparison import measured_run
from introspect.readers.divergence import diverged
from introspect.readers.replay import load
from introspect.readers.run_list import run_row
from introspect.report.comparison_page import comparison_page
from introspect.report.divergence_page import divergence_page
from introspect.report.pictures import LEVELS, PICTURE_BYTES, AttentionMap, LensTable, picture_of
from introspect.report.run_page import report_of
from introspect.report.text import cut, plain, pretty, shown
from introspect.report.timeline import TOKENS_HEIGHT, UNIT, timeline
from introspect.report.turns import experiments_of
from introspect.runlog.reader import read_events

ACTING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
foreign = st.text(st.characters(), max_size=40) | st.sampled_from(HOSTILE)
plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | foreign,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(foreign, inner, max_size=3),
    max_leaves=6,
)


def page_of(run: Path) -> tuple[Page, str]:
    html = report_of(run / "events.jsonl").html
    return Page(html), html


def with_results(*results: ev.ToolResult) -> list[ev.Event]:
    events = conversation("A reply.")
    return [*events[:-2], *results, *events[-2:]]


def test_where_a_tool_failed_is_shown(tmp_path: Path) -> None:
    failed = result("it failed", ok=False, failed_at="mine.py:7")
    _, html = page_of(written(tmp_path / "run", with_results(failed)))
    assert html.count("It failed at mine.py:7.") == 1


@given(text=st.text(st.characters(), max_size=60) | st.sampled_from(HOSTILE))
def test_text_on_a_page_is_visible_and_can_be_told_from_its_escapes(text: str) -> None:
    page = Page(f'<div class="text">{shown(text)}</div>')
    assert page.texts == [text] and not page.complaints()
    for character in plain(text):
        kept = character in "\n\t\u200c\u200d" or unicodedata.category(character) not in ACTING
        assert kept and not 0xE0000 <= ord(character) <= 0xE0FFF


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("👩\u200d🚀 می\u200cخواهم ❤\ufe0f 1\ufe0f\u20e3 क\u094d\u200dष", 0),
        ("a\u200bb", 1), ("pass\u200cword \u200d", 2), ("a\ufe0f", 1), ("é\ufe0f\ufe0e\ufe0f", 2),
        ("\u3164", 1),         ("\u00ad\u2060\u180e", 3), ("\ufffe\U0001ffff", 2),
    ],
)  # fmt: skip
def test_what_scripts_and_emoji_are_spelled_with_stays(text: str, hidden: int) -> None:
    assert str(shown(text)).count('class="esc"') == hidden


@given(value=plain_values, most=st.integers(1, 400))
def test_json_for_people_is_the_value(value: Any, most: int) -> None:
    whole = pretty(value, 10**9)
    assert json.loads(whole) == value
    assert len(pretty(value, most)) <= most + len("… (cut here; the record has all of it)")
    assert cut(whole, len(whole)) == whole


@given(text=foreign, other=plain_values, key=foreign)
def test_nothing_in_a_record_acts_on_a_page(
    tmp_path_factory: pytest.TempPathFactory, text: str, other: Any, key: str
) -> None:
    output = tmp_path_factory.mktemp("runs")
    stream: list[ev.Event] = [
        ev.ExperimentStart(experiment=0, name=text, task=text, system_prompt=text),
        ev.UserMessage(experiment=0, turn=0, kind="task", text=text),
        prune(1, reasons=(text,)),
        prune(1, reasons=(text,), refused=text, dropped_messages=()),
        generation(text + " 12 layers"),
        ev.ToolCall(experiment=0, turn=1, function=text, arguments={key: other}, reasoning=text),
        result(other, function=text, result=other, text=text, traceback=text, failed_at=text),
        result({**LENS, "next_token": {"text": text, "probability": 1}}),
        result({**attention_record(2), "layer": text, "tokens": [text, key]}),
        ev.ToolCall(
            experiment=0, turn=1, function="record_observation", reasoning="",
            arguments={"category": text, "description": key},
        ),
        result(function="record_observation", result={"note_id": text}),
        ev.ToolCall(experiment=0, turn=1, function="unanswered", arguments={text: key}, reasoning=text),
        ev.Warning(experiment=0, turn=1, code=text, message=key),
        ev.Audit(experiment=0, turn=1, level="e0", codes=(text,), detail=text),
        ev.Audit(experiment=0, turn=1, level="e1", codes=(), detail="", skipped=text),
        ev.ExperimentEnd(experiment=0, name=text, status="failed", reason=text, turns=1, tool_calls=1),
        ev.Error(message=text),
        ev.RunEnd(status="failed", summary={text: other}),
    ]  # fmt: skip
    start = {"title": key, "model": text, "fault": text, "system_prompt": text,
             "settings": {key: other}, "environment": {text: other},
             "notes_before": ({"description": text},)}  # fmt: skip
    run = written(output, stream, **start)
    page, html = page_of(run)
    assert not page.complaints()
    html.encode("utf-8")
    assert text + " 12 layers" in page.texts
    left, right = written(output, stream, **start), written(output, conversation(text), model=key)
    for other_page in (
        comparison_page([measured_run(str(one), output) for one in (left, right)]),
        divergence_page(diverged(str(left), str(right), output)),
    ):
        assert not Page(other_page).complaints()
        other_page.encode("utf-8")


def test_a_page_loads_nothing_and_says_so(tmp_path: Path) -> None:
    page, html = page_of(written(tmp_path, with_results(result(LENS), result(attention_record()))))
    policies = [given["content"] for tag, given in page.found if given.get("http-equiv")]
    style = re.search(r"<style>(.*?)</style>", html, re.S)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policies == [
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    ]
    assert "url(" not in html and "@import" not in html and "http:" not in html and "https:" not in html
    assert html.index("Content-Security-Policy") < html.index("<style>")


def test_a_page_has_what_a_screen_reader_needs(tmp_path: Path) -> None:
    page, _ = page_of(written(tmp_path, with_results(result(LENS), result(attention_record()))))
    tags = [tag for tag, _ in page.found]
    assert tags.count("h1") == tags.count("main") == tags.count("nav") == tags.count("footer") == 1
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h\d", tag)]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    tables = [given for tag, given in page.found if tag == "table" and given.get("role") != "presentation"]
    assert tags.count("caption") == len(tables) > 2
    for tag, given_attributes in page.found:
        if tag == "svg":
            named = "aria-labelledby" in given_attributes or "aria-label" in given_attributes
            assert given_attributes.get("aria-hidden") == "true" or (
                named and given_attributes["role"] == "img"
            )
        if given_attributes.get("role") == "region":
            assert given_attributes["aria-label"] and given_attributes["tabindex"] == "0"


def test_the_timeline_has_the_figures_of_the_record(tmp_path: Path) -> None:
    run = written(tmp_path, conversation("one", "two", "three", prune_before=2))
    turns = [
        turn for each in experiments_of(read_events(run / "events.jsonl").events) for turn in each.replies
    ]
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    replies = [line for line in lines if line["event"] == "generation"]
    assert [turn.cached for turn in turns] == [line["cached_tokens"] for line in replies]
    assert [turn.generated for turn in turns] == [len(line["token_ids"]) for line in replies]
    assert [turn.prefilled for turn in turns] == [
        len(line["token_ids"]) for line in lines if line["event"] == "prefill"
    ]
    made = timeline(turns)
    assert made.prunes == [2 * UNIT] and made.starts == [] and made.width == 3 * UNIT
    heights = {
        kind: [float(h) for h in re.findall(r"h8v([\d.]+)h-8z", path)]
        for kind, path in made.tokens.bars.items()
    }
    top = max(turn.cached + turn.prefilled + turn.generated for turn in turns)
    assert made.tokens.top == top
    for kind in ("cached", "prefilled", "generated"):
        expected = [TOKENS_HEIGHT * getattr(turn, kind) / top for turn in turns]
        assert heights[kind] == pytest.approx(expected, abs=0.01)
    _, html = page_of(run)
    assert html.count('class="hit"') == 3 and "Pruned" in html


@given(
    st.integers(1, 12).flatmap(
        lambda n: st.lists(st.lists(st.floats(0, 1), min_size=n, max_size=n), min_size=n, max_size=n)
    )
)
def test_a_heat_map_has_each_weight_in_its_shade(weights: list[list[float]]) -> None:
    tokens = ["x"] * len(weights)
    made = picture_of(result({**attention_record(), "tokens": tokens, "weights": weights}))
    assert isinstance(made, AttentionMap) and made.size == len(weights)
    drawn: dict[tuple[int, int], int] = {}
    for shade, path in enumerate(made.shades, 1):
        for x, y, run in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\3z", path):
            for column in range(int(x), int(x) + int(run)):
                assert drawn.setdefault((int(y), column), shade) == shade
    for row, line in enumerate(weights):
        for column, weight in enumerate(line):
            shade = drawn.get((row, column), 0)
            assert (shade / LEVELS) ** 2 <= weight + 1e-12
            assert shade == LEVELS or weight < ((shade + 1) / LEVELS) ** 2 + 1e-12


odd_records = st.fixed_dictionaries(
    {"kind": st.sampled_from(["attention-map", "logit-lens"])},
    optional=dict.fromkeys(("layer", "head", "tokens", "weights", "next_token", "layers"), plain_values),
)


@given(record=plain_values | odd_records)
def test_a_record_of_another_shape_is_no_picture(record: Any) -> None:
    made = picture_of(result(record))
    assert made is None or (isinstance(made, AttentionMap) and len(record["weights"]) == made.size)


def test_a_lens_is_a_table_and_other_parts_are_json(tmp_path: Path) -> None:
    lens = picture_of(result(LENS))
    assert isinstance(lens, LensTable) and [row.rank for row in lens.rows] == [7, 1]
    page, html = page_of(written(tmp_path, with_results(result(LENS), result({"other": [1, 2]}))))
    assert "Logit lens over 5 tokens" in html and "␣road" in html
    assert any(json.loads(text) == {"other": [1, 2]} for text in page.texts if text.startswith('{"other'))


def test_pictures_take_no_more_room_than_a_report_has(tmp_path: Path) -> None:
    """The largest map that a tool gives, with weights that no run of cells shares, and so many of them."""
    worst = attention_record(256)
    worst["weights"] = [
        [(0.02 + 0.03 * (column % 2)) * (column <= row) for column in range(256)] for row in range(256)
    ]
    one = picture_of(result(worst))
    assert isinstance(one, AttentionMap) and one.bytes < PICTURE_BYTES
    _, html = page_of(written(tmp_path, with_results(*[result(worst)] * 12)))
    assert len(html) < PICTURE_BYTES + 400_000
    assert "not drawn" in html and 'class="map"' in html


def test_five_hundred_turns_stay_small(tmp_path: Path) -> None:
    events = conversation(
        *[f"Reply {number} " + "of some length. " * 12 for number in range(500)], prune_before=250
    )
    page, html = page_of(written(tmp_path, events))
    assert len(html.encode()) < 1_500_000 and not page.complaints()
    assert html.count('class="turn"') == 501


def test_findings_are_told_with_their_turn(tmp_path: Path) -> None:
    events = conversation("Fine.", "Fine as well.")
    failed = ev.Audit(experiment=0, turn=2, level="e1", codes=("prefix-mutated",), detail="8 of 9 layers")
    run = written(tmp_path, [*events[:-2], failed, *events[-2:]])
    made = report_of(run / "events.jsonl")
    assert made.corrupt and 'href="#t0-2"' in made.html and "prefix-mutated" in made.html
    assert not report_of(written(tmp_path, events) / "events.jsonl").corrupt


def test_a_reply_that_looks_garbled_is_marked_where_it_stands(tmp_path: Path) -> None:
    made = report_of(written(tmp_path, conversation(GOOD, GOOD, GARBLED, prune_before=2)) / "events.jsonl")
    assert made.corrupt and made.html.count(">looks garbled<") == 1
    turn = made.html.index(">looks garbled<")
    assert made.html.rindex('id="t0-', 0, turn) == made.html.index('id="t0-3-h"')


def test_findings_are_those_of_replay_and_the_status_that_of_runs(tmp_path: Path) -> None:
    """What two commands say of one record is the same."""
    cut = generation("I was cut", 1, finish_reason="length")
    events = [cut if isinstance(e, ev.Generation) else e for e in conversation("Fine.")]
    for kept in (len(events), len(events) - 1, 1):
        run = written(tmp_path, events[:kept])
        found = [finding.code for finding in load(str(run), tmp_path).findings]
        assert ("reply-truncated" in found) == (kept > 1) and ("record-open" in found) == (kept < len(events))
        _, html = page_of(run)
        assert re.findall(r">note: ([a-z-]+)<", html) == found
        status = run_row(run)["status"]
        assert f">{status}</span>, " in html and read_run(run, tmp_path).summary["status"] == status


def test_an_end_after_which_a_run_went_on_stands_between_its_turns(tmp_path: Path) -> None:
    events = conversation("One.", "Two.")
    second = next(i for i, event in enumerate(events) if isinstance(event, ev.Prefill) and event.turn == 2)
    stopped = ev.RunEnd(status="interrupted", summary={})
    _, html = page_of(written(tmp_path, [*events[:second], stopped, *events[second:]]))
    assert html.count("The run ended: interrupted") == 1 and "The run ended: complete" not in html
    assert html.index('id="t0-2"') < html.index("The run ended")


def test_what_was_broken_off_has_a_report(tmp_path: Path) -> None:
    run = written(tmp_path, conversation("One.", "Two.", prune_before=1))
    lines = (run / "events.jsonl").read_bytes().splitlines(keepends=True)
    for kept in range(1, len(lines)):
        (run / "events.jsonl").write_bytes(b"".join(lines[:kept]) + lines[kept][:20])
        page, html = page_of(run)
        assert not page.complaints() and "record-open" in html
    (run / "events.jsonl").write_bytes(b"".join(lines[1:]))
    with pytest.raises(RecordError, match="no run_start"):
        report_of(run / "events.jsonl")


@pytest.mark.parametrize("count", [-5, 0, 10**400, -(10**400)])
def test_a_count_that_none_can_have_stops_no_report(tmp_path: Path, count: int) -> None:
    events = [
        generation("One.", cached_tokens=count, seconds=float("inf")),
        generation("Two.", 2, prompt_tokens=count),
    ]
    page, _ = page_of(written(tmp_path, events))
    assert not page.complaints() and page.texts[:2] == ["One.", "Two."]


def test_older_records_time_a_prefill_with_its_reply(tmp_path: Path) -> None:
    rates = {}
    for schema in (1, 2):
        run = written(tmp_path, conversation("One."), schema=schema)
        (only,) = experiments_of(read_events(run / "events.jsonl").events)[0].replies
        rates[schema] = only.tokens_per_second
        assert not page_of(run)[0].complaints()
    assert rates == {1: pytest.approx(2 / 0.4), 2: pytest.approx(2 / 0.5)}


def test_the_command_writes_beside_the_record_or_where_it_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = written(tmp_path, conversation("One."))
    record = (run / "events.jsonl").read_bytes()
    done = introspect_here(capsys, "report", str(run))
    assert (done.code, done.out, done.err) == (0, f"{run / 'report.html'}\n", "")
    html = (run / "report.html").read_text()
    again = introspect_here(
        capsys, "report", "latest", "--runs", str(tmp_path), "-o", str(tmp_path / "x.html")
    )
    assert again.code == 0 and (tmp_path / "x.html").read_text() == html
    for bad in (
        run / "events.jsonl",
        run / "manifest.json",
        run / "phase1a.log",
        tmp_path,
        tmp_path / "no" / "x.html",
    ):
        refused = introspect_here(capsys, "report", str(run), "-o", str(bad))
        assert refused.code == ConfigError.exit_code and refused.err.count("\n") == 1 and refused.out == ""
    assert (run / "events.jsonl").read_bytes() == record and not list(tmp_path.rglob("*.part"))
    assert introspect_here(capsys, "report", "nothing", "--runs", str(tmp_path)).code == 2
    short = introspect_here(capsys, "report", run.name[-4:], "--runs", str(tmp_path), "-o", "-")
    assert short.code == 0 and short.out == html


@pytest.mark.parametrize("code", [errno.EROFS, errno.ELOOP, errno.EPERM])
def test_a_place_that_takes_no_file_is_told_in_one_line(
    code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, *arguments: Any, **options: Any) -> None:
        raise OSError(code, os.strerror(code), str(path))

    run = written(tmp_path, conversation("One."))
    monkeypatch.setattr(Path, "write_bytes", refused)
    monkeypatch.setattr(Path, "unlink", refused)
    done = introspect_here(capsys, "report", str(run))
    assert done.code == 2 and done.err.count("\n") == 1 and " cannot be written: " in done.err
    assert "choose another place" in done.err and ".part" not in done.err


def test_a_comparison_is_written_as_a_page_beside_what_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = [str(written(tmp_path, conversation(text))) for text in ("One.", "Two.")]
    file = tmp_path / "c.html"
    done = introspect_here(capsys, "compare", *pair, "--html", str(file), "--json")
    assert done.code == 0 and len(json.loads(done.out)["runs"]) == 2
    html = file.read_text()
    assert introspect_here(capsys, "compare", *pair, "--html", "-").out == html
    assert not Page(html).complaints()
    for command in ("compare", "diff"):
        refused = introspect_here(capsys, command, *pair, "--html", "-", "--json")
        assert refused.code == 2 and refused.out == "" and refused.err.count("\n") == 1
        refused = introspect_here(capsys, command, *pair, "--html", f"{pair[0]}/events.jsonl")
        assert refused.code == 2 and "--html" in refused.err
