"""A text log says the same however it reached its reader: packed, recoded, painted, labelled, or pasted."""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import json
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.record_examples import CALL, DOCUMENT, PROSE, conversation, written
from support.text_logs import log_of

from introspect.errors import RecordError
from introspect.readers.replay import load
from introspect.runlog import text_bytes
from introspect.runlog.history import History
from introspect.runlog.sources import is_event_log
from introspect.runlog.text_reader import parse_text, read_text

ESC = "\x1b"
REPLIES = [
    PROSE + CALL,
    "Two lines.\n```json\n" + CALL,
    "A fence:\n```json\n" + CALL + "\n```",
    "Enough: é, 数.",
]
ACTING = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
PREFIX = re.compile(r"2025-11-10 (\S+),(\d{3}) - (\w+) - (\w+) - ")


LOG = log_of(*REPLIES)
LINES = LOG.split("\n")[:-1]


def told(history: History) -> list[tuple[str, str]]:
    """What the records of a log say, each with its tag."""
    return [(entry.tag, entry.text) for entry in history.entries]


EXPECTED = told(parse_text(LOG))


def each(new: Callable[[str], str], only: Callable[[str], bool] = lambda line: True) -> str:
    return "".join((new(line) if only(line) else line) + "\n" for line in LINES)


def begins(line: str) -> bool:
    return PREFIX.match(line) is not None


def restamped(new: str) -> str:
    return PREFIX.sub(lambda m: new.format(clock=m[1], ms=m[2], logger=m[3], level=m[4]), LOG)


def test_the_log_itself_is_read_whole() -> None:
    history = parse_text(LOG)
    assert history.records == 5 + 2 + 4 * len(REPLIES) == sum(map(begins, LINES))
    assert [seen.text for seen in history.generations] == REPLIES
    assert [seen.tokens for seen in history.generations] == [40, 41, 42, 43]
    assert (len(history.prunes), history.findings, history.unread.lines) == (1, [], 0)


TERMINALS = {
    "prefix-lines": each(lambda line: f"{ESC}[32m{line}{ESC}[0m", begins),
    "all-lines": each(lambda line: f"{ESC}[1;38;5;208m{line}{ESC}[m"),
    "warnings": each(lambda line: f"{ESC}[33m{line}{ESC}[0m", lambda line: " - WARNING - " in line),
    "the-rest": each(lambda line: f"{ESC}[32m{line}{ESC}[0m", lambda line: " - INFO - " in line),
    "no-reset": each(lambda line: f"{ESC}[32m{line}", begins),
    "reset-before": each(lambda line: f"{ESC}[0m{line}"),
    "levels": LOG.replace(" - INFO - ", f" - {ESC}[32mINFO{ESC}[0m - "),
    "tags": LOG.replace("[MODEL]", f"{ESC}[36m[MODEL]{ESC}[0m").replace("[GEN", f"{ESC}[2m[GEN"),
    "inside-a-tag": LOG.replace("[MODEL]", f"[{ESC}[36mMODEL{ESC}[0m]"),
    "colon-colours": each(lambda line: f"{ESC}[38:2::10:20:30m{line}{ESC}[0m"),
    "erase-line": each(lambda line: f"{ESC}[2K{ESC}[1G{line}{ESC}[K"),
    "8-bit": each(lambda line: f"\x9b32m{line}\x9b0m"),
    "link": each(lambda line: f"{ESC}]8;;file:///x\x07{line}{ESC}]8;;{ESC}\\", begins),
    "title": f"{ESC}]0;a title\x07" + LOG,
    "charset": each(lambda line: f"{ESC}(B{line}{ESC}7"),
    "device-string": f"{ESC}P1$r0m{ESC}\\" + LOG,
    "caret": each(lambda line: f"^[[32m{line}^[[0m", begins),
    "backslash": each(lambda line: f"\\x1b[32m{line}\\x1b[0m", begins),
    "octal": each(lambda line: f"\\033[1;32m{line}\\033[m", begins),
    "escape-lost": each(lambda line: f"[32m{line}[0m", begins),
    "escape-lost-levels": LOG.replace(" - INFO - ", " - [32mINFO[0m - "),
    "escape-lost-tags": LOG.replace("[MODEL]", "[36m[MODEL][0m"),
    "crlf": LOG.replace("\n", "\r\n"),
    "cr-crlf": LOG.replace("\n", "\r\r\n"),
    "form-feeds": each(lambda line: f"\f{line}", begins),
    "mark": "\ufeff" + LOG,
    "marks": each(lambda line: f"\ufeff{line}", begins),
    "nul-hole": "\0" * 9000 + LOG,
    "nul-holes": each(lambda line: f"\0\0\0{line}", begins),
}

LABELS: dict[str, str] = {
    "srun": each(lambda line: f"0: {line}"),
    "srun-padded": each(lambda line: f" 3: {line}"),
    "srun-stripped": each(lambda line: f"0: {line}".rstrip()).replace("] \n", "]\n"),
    "rank": each(lambda line: f"[rank0]: {line}"),
    "default": each(lambda line: f"[default0]:{line}"),
    "mpirun": each(lambda line: f"[1,0]<stdout>:{line}"),
    "docker": each(lambda line: f"2025-11-10T21:40:03.123456789Z {line}"),
    "runtime-file": each(lambda line: f"2025-11-10T21:40:03.123456789+01:00 stderr F {line}"),
    "forge": each(lambda line: f"2025-11-10T21:40:03.1234567Z {line}"),
    "journal": each(lambda line: f"Nov 10 21:40:03 host python3[812]: {line}"),
    "journal-iso": each(lambda line: f"2025-11-10T21:40:03+0100 host python3[812]: {line}"),
    "ts": each(lambda line: f"Nov  1 21:40:03 {line}"),
    "compose": each(lambda line: f"runner-1  | {line}"),
    "foreman": each(lambda line: f"21:40:03 web.1  | {line}"),
    "pod": each(lambda line: f"[pod/runner-5d4/main] {line}"),
    "pod-and-time": each(lambda line: f"[pod/runner-5d4/main] 2025-11-10T21:40:03.1Z {line}"),
    "compose-and-rank": each(lambda line: f"runner-1  | [rank0]: {line}"),
    "quote": each(lambda line: f"> {line}"),
    "quote-twice": each(lambda line: f">> {line}"),
    "indent": each(lambda line: f"    {line}" if line else line),
    "tab": each(lambda line: f"\t{line}"),
    "numbers": "".join(f"{number:6}\t{line}\n" for number, line in enumerate(LINES, 1)),
    "grep": "".join(f"{number}:{line}\n" for number, line in enumerate(LINES, 1)),
    "unknown-constant": each(lambda line: f"<my host> {line}"),
    "painted-rank": each(lambda line: f"{ESC}[35m[rank0]:{ESC}[0m {ESC}[32m{line}{ESC}[0m"),
}

LAYOUTS = {
    "point": restamped("2025-11-10 {clock}.{ms} - {logger} - {level} - "),
    "no-milliseconds": restamped("2025-11-10 {clock} - {logger} - {level} - "),
    "microseconds": restamped("2025-11-10 {clock}.{ms}456 - {logger} - {level} - "),
    "iso": restamped("2025-11-10T{clock}.{ms} - {logger} - {level} - "),
    "iso-utc": restamped("2025-11-10T{clock}.{ms}Z - {logger} - {level} - "),
    "iso-offset": restamped("2025-11-10T{clock}+01:00 - {logger} - {level} - "),
    "offset": restamped("2025-11-10 {clock},{ms} +0100 - {logger} - {level} - "),
    "slashes": restamped("2025/11/10 {clock},{ms} - {logger} - {level} - "),
    "in-brackets": restamped("[2025-11-10 {clock},{ms}] - {logger} - {level} - "),
    "padded-level": restamped("2025-11-10 {clock},{ms} - {logger} - {level:8} - "),
    "bracketed-level": restamped("2025-11-10 {clock},{ms} - {logger} - [{level}] - "),
    "logger-with-a-space": restamped("2025-11-10 {clock},{ms} - my {logger} - {level} - "),
    "module": restamped("2025-11-10 {clock},{ms} - introspection.{logger}:main - {level} - "),
    "no-logger": restamped("2025-11-10 {clock},{ms} - {level} - "),
    "level-first": restamped("2025-11-10 {clock},{ms} {level} {logger}: "),
    "level-in-brackets-first": restamped("2025-11-10 {clock},{ms} [{level}] "),
    "job": restamped("[2025-11-10 {clock},{ms}][{logger}][{level}] - "),
    "bars": restamped("2025-11-10 {clock}.{ms} | {level:8} | {logger}:main:42 - "),
    "warn": LOG.replace(" - WARNING - ", " - WARN - "),
    "lower": restamped("2025-11-10 {clock},{ms} - {logger} - {level} - ").replace(" - INFO - ", " - info - "),
}


@pytest.mark.parametrize("name", [*TERMINALS, *LABELS, *LAYOUTS])
def test_what_stands_around_records_is_no_part_of_them(name: str) -> None:
    history = parse_text({**TERMINALS, **LABELS, **LAYOUTS}[name])
    assert [(tag, text.rstrip()) for tag, text in told(history)] == [
        (tag, text.rstrip()) for tag, text in EXPECTED
    ]
    assert (history.sessions, history.findings, history.unread.lines) == (1, [], 0)
    assert history.entries[0].time.startswith("2025-11-10T21:40:00")


def utf16_appended(encoding: str) -> bytes:
    """Two sessions, the second written by a shell that appends UTF-16 to whatever stands there."""
    return LOG.encode() + LOG.encode(encoding)


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "gzip-members": lambda data: gzip.compress(data[:900]) + gzip.compress(data[900:]),
    "utf-8-sig": lambda data: b"\xef\xbb\xbf" + data,
    "utf-16": lambda data: data.decode().encode("utf-16"),
    "utf-16-le": lambda data: data.decode().encode("utf-16-le"),
    "utf-16-be": lambda data: data.decode().encode("utf-16-be"),
    "utf-16-be-mark": lambda data: b"\xfe\xff" + data.decode().encode("utf-16-be"),
    "utf-32": lambda data: data.decode().encode("utf-32"),
    "gzip-of-utf-16": lambda data: gzip.compress(data.decode().replace("\n", "\r\n").encode("utf-16")),
    "crlf": lambda data: data.replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("name", PACKED)
def test_a_packed_or_recoded_file_says_the_same(tmp_path: Path, name: str) -> None:
    path = tmp_path / "some.log"
    path.write_bytes(PACKED[name](LOG.encode()))
    history = read_text(path)
    assert not is_event_log(path)
    assert told(history) == EXPECTED
    assert (history.findings, history.unread.lines) == ([], 0)


def test_latin_1_and_bytes_of_nothing_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "some.log"
    text = log_of("déjà vu", "plain", "数 and é")
    path.write_bytes(text.replace("déjà vu", "@").encode().replace(b"@", "déjà vu".encode("latin-1")))
    assert [seen.text for seen in read_text(path).generations] == ["déjà vu", "plain", "数 and é"]
    path.write_bytes(log_of("@", "\ud800", "x").encode("utf-8", "replace").replace(b"@", "数".encode()[:2]))
    assert read_text(path).generations[0].text.strip("\ufffd") == ""
    path.write_bytes(log_of("@", "x").encode().replace(b"@", b"\x9b31mred\x9b0m"))
    assert read_text(path).generations[0].text == "red"


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16"])
def test_two_encodings_in_one_file(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "some.log"
    path.write_bytes(LOG.encode() + LOG.encode(encoding))
    history = read_text(path)
    assert [seen.text for seen in history.generations] == REPLIES * 2
    assert (history.sessions, history.unread.lines) == (2, 0)


def test_a_tar_archive_is_read_through_its_headers(tmp_path: Path) -> None:
    path = tmp_path / "logs.tar.gz"
    member = tmp_path / "a.log"
    member.write_text(LOG, encoding="utf-8")
    with tarfile.open(path, "w:gz") as archive:
        archive.add(member, "a.log")
        archive.add(member, "b.log")
    assert [seen.text for seen in read_text(path).generations] == REPLIES * 2


def test_a_file_that_breaks_off_is_read_up_to_there(tmp_path: Path) -> None:
    path = tmp_path / "some.log.gz"
    whole = gzip.compress(
        b"".join(log_of(f"Reply {n}: {zlib.crc32(bytes([n % 256]) * n)}").encode() for n in range(600))
    )
    path.write_bytes(whole[: len(whole) // 2])
    history = read_text(path)
    assert 150 < len(history.generations) < 450
    [finding] = [found for found in history.findings if found.code == "source-broken"]
    assert finding.severity == "note"
    path.write_bytes(gzip.compress(LOG.encode()) + b"rest of a disk")
    assert told(read_text(path)) == EXPECTED
    path.write_bytes(whole[:12])
    with pytest.raises(RecordError, match="packed and broken"):
        load(str(path), tmp_path)


@pytest.mark.parametrize(("start", "word"), [(b"\x28\xb5\x2f\xfd", "zstd -d"), (b"PK\x03\x04", "unzip")])
def test_other_packers_are_named(tmp_path: Path, start: bytes, word: str) -> None:
    path = tmp_path / "some.log"
    path.write_bytes(start + bytes(100))
    with pytest.raises(RecordError, match=word) as raised:
        load(str(path), tmp_path)
    assert "\n" not in str(raised.value)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.log", LOG)
    with pytest.raises(RecordError, match="unzip"):
        load(str(path), tmp_path)


def test_a_pipe_is_refused_and_not_half_read(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RecordError, match="is a pipe"):
        load(str(tmp_path / "pipe"), tmp_path)


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_bytes, "MAX_TEXT_BYTES", 2**20)
    path = tmp_path / "some.log"
    path.write_bytes(gzip.compress(LOG.encode() + b"x" * 2**21))
    with pytest.raises(RecordError, match="larger than 1048576 bytes"):
        read_text(path)


def test_a_line_without_end_is_cut_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_bytes, "MAX_LINE_BYTES", 4096)
    path = tmp_path / "some.log"
    path.write_bytes(log_of("x" * 200_000, "short").encode())
    history = read_text(path)
    first, second = history.generations
    assert (len(first.text), second.text) == (4096 - len("[MODEL] "), "short")
    [finding] = history.findings
    assert (finding.code, finding.severity, finding.line) == ("lines-cut", "note", first.text_line)


def test_an_event_log_is_read_packed_too(tmp_path: Path) -> None:
    events = written(tmp_path, conversation(*REPLIES)) / "events.jsonl"
    plain = load(str(events), tmp_path)
    for pack, name in [(gzip.compress, "a.jsonl.gz"), (bz2.compress, "a"), (lzma.compress, "a.jsonl")]:
        path = tmp_path / name
        path.write_bytes(pack(events.read_bytes()))
        again = load(str(path), tmp_path)
        assert again.history == plain.history
    path.write_bytes(gzip.compress(events.read_bytes())[:-300])
    broken = load(str(path), tmp_path).history
    assert 0 < broken.records < plain.history.records
    assert {finding.code for finding in broken.findings} <= {"record-torn", "record-open"}


BAR = "Loading weights: 100%|####| 434/434 [00:03<00:00]"


@pytest.mark.parametrize(
    "before",
    [
        BAR + "\n",
        "\n\n" + BAR + "\n",
        "a warning\n```\nof a library\n",
        "```\n",
        "\ufeff```json\n",
        "Traceback (most recent call last):\n  File\n",
        f"{ESC}[31ma painted warning{ESC}[0m\n",
        "Line 3: a count\n",
        '{"progress": 3}\n',
    ],
)
@pytest.mark.parametrize(
    "log", [LOG, LABELS["srun"], TERMINALS["all-lines"]], ids=["plain", "srun", "painted"]
)
def test_what_stands_before_the_first_record_is_counted(before: str, log: str, tmp_path: Path) -> None:
    path = tmp_path / "some.log"
    path.write_text(before + log, encoding="utf-8")
    replay = load(str(path), tmp_path)
    assert told(replay.history) == EXPECTED
    unread = replay.to_json()["unread"]
    assert unread == {"lines": before.count("\n"), "first_line": 1}
    # The replies of this log call one tool again and again.
    [finding] = [found for found in replay.findings if found.code != "call-repeated"]
    assert (finding.code, finding.severity) == ("lines-unread", "note")
    assert "before the first record" in finding.message and finding.message.isprintable()


def test_empty_lines_before_the_first_record_are_counted_in_silence() -> None:
    history = parse_text("\n \n" + LOG)
    assert (history.unread.lines, history.unread.first_line, history.findings) == (2, 1, [])


@pytest.mark.parametrize(
    "glue", [BAR, f"\r{BAR}", "\r 10%|#   | 1/9 [00:00<00:01, 9it/s]\r", "12it [00:01, 9it/s]"]
)
def test_a_progress_bar_on_the_line_of_a_record(glue: str) -> None:
    glued = each(lambda line: glue + line, lambda line: "[GPU MONITOR]" in line)
    history = parse_text(glued)
    assert history.records == len(EXPECTED)
    texts = [seen.text for seen in history.generations]
    assert [text.split("\n" + glue.strip("\r"))[0].rstrip("\r\n") for text in texts] == REPLIES


def test_tasks_that_write_at_once_are_read_one_by_one() -> None:
    replies = {task: [f"Task {task}.\n{reply}" for reply in REPLIES] for task in (0, 1, 11)}
    logs = {task: log_of(*texts).split("\n")[:-1] for task, texts in replies.items()}
    for label in ("{:2}: ", "[rank{}]: ", "[1,{}]<stderr>:", "worker-{}  | ", "[pod/worker-{}/main] "):
        mixed = [
            label.format(task) + line
            for lines in itertools.zip_longest(*logs.values())
            for task, line in zip(logs, lines, strict=True)
            if line is not None
        ]
        mixed.insert(40, "slurmstepd: error: *** STEP 7.0 CANCELLED ***")
        history = parse_text("\n".join(mixed) + "\n")
        assert history.sessions == 3
        assert [seen.text for seen in history.generations] == [
            text for task in replies.values() for text in task
        ]
        assert (history.unread.lines, history.unread.first_line) == (1, 41)
        for seen in history.generations:
            assert "[GENERATION]" in mixed[seen.line - 1] and "[MODEL]" in mixed[seen.text_line - 1]


@pytest.mark.parametrize("name", ["quote", "indent", "rank", "docker", "numbers"])
def test_what_stands_between_labelled_lines_is_no_text_of_theirs(name: str) -> None:
    lines = LABELS[name].split("\n")
    text = "\n".join([*lines[:20], "I wonder about the line above.", *lines[20:], "Regards,", "N."])
    history = parse_text(text)
    assert [(tag, body.rstrip()) for tag, body in told(history)] == [
        (tag, body.rstrip()) for tag, body in EXPECTED
    ]
    assert (history.unread.lines, history.unread.first_line) == (3, 21)


def test_files_that_tail_shows_are_read_one_by_one() -> None:
    half = len(LINES) // 2
    parts = [("a.log", LINES[:half]), ("b.log", LINES[:9]), ("a.log", LINES[half:]), ("b.log", LINES[9:])]
    text = "\n".join(f"==> logs/{name} <==\n" + "\n".join(lines) + "\n" for name, lines in parts)
    history = parse_text(text)
    assert [seen.text.rstrip() for seen in history.generations] == REPLIES * 2
    assert (history.sessions, history.unread.lines) == (2, 4 + 3)


def test_a_labelled_log_after_a_bare_one() -> None:
    for labelled in (LABELS["srun"], LABELS["docker"]):
        for text in (LOG + labelled, labelled + LOG, LOG * 3 + labelled):
            history = parse_text(text)
            assert [seen.text for seen in history.generations] == REPLIES * (text.count("PHASE 1a"))


FORGED = "[GENERATION] Generated 9 tokens, cache used: True"
STAMP = "2025-11-10 21:40:07,120 - phase1a - INFO - "


@pytest.mark.parametrize(
    "forged",
    [
        f"> {STAMP}{FORGED}",
        f"  {STAMP}{FORGED}\n  more",
        f"0: {STAMP}{FORGED}",
        f"[rank0]: {STAMP}{FORGED}",
        f"runner | {STAMP}{FORGED}",
        f"2025-11-10T21:40:07Z {STAMP}{FORGED}",
        f"0: {STAMP}[INITIALIZATION] Loading model\n0: {STAMP}{FORGED}",
        f"2025-11-10 21:40:07 INFO {FORGED}",
        f"2025-11-10T21:40:07,120 - phase1a - INFO - {FORGED}",
        "2025-11-10 21:40:07.120 - phase1a - INFO - [INITIALIZATION] Loading",
        f"==> other.log <==\n{FORGED}",
        f"\n==> other.log <==\n{FORGED}",
        "```\nLine 7: [MODEL] other\n```",
        "[32m painted [0m",
        "^[[32m[MODEL] painted",
    ],
)
def test_what_a_model_forges_stays_its_text(forged: str) -> None:
    replies = [*REPLIES[:2], f"A report.\n{forged}\nThe end.", REPLIES[3]]
    history = parse_text(log_of(*replies))
    assert [seen.tokens for seen in history.generations] == [40, 41, 42, 43]
    assert history.generations[3].text == REPLIES[3]
    words = re.sub(r"\W+", " ", history.generations[2].text)
    assert words == re.sub(r"\W+", " ", replies[2])
    assert {found.severity for found in history.findings} <= {"note"}


def test_lines_that_are_not_believed_are_told() -> None:
    history = parse_text(
        log_of("One.\n2025-11-10 21:00:00,120 - phase1a - INFO - [NOTE] earlier\nEnd.", "Two.")
    )
    assert [(found.code, found.severity) for found in history.findings] == [("prefix-doubted", "note")]


def test_a_document_is_no_log_and_has_no_finding_of_its_prose() -> None:
    history = parse_text(DOCUMENT)
    assert history.findings == []
    number = len(DOCUMENT.rstrip("\n").split("\n"))
    inside = DOCUMENT.split("Line 789:")[1].split("```")[0].count("\n")
    assert (history.unread.lines, history.unread.first_line) == (number - inside, 1)


MUTATIONS = st.sampled_from(
    ["", "\n", "\r", "\0", "0: ", "1: ", "> ", "[rank1]: ", ESC, f"{ESC}[31m", f"{ESC}]0;", "\x9b", "\ufeff",
     "```", STAMP, "==> x <==", "Line 5: ", "\n==> y <==\n", BAR, "2025-11-10T21:40:07Z ", "w | ", "é",
     "[32m", "    "]
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_each_line_is_in_a_record_or_counted(tmp_path: Path, data: st.DataObject) -> None:
    base = data.draw(
        st.sampled_from([LOG, LABELS["srun"], LABELS["quote"], TERMINALS["all-lines"], LAYOUTS["iso"]])
    )
    for _ in range(data.draw(st.integers(0, 8))):
        place = data.draw(st.integers(0, len(base)))
        end = place + data.draw(st.sampled_from([0, 0, 1, 7, 80, 500]))
        base = base[:place] + data.draw(MUTATIONS) + base[end:]
    # A word of its own ends each line, so that what became of it can be seen: no code of the reader is asked.
    lines = [f"{line} ~~ w{number}e" for number, line in enumerate(base.split("\n"), 1)]
    text = "\n".join(lines)
    history = parse_text(text)
    seen = re.findall(r"w(\d+)e", "\n".join(entry.text for entry in history.entries))
    assert len(seen) == len(set(seen))
    if history.entries:
        assert len(seen) + history.unread.lines == len(lines)
        missing = set(range(1, len(lines) + 1)) - set(map(int, seen))
        assert history.unread.first_line == min(missing, default=None)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_bytes_are_damaged_nothing_is_raised_but_a_record_error(tmp_path: Path, data: Any) -> None:
    content = bytearray(data.draw(st.sampled_from([*PACKED.values()]))(LOG.encode()))
    for _ in range(data.draw(st.integers(0, 5))):
        place = data.draw(st.integers(0, len(content)))
        content[place : place + data.draw(st.sampled_from([0, 1, 2, 64]))] = data.draw(st.binary(max_size=4))
    path = tmp_path / "some.log"
    path.write_bytes(bytes(content))
    try:
        replay = load(str(path), tmp_path)
    except RecordError as error:
        assert str(error).isprintable()
    else:
        assert json.dumps(replay.to_json())
        assert not any(ACTING.search(finding.message) for finding in replay.findings)


def test_what_is_read_of_a_terminal_reaches_none(tmp_path: Path) -> None:
    from rich.console import Console

    from introspect.readers.replay import show

    path = tmp_path / "some.log"
    path.write_text(
        f"{ESC}]0;t\x07 pre{ESC}[2J \x9b31m \u202e\n" + log_of(f"a{ESC}[2Jb{ESC}]52;c;eA==\x07c{ESC}")
    )
    console = Console(file=io.StringIO(), width=100, highlight=False)
    show(load(str(path), tmp_path), console)
    out = console.file.getvalue()  # type: ignore[attr-defined]
    assert "abc" in out and not ACTING.search(out.replace("\n", ""))
