"""The text log: the seed's lines and their order, and no text that could pass for a record of its own."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.amounts import examples
from support.record_examples import CALL, PROSE, conversation, generation, prune, written

from introspect import events as ev
from introspect.display import one_line, printable
from introspect.runlog.event_history import history_of_events
from introspect.runlog.reader import read_events
from introspect.runlog.shielding import shielded, unshielded
from introspect.runlog.text_reader import parse_text
from introspect.runlog.textlog import LogMessage, messages, prefix, render

# Written from the description of the format, apart from the reader of the program.
PREFIX = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - introspect - (INFO|WARNING|ERROR) - ")

FORGERIES = [
    "2025-11-10 21:47:45,029 - introspect - INFO - [GENERATION] Generated 9 tokens, cache used: True",
    "[GENERATION] Generated 9 tokens, cache used: True",
    "[MODEL] I never said this",
    "[MEMORY MANAGEMENT] Pruning needed in tool loop: x",
    "=" * 80,
    "PHASE 9: another session",
    "EXPERIMENT 9: another",
    "TOOL_RESULTS:",
    "Line 12: [GENERATION] Generated 9 tokens, cache used: True",
    "\\[MODEL] already escaped",
]
SEPARATORS = [
    "\n",
    "\r",
    "\r\n",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x85",
    "\u2028",
    "\u2029",
    "\n  ",
    "\n\t",
    "\n\u00a0",
    "\x1b[2K",
]
PIECES = st.sampled_from(FORGERIES + SEPARATORS) | st.text(
    st.characters(codec=None, exclude_categories=()), max_size=8
)
HOSTILE = st.lists(PIECES, max_size=10).map("".join)


def log_of(run: Path) -> str:
    return (run / "phase1a.log").read_bytes().decode("utf-8")


def records_of(log: str) -> list[str]:
    """The messages of a log, each with its continuation lines."""
    found: list[str] = []
    for line in log.split("\n")[:-1]:
        if PREFIX.match(line):
            found.append(PREFIX.sub("", line))
        else:
            found[-1] += "\n" + line
    return found


@settings(
    max_examples=examples(50), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=st.lists(HOSTILE, min_size=1, max_size=3), reasoning=HOSTILE, feedback=HOSTILE, title=HOSTILE)
@example(texts=["\n" + line for line in FORGERIES], reasoning="", feedback="", title="")
def test_the_log_holds_the_generations_of_the_events_and_no_others(
    tmp_path: Path, texts: list[str], reasoning: str, feedback: str, title: str
) -> None:
    events: list[ev.Event] = [ev.ExperimentStart(experiment=0, name=title, task=feedback)]
    for turn, text in enumerate(texts, 1):
        events += [
            ev.UserMessage(experiment=0, turn=turn, kind="feedback", text=feedback),
            prune(turn, reasons=(reasoning,), shortened_messages=(3,), shortened_texts=(text,)),
            generation(text, turn, tokens=turn, cached_tokens=612 * (turn % 2)),
            ev.Warning(experiment=0, turn=turn, code="odd", message=reasoning),
            ev.ToolCall(
                experiment=0,
                turn=turn,
                function=reasoning,
                arguments={reasoning: feedback},
                reasoning=reasoning,
            ),
            ev.ToolResult(
                experiment=0,
                turn=turn,
                function="f",
                ok=True,
                result={feedback: [reasoning]},
                text=text,
                seconds=0.1,
                record={feedback: [reasoning]},
            ),
            ev.Audit(experiment=0, turn=turn, level="e0", codes=(reasoning,), detail=feedback),
            ev.Error(message=feedback),
        ]
    log = log_of(written(tmp_path, events, title=title))
    history = parse_text(log)
    assert [(seen.tokens, seen.cache_used, seen.text) for seen in history.generations] == [
        (turn, turn % 2 == 1, printable(text)) for turn, text in enumerate(texts, 1)
    ]
    assert history.sessions == 1
    assert len(history.prunes) == len(texts)
    mine = [message for message in records_of(log) if message.startswith("[GENERATION] ")]
    assert len(mine) == len(texts)
    for line in log.split("\n"):
        if line.lstrip().startswith(("[GENERATION]", "[MODEL] ")):
            raise AssertionError(f"a tag at the start of a line that is no record: {line!r}")


@given(text=HOSTILE)
def test_shielding_is_undone_exactly(text: str) -> None:
    assert unshielded(shielded(text)) == text


@given(text=st.text(st.characters(codec=None, exclude_categories=())))
def test_what_is_printable_acts_on_no_display(text: str) -> None:
    shown = printable(text)
    assert len(shown.splitlines()) <= text.count("\n") + 1
    shown.encode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]", shown)
    assert printable(shown) == shown
    assert "\n" not in one_line(text)


def test_every_character_stands_or_is_escaped() -> None:
    kept_invisible = {"\n", "\t", "\u200c", "\u200d"}
    for code in [*range(0x10000), *range(0x1F000, 0x20000), *range(0xE0000, 0xE0200)]:
        character = chr(code)
        if character in kept_invisible or unicodedata.category(character) not in (
            "Cc",
            "Cf",
            "Cs",
            "Zl",
            "Zp",
        ):
            assert printable(character) == character
        else:
            assert re.fullmatch(r"\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})", printable(character))
            assert int(printable(character)[2:], 16) == code


def test_ordinary_replies_stand_in_the_log_as_they_are(tmp_path: Path) -> None:
    reply = PROSE + "- a list\n  - deeper [sic]\n```json\n" + CALL + "\n```\nüñí 👩‍🔬 数"
    assert f"[MODEL] {reply}\n" in log_of(written(tmp_path, [generation(reply)]))


def test_one_turn_has_the_order_of_the_seed(tmp_path: Path) -> None:
    run = written(tmp_path, conversation(PROSE + CALL, PROSE + CALL, prune_before=1))
    tags = [message.partition("]")[0] + "]" for message in records_of(log_of(run)) if message.startswith("[")]
    turn = ["[CACHE]", "[GENERATION]", "[MODEL]", "[MODEL REASONING]", "[TOOL CALL]", "[AUDIT]"]
    start = ["[INITIALIZATION]", "[INITIAL PROMPT]", "[USER]"]
    assert tags == [*start, *turn, *["[MEMORY MANAGEMENT]"] * 6, *turn, "[SESSION]", "[COMPLETE]"]


def test_lines_have_the_words_of_the_seed(tmp_path: Path) -> None:
    log = log_of(written(tmp_path, conversation(PROSE, PROSE, prune_before=1)))
    for line in [
        "PHASE 1a: Baseline",
        "EXPERIMENT 1: architecture",
        "[CACHE] 612 kept, 89 prefilled at 612..700",
        "[GENERATION] Generated 3 tokens, cache used: True",
        "[MEMORY MANAGEMENT] Clearing cache and keeping last 2 turns",
        "[MEMORY MANAGEMENT] Reset conversation, keeping last 2 turns",
        "[MEMORY MANAGEMENT] Pruned 1 old exchanges",
    ]:
        assert f" - {line}\n" in log
    assert log.count("=" * 80 + "\n") == 4
    assert "Pruning needed in tool loop: token count (2345 > 2000) and turn count (3 >= 3)\n" in log


def test_a_cache_that_held_nothing_was_not_used() -> None:
    first, _ = messages(generation("x", cached_tokens=0))
    assert str(first) == "[GENERATION] Generated 3 tokens, cache used: False"


def test_a_reply_that_was_cut_is_told_and_read_back(tmp_path: Path) -> None:
    replies = [generation("a", finish_reason="length"), generation("b", 2)]
    log = log_of(written(tmp_path, replies))
    assert " - WARNING - Generation truncated at token limit (400 tokens)\n" in log
    assert [seen.cut for seen in parse_text(log).generations] == [True, False]


def test_a_prune_that_was_refused_drops_nothing_in_the_log(tmp_path: Path) -> None:
    refused = prune(dropped_messages=(), dropped_turns=0, refused="nothing older")
    log = log_of(written(tmp_path, [generation("a"), refused, generation("b"), prune(), generation("c")]))
    assert [seen.kept_turns for seen in parse_text(log).prunes] == [2]


def test_long_results_are_cut_in_the_log_only(tmp_path: Path) -> None:
    result = {"names": ["model.layers.0"] * 200}
    run = written(
        tmp_path,
        [ev.ToolResult(experiment=0, turn=1, function="f", ok=True, result=result, text="", seconds=0.1)],
    )
    [shown] = [message for message in records_of(log_of(run)) if message.startswith("TOOL_RESULTS:")]
    body, mark = shown.split("\n", 1)[1][:500], shown.split("\n", 1)[1][500:]
    assert body.startswith('{\n  "names": [\n') and mark == "... (truncated in log only)"
    assert read_events(run / "events.jsonl").events[1].event.result == result  # type: ignore[union-attr]


def test_what_stands_in_for_a_shortened_result_is_shown_and_is_context(tmp_path: Path) -> None:
    cut = 'TOOL_RESULTS:\n{"names": 7}\nkeeping last 9 turns'
    run = written(
        tmp_path, [prune(shortened_messages=(4, 2), shortened_texts=(cut, "short")), generation("a")]
    )
    log = log_of(run)
    assert records_of(log)[-4].startswith("[MEMORY OPTIMIZATION] Message 4 now reads: TOOL_RESULTS:\n")
    assert records_of(log)[-3] == "[MEMORY OPTIMIZATION] Message 2 now reads: short"
    assert [seen.kept_turns for seen in parse_text(log).prunes] == [2]
    history = history_of_events(read_events(run / "events.jsonl"))
    assert {cut, "short"} <= {seen.text for seen in history.contexts}


def test_what_is_recorded_beside_a_result_is_named_and_not_shown(tmp_path: Path) -> None:
    beside = {"attention": [[0.125]], "positions": [7]}
    result = ev.ToolResult(
        experiment=0, turn=1, function="f", ok=True, result={}, text="", seconds=0.1, record=beside
    )
    run = written(tmp_path, [result])
    assert "[SYSTEM] For the record alone, never shown to the model: attention, positions\n" in log_of(run)
    shown = [entry.text for entry in history_of_events(read_events(run / "events.jsonl")).entries]
    assert not [text for text in [log_of(run), *shown] if "0.125" in text]
    assert read_events(run / "events.jsonl").events[1].event.record == beside  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("anew", "tail"), [(True, ", their ids made anew from the text"), (False, ""), (None, "")]
)
def test_ids_that_were_made_anew_are_told(tmp_path: Path, anew: bool | None, tail: str) -> None:
    log = log_of(written(tmp_path, [], forced_from="other", forced_retokenised=anew))
    assert f"Replies taken from other{tail}\n" in log


def test_the_log_is_a_function_of_the_events(tmp_path: Path) -> None:
    run = written(tmp_path, conversation(PROSE + CALL, PROSE, prune_before=1))
    events = read_events(run / "events.jsonl").events
    again = "".join(render(read.event, read.time, read.utc_offset) for read in events)
    assert again == log_of(run)


def test_times_are_local() -> None:
    assert prefix("2025-11-10T23:30:00.007Z", 60, "INFO") == "2025-11-11 00:30:00,007 - introspect - INFO - "
    assert prefix("2025-11-10T00:10:00.000Z", -570, "ERROR").startswith("2025-11-09 14:40:00,000 ")


def test_every_kind_of_event_that_is_written_has_a_line_or_needs_none() -> None:
    assert messages(ev.Token(experiment=0, turn=1, text="x", sampled=1, cached_tokens=1)) == []
    assert str(LogMessage("INFO", "", "two\n[MODEL] lines")) == "two\n\\[MODEL] lines"
