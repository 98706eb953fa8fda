"""Reads a text log in the seed's format, several sessions a file, or a document that quotes lines of one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

from introspect.display import one_line
from introspect.errors import RecordError
from introspect.runlog.history import (
    ContextSeen,
    Entry,
    Finding,
    GenerationSeen,
    History,
    PruneSeen,
    Unread,
)
from introspect.runlog.reader import unreadable
from introspect.runlog.text_bytes import MAX_LINE_BYTES, TextLines, text_lines
from introspect.runlog.text_labels import Line, cleaned, streams_of, without_labels
from introspect.runlog.text_quoted import first_quoted, quoted_entries, quoted_part, with_stated_times
from introspect.runlog.text_records import PRUNING, has_prefix_lines, log_records
from introspect.runlog.text_wrapped import unwrapped

_GENERATED = re.compile(r"^Generated (\d{1,9}) tokens?, cache used: (True|False)", re.ASCII)
_KEEPING = re.compile(r"keeping last (\d{1,6}) turn", re.ASCII)
_TRUNCATED = re.compile(r"^Generation truncated at token limit", re.ASCII)
_PHASE = re.compile(r"^PHASE \S+: ")
_SET_UP = ("INITIALIZATION", "INITIAL PROMPT", "CLEANUP", "GPU CLEANUP", "")
_CONTEXT_TAGS = ("USER", "INITIAL PROMPT", "FEEDBACK TO MODEL", "MEMORY OPTIMIZATION")
_SHOWN = 60


def read_text(path: Path) -> History:
    """Read a text log, or the lines of one quoted in a document; packed or in any Unicode encoding too.

    Raises RecordError where the file cannot be read, is too large or holds no record.
    """
    try:
        read = text_lines(path)
    except OSError as error:
        raise unreadable(path, error) from error
    history = _parsed(read.lines)
    if not history.records:
        why = f"; it is packed and broken ({one_line(read.broken)})" if read.broken else ""
        raise RecordError(
            f"'{path}' holds no record of a log{why}; give a run directory, an events.jsonl or a text log"
        )
    return replace(history, findings=[*history.findings, *_defects(read)])


def parse_text(text: str) -> History:
    """The history in the text of a log, or of a document that quotes one; no records where there are none."""
    # Only a newline ends a line: other separators can stand in model text.
    return _parsed(text.removesuffix("\n").split("\n"))


def _parsed(raw: Sequence[str]) -> History:
    lines = without_labels(cleaned(unwrapped(raw)))
    if has_prefix_lines(lines):
        return _history_of_log(lines)
    blocks = quoted_part(lines)
    entries = [entry for block in blocks for entry in quoted_entries(block)]
    quoted = {line.number for block in blocks for line in block[first_quoted(block) :]}
    # The prose around a quotation is no part of the log: it is counted, and nothing to be told of.
    history = _history(with_stated_times(_with_sessions(entries), "\n".join(raw)))
    return replace(history, unread=_unread({line.number for line in lines} - quoted))


def _history_of_log(lines: Sequence[Line]) -> History:
    entries: list[Entry] = []
    unread: set[int] = set()
    doubted: list[int] = []
    for stream in streams_of(lines).values():
        records = log_records(stream)
        before = entries[-1].session if entries else 0
        entries += [
            replace(entry, session=entry.session + before) for entry in _with_sessions(records.entries)
        ]
        unread.update(records.unread)
        doubted += records.doubted
    history = _history(entries)
    return replace(
        history,
        unread=_unread(unread),
        findings=[
            *history.findings,
            *_unread_notes(lines, sorted(unread), min(entry.line for entry in entries), doubted),
        ],
    )


def _unread(numbers: Set[int]) -> Unread:
    return Unread(len(numbers), min(numbers, default=None))


def _unread_notes(
    lines: Sequence[Line], unread: Sequence[int], first: int, doubted: Sequence[int]
) -> Iterator[Finding]:
    """What a person should know of lines that are in no record, or that are not taken for one."""
    texts = {line.number: line.text for line in lines if line.text.strip()}
    unread_lines = [number for number in unread if number in texts]
    if unread_lines:
        before = "before the first record " if unread_lines[-1] < first else ""
        shown = one_line(texts[unread_lines[0]][:_SHOWN])
        message = f"{_lines(unread_lines)} {before}not read: {shown}"
        yield Finding("lines-unread", "note", unread_lines[0], message)
    if doubted:
        message = f"{_lines(doubted)} like the beginning of a record, taken for text of the one before"
        yield Finding("prefix-doubted", "note", min(doubted), message)


def _lines(numbers: Sequence[int]) -> str:
    return f"{len(numbers)} line{'s' if len(numbers) > 1 else ''}"


def _defects(read: TextLines) -> Iterator[Finding]:
    """What is wrong with the file itself."""
    if read.broken:
        message = f"the packed file breaks off here, what came before is read: {one_line(read.broken)}"
        yield Finding("source-broken", "note", len(read.lines), message)
    if read.cut:
        message = f"{_lines(read.cut)} longer than {MAX_LINE_BYTES} bytes, read up to there"
        yield Finding("lines-cut", "note", read.cut[0], message)


def _with_sessions(entries: Iterable[Entry]) -> list[Entry]:
    """Number the sessions: one begins at a PHASE line or at the start of loading, whichever comes first."""
    numbered_entries: list[Entry] = []
    session, begun, worked = 1, set[str](), False
    ruled = False
    for entry in entries:
        loading = entry.tag == "INITIALIZATION" and entry.text.startswith("Loading")
        marker = (
            "phase" if ruled and not entry.tag and _PHASE.match(entry.text) else entry.text if loading else ""
        )
        if marker and (worked or marker in begun):
            session, begun, worked = session + 1, set(), False
        if marker:
            begun.add(marker)
        ruled = entry.text.startswith("=====")
        worked = worked or entry.tag not in _SET_UP or entry.text.startswith("EXPERIMENT ")
        numbered_entries.append(replace(entry, session=session))
    return numbered_entries


@dataclass
class _Assembly:
    """Puts the messages of a log together again: replies with their counts, pruning with all its lines."""

    generations: list[GenerationSeen] = field(default_factory=list)
    prunes: list[PruneSeen] = field(default_factory=list)
    contexts: list[ContextSeen] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    awaits_text: bool = False
    pruning: PruneSeen | None = None

    def take(self, entry: Entry) -> None:
        """Add one message of the log."""
        if entry.tag == PRUNING:
            self._prune(entry)
        elif entry.tag == "GENERATION" and (match := _GENERATED.match(entry.text)):
            self.end_prune()
            tokens, used = int(match[1]), match[2] == "True"
            self.generations.append(
                GenerationSeen(
                    line=entry.line,
                    time=entry.time,
                    session=entry.session,
                    tokens=tokens,
                    cache_used=used,
                    text="",
                    text_line=entry.line,
                )
            )
            self.awaits_text = True
        elif entry.tag == "MODEL" and self.awaits_text:
            self.generations[-1] = replace(self.generations[-1], text=entry.text, text_line=entry.line)
            self.awaits_text = False
        elif self.generations and _TRUNCATED.match(entry.text) and entry.tag in ("", "SYSTEM", "GENERATION"):
            self.generations[-1] = replace(self.generations[-1], cut=True)
        elif entry.tag == "AUDIT" and entry.level == "ERROR":
            self.findings.append(Finding("audit-failed", "corrupt", entry.line, one_line(entry.text)))
        elif entry.tag in _CONTEXT_TAGS or (not entry.tag and entry.text.startswith("TOOL_RESULTS:")):
            self.contexts.append(ContextSeen(entry.line, entry.session, entry.text))

    def _prune(self, entry: Entry) -> None:
        if entry.text.startswith("Nothing pruned"):
            self.pruning = None
            return
        last_line = entry.line + entry.text.rstrip().count("\n")
        if self.pruning is None or entry.text.startswith("Pruning needed"):
            self.end_prune()
            self.pruning = PruneSeen(
                line=entry.line, last_line=last_line, time=entry.time, session=entry.session, kept_turns=None
            )
        keeping = _KEEPING.search(entry.text)
        kept = int(keeping[1]) if keeping else self.pruning.kept_turns
        self.pruning = replace(self.pruning, last_line=last_line, kept_turns=kept)

    def end_prune(self) -> None:
        """A pruning block is over: what follows belongs to another one."""
        if self.pruning is not None:
            self.prunes.append(self.pruning)
        self.pruning = None


def _history(entries: Sequence[Entry]) -> History:
    assembly = _Assembly()
    for entry in entries:
        assembly.take(entry)
    assembly.end_prune()
    return History(
        format="text",
        records=len(entries),
        sessions=entries[-1].session if entries else 0,
        entries=entries,
        generations=assembly.generations,
        prunes=assembly.prunes,
        contexts=assembly.contexts,
        findings=assembly.findings,
    )
