"""Reads a text log in the seed's format, several sessions a file, or a document that quotes lines of one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

from introspect.display import one_line
from introspect.errors import RecordError
from introspect.runlog.history import ContextSeen, Entry, Finding, GenerationSeen, History, PruneSeen
from introspect.runlog.reader import unreadable
from introspect.runlog.text_records import (
    has_prefix_lines,
    log_entries,
    numbered,
    quoted_entries,
    quoted_part,
)

MAX_TEXT_BYTES = 512 * 2**20
PRUNING = "MEMORY MANAGEMENT"
_GENERATED = re.compile(r"^Generated (\d{1,9}) tokens?, cache used: (True|False)", re.ASCII)
_KEEPING = re.compile(r"keeping last (\d{1,6}) turn", re.ASCII)
_TRUNCATED = re.compile(r"^Generation truncated at token limit", re.ASCII)
_PHASE = re.compile(r"^PHASE \S+: ")
_SET_UP = ("INITIALIZATION", "INITIAL PROMPT", "CLEANUP", "GPU CLEANUP", "")
_CONTEXT_TAGS = ("USER", "INITIAL PROMPT", "FEEDBACK TO MODEL", "MEMORY OPTIMIZATION")
_DATE = re.compile(r"\*\*Date:\*\*\s*(?:(\d{4})-(\d\d)-(\d\d)|([A-Za-z]+) (\d{1,2}), (\d{4}))", re.ASCII)
_CLOCK = r"(\d\d:\d\d:\d\d)[.,](\d{3})"
_CLOCK_PAIR = re.compile(rf"{_CLOCK}\s*(?:→|->|-|–|—|to)\s*{_CLOCK}", re.ASCII)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def read_text(path: Path) -> History:
    """Read a text log, or the lines of one quoted in a document.

    Raises RecordError where the file cannot be read, is too large or holds no record.
    """
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise RecordError(f"'{path}' is larger than {MAX_TEXT_BYTES} bytes; give one run's log")
        text = path.read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        raise unreadable(path, error) from error
    history = parse_text(text)
    if not history.records:
        raise RecordError(
            f"'{path}' holds no record of a log; give a run directory, an events.jsonl or a text log"
        )
    return history


def parse_text(text: str) -> History:
    """The history in the text of a log, or of a document that quotes one; no records where there are none."""
    blocks = quoted_part(numbered(text))
    lines = [line for block in blocks for line in block]
    if has_prefix_lines(lines):
        entries = _with_sessions(log_entries(lines))
        return _history(entries)
    entries = [entry for block in blocks for entry in quoted_entries(block)]
    return _history(_with_quoted_times(_with_sessions(entries), text))


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
                GenerationSeen(entry.line, entry.time, entry.session, tokens, used, "", entry.line)
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
            self.pruning = PruneSeen(entry.line, last_line, entry.time, entry.session, None)
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


def _with_quoted_times(entries: list[Entry], document: str) -> list[Entry]:
    """Give quoted lines the two times that the document's prose states for the onset of a fault.

    The first is that of the last reply before the first prune, the second that of the first reply after it.
    A line between has the last time known before it: it cannot be earlier.
    """
    onset = _onset(document)
    prune = next((place for place, entry in enumerate(entries) if entry.tag == PRUNING), None)
    if onset is None or prune is None:
        return entries
    replies = [place for place, entry in enumerate(entries) if entry.tag == "GENERATION"]
    before = max((place for place in replies if place < prune), default=prune)
    after = min((place for place in replies if place > prune), default=len(entries))
    times = ["" if place < before else onset[place >= after] for place in range(len(entries))]
    return [replace(entry, time=time) for entry, time in zip(entries, times, strict=True)]


def _onset(document: str) -> tuple[str, str] | None:
    stated, clocks = _DATE.search(document), _CLOCK_PAIR.search(document)
    if stated is None or clocks is None:
        return None
    year, month, day, name, day_of_name, year_of_name = stated.groups()
    try:
        number = int(month) if month else _MONTHS.index(name[:3].lower()) + 1
        when = date(int(year or year_of_name), number, int(day or day_of_name)).isoformat()
    except ValueError:
        return None
    return f"{when}T{clocks[1]}.{clocks[2]}", f"{when}T{clocks[3]}.{clocks[4]}"
