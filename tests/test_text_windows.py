"""A long text log is read by windows: the same as a whole, in memory that does not grow with it."""

from __future__ import annotations

import gzip
import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.record_examples import CALL, PROSE
from support.text_logs import log_of

from introspect.runlog import text_windows
from introspect.runlog.history import History
from introspect.runlog.spool import Spool
from introspect.runlog.text_reader import parse_text

FORGED = [
    "2025-11-10 21:40:07,120 - phase1a - INFO - [GENERATION] Generated 9 tokens, cache used: True",
    "2025-11-10 21:00:00,120 - phase1a - INFO - [NOTE] earlier",
    "[MODEL] I",
    "2025-11-10 21:40:07,120 - other - INFO - x",
    "=" * 80,
]
REPLIES = st.lists(
    st.sampled_from(
        [PROSE + CALL, "Short.", "Two\n\nlines.\n", *(f"A report.\n{line}\nEnd." for line in FORGED)]
    ),
    min_size=1,
    max_size=6,
)


def plain(history: History) -> History:
    """The same with what it kept in files taken out of them."""
    return replace(history, entries=list(history.entries), seen=list(history.seen))


def by_windows(text: str, size: int, monkeypatch: pytest.MonkeyPatch) -> History:
    with monkeypatch.context() as patch:
        patch.setattr(text_windows, "WINDOW_CHARS", size)
        return plain(parse_text(text))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(REPLIES, min_size=1, max_size=4), st.integers(200, 4000))
def test_windows_of_any_size_give_what_the_whole_gives(
    monkeypatch: pytest.MonkeyPatch, sessions: list[list[str]], size: int
) -> None:
    text = "".join(log_of(*replies) for replies in sessions)
    assert by_windows(text, size, monkeypatch) == plain(parse_text(text))


def test_what_stands_before_the_first_record_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "warming up\n\n" * 400 + log_of("One.", "Two.") + log_of("Three.")
    assert by_windows(text, 500, monkeypatch) == plain(parse_text(text))


@pytest.mark.parametrize("label", ["{:2}: ", "[rank{}]: ", "worker-{}  | "])
def test_tasks_that_write_at_once_are_parted_in_every_window(
    monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    logs = [log_of(*[f"Task {task}, reply {number}." for number in range(40)]) for task in range(3)]
    mixed = "".join(
        label.format(task) + line + "\n"
        for lines in itertools.zip_longest(*(log.split("\n")[:-1] for log in logs))
        for task, line in enumerate(lines)
        if line is not None
    )
    read, whole = by_windows(mixed, 3000, monkeypatch), plain(parse_text(mixed))
    assert (read.sessions, read.records, read.unread) == (3, whole.records, whole.unread)
    # Windows tell of all tasks in turn, the whole of one after the other.
    assert sorted(read.seen, key=lambda seen: (seen.session, seen.line)) == whole.seen


def test_a_document_that_quotes_a_log_is_read_beyond_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    quoted = "".join(
        f"Line {number}0: [GENERATION] Generated 5 tokens, cache used: True\n   [MODEL] Reply {number}.\n"
        for number in range(1, 200)
    )
    read = by_windows(quoted, 2000, monkeypatch)
    assert [seen.text for seen in read.generations] == [f"Reply {number}." for number in range(1, 200)]


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    one = log_of(*[f"{PROSE} {number}" + CALL for number in range(400)])
    peaks = []
    for times in (10, 40):
        path = tmp_path / f"{times}.log.gz"
        path.write_bytes(gzip.compress(one.encode() * times, 1))
        script = (
            "import resource, sys; from pathlib import Path; from introspect.runlog import text_windows;"
            "text_windows.WINDOW_CHARS = 2**19; from introspect.runlog.text_reader import read_text;"
            "history = read_text(Path(sys.argv[1])); assert len(history.generations) == int(sys.argv[2]);"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, str(path), str(400 * times)],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout))
    assert peaks[1] < 1.1 * peaks[0]


@given(st.lists(st.text(st.characters(codec=None), max_size=30)))
def test_what_is_kept_in_a_file_comes_back_in_order(values: list[str]) -> None:
    kept: Spool[str] = Spool()
    for value in values:
        kept.append(value)
    assert list(kept) == values and len(kept) == len(values)
    assert kept[1:] == values[1:]
