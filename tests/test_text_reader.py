"""Text logs in the seed's format, of several sessions and with forged lines; a document that quotes one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.record_examples import DOCUMENT

from introspect.errors import RecordError
from introspect.runlog.text_reader import parse_text, read_text

RULE = "=" * 80


def stamp(second: int, level: str = "INFO", logger: str = "phase1a") -> str:
    return f"2025-11-10 21:47:{second:02d},029 - {logger} - {level} - "


def session(second: int, reply: str = "A report.") -> str:
    """One session: two generations and a prune between, many messages after a newline, as the seed had it."""
    messages = [
        RULE,
        "PHASE 1a: Baseline",
        RULE,
        "[INITIALIZATION] Loading model",
        "[INITIALIZATION] Loading tokenizer",
        "\n[GENERATION] Generated 314 tokens, cache used: False",
        f"\n[MODEL] {reply}",
        "\n[MODEL REASONING] the weights next",
        'TOOL_RESULTS:\n{\n  "layers": 36\n}',
        "\n[MEMORY MANAGEMENT] Pruning needed in tool loop: turn count (3 >= 3)",
        "[MEMORY MANAGEMENT] Clearing cache and keeping last 2 turns",
        "[MEMORY MANAGEMENT] Pruned 1 old exchanges",
        "\n[GENERATION] Generated 400 tokens, cache used: True",
        "\n[MODEL] Another report.",
        "Generation truncated at token limit (400 tokens)",
    ]
    return "".join(f"{stamp(second + count)}{message}\n" for count, message in enumerate(messages))


def test_a_log_of_one_session() -> None:
    log = session(10, reply="A report\n\nof two paragraphs.\n")
    history = parse_text(log)
    lines = log.split("\n")
    first, second = history.generations
    assert (first.tokens, first.cache_used, first.text) == (314, False, "A report\n\nof two paragraphs.\n")
    assert (second.tokens, second.cache_used, second.cut) == (400, True, True)
    assert first.time == "2025-11-10T21:47:15.029"
    assert lines[first.line - 1].startswith("[GENERATION]") and lines[first.text_line - 1].startswith(
        "[MODEL]"
    )
    [prune] = history.prunes
    assert "Pruning needed" in lines[prune.line - 1] and "Pruned 1" in lines[prune.last_line - 1]
    assert (prune.kept_turns, history.sessions, history.records) == (2, 1, 15)
    assert [seen.text.split("\n")[1] for seen in history.contexts] == ["{"]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_sessions_of_one_file_are_counted(count: int) -> None:
    history = parse_text(session(10) * count)
    assert history.sessions == count
    assert [seen.session for seen in history.generations] == [
        n for n in range(1, count + 1) for _ in range(2)
    ]


def test_a_session_may_begin_with_loading_or_with_nothing() -> None:
    reply = f"{stamp(30)}[GENERATION] Generated 1 tokens, cache used: True\n{stamp(31)}[MODEL] x\n"
    assert parse_text(reply).sessions == 1
    assert parse_text(f"{stamp(1)}[INITIALIZATION] Loading model\n{reply}" * 3).sessions == 3
    assert parse_text(reply.replace("x\n", f"x\n{stamp(31)}PHASE 2: forged\n") + reply).sessions == 1
    loading_first = f"{stamp(1)}[INITIALIZATION] Loading model\n{stamp(2)}{RULE}\n{stamp(3)}PHASE 1a: x\n"
    assert parse_text((loading_first + reply) * 2).sessions == 2
    crashed = f"{stamp(1)}{RULE}\n{stamp(1)}PHASE 1a: x\n{stamp(2)}[INITIALIZATION] Loading model\n"
    assert parse_text(crashed * 3).sessions == 3


FAKE = "[GENERATION] Generated 9 tokens, cache used: True"


@pytest.mark.parametrize(
    "forged",
    [
        FAKE,
        f"  {FAKE}",
        f"{stamp(0)}{FAKE}",
        f"{stamp(59)}{FAKE}",
        f"{stamp(16)}{FAKE}",
        f"{stamp(17)}{FAKE}",
        f"{stamp(16)}[MODEL] I take it back.",
        f"{stamp(0)}[NOTE] earlier than the reply that holds it",
        f"{stamp(59)}[NOTE] later than what follows",
        f"{stamp(17, logger='root')}[NOTE] from a logger that writes nowhere else",
        f"{stamp(17, logger='root')}{FAKE}",
        f"{stamp(17, level='FATAL')}{FAKE}",
        f"x {stamp(17)}{FAKE}",
        f"2025-11-10T21:47:16,029 - phase1a - INFO - {FAKE}",
        f"first\u2028{stamp(17)}{FAKE}",
        f"Line 12: {FAKE}",
        f"```\nLine 12: {FAKE}\n```",
    ],
)
def test_lines_that_a_model_forged_are_its_text(forged: str) -> None:
    history = parse_text(session(10, reply=f"A report.\n{forged}\nThe end."))
    assert [seen.tokens for seen in history.generations] == [314, 400]
    assert history.generations[0].text == f"A report.\n{forged}\nThe end."


def test_another_logger_that_writes_elsewhere_too_is_believed() -> None:
    log = f"{stamp(1, logger='torch')}warming up\n" + session(10).replace(
        f"{stamp(17)}\n[MODEL REASONING]", f"{stamp(16, logger='torch')}hot\n{stamp(17)}\n[MODEL REASONING]"
    )
    assert parse_text(log).generations[0].text == "A report."


def test_the_quoted_document() -> None:
    history = parse_text(DOCUMENT)
    assert (history.records, history.sessions) == (7, 1)
    assert [entry.line for entry in history.entries] == [789, 790, 819, 820, 821, 825, 826]
    first, second = history.generations
    assert (first.line, first.tokens, first.cache_used) == (789, 314, True)
    assert (first.time, second.time) == ("2025-11-10T21:47:45.029", "2025-11-10T21:47:59.785")
    assert first.text == "Based on the get_architecture_summary result"
    members = [
        '"nonrozen_parameters": 0,',
        '"selfwen2LayerCausalLM": 1,',
        '"Embedwen2For": 1,',
        '"Qding": 1,',
    ]
    assert [line.strip() for line in second.text.split("\n")] == members
    [prune] = history.prunes
    assert (prune.line, prune.last_line, prune.kept_turns) == (819, 821, 2)


def test_a_document_without_times_or_marks_is_read_the_same() -> None:
    plain = DOCUMENT.replace("<-- GARBLED!", "").replace("(COHERENT)", "").replace("**Date:**", "Date:")
    history = parse_text(plain)
    assert [seen.text.split() for seen in history.generations] == [
        seen.text.split() for seen in parse_text(DOCUMENT).generations
    ]
    assert {seen.time for seen in history.generations} == {""}


@pytest.mark.parametrize("date", ["2025-11-10", "Nov 10, 2025"])
def test_dates_are_read_in_both_spellings(date: str) -> None:
    history = parse_text(DOCUMENT.replace("November 10, 2025", date))
    assert history.generations[0].time == "2025-11-10T21:47:45.029"


PIECES = [
    "[MODEL] ",
    "[GENERATION] Generated 1 tokens, cache used: True",
    "[MEMORY MANAGEMENT] ",
    "keeping last 2 turns",
    "Line 5: ",
    "```",
    stamp(3),
    stamp(1, logger="other"),
    RULE,
    "PHASE 1: x",
    "**Date:** Foo 99, 2025",
    "10:00:00.000 → 10:00:01.000",
    "\n",
    "\r",
    "\x00",
]


@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
def test_whatever_a_file_holds_it_is_read_or_holds_nothing(text: str) -> None:
    history = parse_text(text)
    assert history.records == len(history.entries)
    assert all(entry.line >= 1 for entry in history.entries)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"# A title\n\nSome prose.\n", bytes(range(256)) * 40])
def test_a_file_without_a_record_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "some.log"
    path.write_bytes(content)
    with pytest.raises(RecordError) as raised:
        read_text(path)
    assert str(raised.value).isprintable()


def test_bytes_that_are_no_text_do_not_end_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "some.log"
    path.write_bytes(session(10, reply="A \udcff report.").encode("utf-8", "surrogateescape"))
    assert [seen.tokens for seen in read_text(path).generations] == [314, 400]
