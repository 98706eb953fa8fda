"""Any record of a run: read, judged, and shown as a person wants to read it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from introspect.errors import RecordError, did_you_mean
from introspect.readers.findings import findings_of
from introspect.readers.replay_view import View, show_findings
from introspect.runlog.event_history import history_of_events
from introspect.runlog.history import Entry, Finding, History
from introspect.runlog.reader import EventLog, ReadEvent, read_events
from introspect.runlog.sources import find_source, is_event_log
from introspect.runlog.text_reader import read_text

_ALIASES = {"PRUNE": "MEMORY MANAGEMENT", "REASONING": "MODEL REASONING", "TOOL_RESULT": "TOOL_RESULTS"}
# fmt: off
_KNOWN_TAGS = frozenset([
    "INITIALIZATION", "INITIAL PROMPT", "PHASE", "EXPERIMENT", "USER", "MEMORY MANAGEMENT",
    "MEMORY OPTIMIZATION", "CACHE", "GENERATION", "MODEL", "SYSTEM", "MODEL REASONING", "TOOL CALL",
    "TOOL_RESULTS", "FEEDBACK TO MODEL", "AUDIT", "ERROR", "SESSION", "COMPLETE",
])
# fmt: on
_LONGEST_WAIT = 3600.0
Timed = TypeVar("Timed", Entry, ReadEvent)


@dataclass(frozen=True)
class Replay:
    """A record with what was found in it. `source` is as it was given, `path` the file that it means.

    `suspects` are the lines of garbled generations. `log` has the events of an event log; None for text.
    """

    source: str
    path: Path
    history: History
    suspects: frozenset[int]
    findings: tuple[Finding, ...]
    log: EventLog | None = None

    @property
    def corrupt(self) -> bool:
        """Whether any finding is corruption."""
        return any(finding.severity == "corrupt" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """The object that `replay --json` prints."""
        return {
            name: list(item) if isinstance(item, Iterator) else item
            for name, item in self.json_rows().items()
        }

    def json_rows(self) -> dict[str, Any]:
        """The same with an iterator in place of the list of replies: a log may have very many."""
        return {
            "source": self.source,
            "path": str(self.path),
            "format": self.history.format,
            "records": self.history.records,
            "sessions": self.history.sessions,
            "unread": {
                "lines": self.history.unread.lines,
                "first_line": self.history.unread.first_line,
            },
            "generations": self._generation_rows(),
            "prunes": [
                {"line": seen.line, "time": seen.time or None, "kept_turns": seen.kept_turns}
                for seen in self.history.prunes
            ],
            "findings": [_finding_json(finding) for finding in self.findings],
            "verify": None,
        }

    def _generation_rows(self) -> Iterator[dict[str, Any]]:
        for seen in self.history.generations:
            yield {
                "line": seen.line,
                "time": seen.time or None,
                "tokens": seen.tokens,
                "cache_used": seen.cache_used,
                "text": seen.text,
                "suspect": seen.line in self.suspects,
            }


def load(source: str, output: Path) -> Replay:
    """Read and judge the record that `source` means; `output` is the parent of run directories.

    Raises RecordError where there is none, or it holds no record.
    """
    path = find_source(source, output)
    log = read_events(path) if is_event_log(path) else None
    history = read_text(path) if log is None else history_of_events(log)
    suspects, findings = findings_of(history)
    return Replay(
        source=source,
        path=path,
        history=history,
        suspects=suspects,
        findings=findings,
        log=log,
    )


def show(
    replay: Replay,
    console: Console,
    only: Iterable[str] = (),
    speed: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show the messages of a record with their tags, its findings at the end.

    `speed` waits the recorded gaps divided by it.

    Raises RecordError for a tag in `only` that is neither known nor in the record.
    """
    entries = replay.history.entries
    wanted, view = wanted_tags(only, entries), View(console)
    for entry in paced(entries, speed, sleep):
        if not wanted or tag_of(entry) in wanted:
            view.show(entry, entry.line in replay.suspects)
    show_findings(replay.findings, console)


def tag_of(entry: Entry) -> str:
    """The tag of a message; the first word of one that has no tag but a title of its own, such as PHASE."""
    if entry.tag:
        return entry.tag
    return entry.text.split(None, 1)[0].rstrip(":") if entry.text.strip() else ""


def wanted_tags(only: Iterable[str], entries: Sequence[Entry]) -> set[str]:
    """The tags that are asked for, as a record spells them. Raises RecordError for one that none has."""
    known = _KNOWN_TAGS | {tag_of(entry) for entry in entries}
    wanted = set()
    for given in only:
        tag = " ".join(given.strip("[] ").upper().split())
        tag = _ALIASES.get(tag, tag)
        if tag not in known:
            raise RecordError(f"no record has the tag '{given}'; {did_you_mean(tag, sorted(_KNOWN_TAGS))}")
        wanted.add(tag)
    return wanted


def paced(items: Sequence[Timed], speed: float | None, sleep: Callable[[float], None]) -> Iterator[Timed]:
    """The items of a record, each after the recorded gap divided by `speed`; at once where that is None."""
    before: datetime | None = None
    for item in items:
        now = _moment(item.time) if speed else None
        if speed and now and before and now > before:
            sleep(min(_LONGEST_WAIT, (now - before).total_seconds() / speed))
        before = now or before
        yield item


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text.replace("Z", "")) if text else None
    except ValueError:
        return None


def _finding_json(finding: Finding) -> dict[str, Any]:
    return {
        "code": finding.code,
        "severity": finding.severity,
        "line": finding.line,
        "after_line": finding.after_line,
        "between": list(finding.between) if finding.between else None,
        "message": finding.message,
    }
