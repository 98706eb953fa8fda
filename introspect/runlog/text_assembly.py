"""Puts the messages of a text log together again: its sessions, replies with their counts, whole prunes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from introspect.display import one_line
from introspect.runlog.history import (
    CallSeen,
    ContextSeen,
    ConversationSeen,
    Entry,
    Finding,
    GenerationSeen,
    PruneRefused,
    PruneSeen,
    Seen,
)
from introspect.runlog.text_records import PRUNING

_GENERATED = re.compile(r"^Generated (\d{1,9}) tokens?, cache used: (True|False)", re.ASCII)
_KEEPING = re.compile(r"keeping last (\d{1,6}) turn", re.ASCII)
_REMOVED = re.compile(r"^(?:Pruned|Shortened) (\d{1,9}) ", re.ASCII)
_CALL = re.compile(r"^([\w.-]{1,200})\((.*)\)\s*$", re.DOTALL)
_TRUNCATED = re.compile(r"^Generation truncated at token limit", re.ASCII)
_PHASE = re.compile(r"^PHASE \S+: ")
_SET_UP = ("INITIALIZATION", "INITIAL PROMPT", "CLEANUP", "GPU CLEANUP", "")
_CONTEXT_TAGS = ("USER", "INITIAL PROMPT", "FEEDBACK TO MODEL", "MEMORY OPTIMIZATION")
_MAX_WAITING = 1000
"""What is seen after a reply and waits until nothing more can belong to that."""


@dataclass
class Sessions:
    """Numbers the sessions of a stream: each begins at its PHASE line or at its loading, the earlier one."""

    session: int = 1
    begun: set[str] = field(default_factory=set)
    worked: bool = False
    ruled: bool = False

    def number(self, entry: Entry) -> int:
        """The session of the next message, counted from 1."""
        loading = entry.tag == "INITIALIZATION" and entry.text.startswith("Loading")
        phase = self.ruled and not entry.tag and _PHASE.match(entry.text)
        marker = "phase" if phase else entry.text if loading else ""
        if marker and (self.worked or marker in self.begun):
            self.session, self.begun, self.worked = self.session + 1, set(), False
        if marker:
            self.begun.add(marker)
        self.ruled = entry.text.startswith("=====")
        self.worked = self.worked or entry.tag not in _SET_UP or entry.text.startswith("EXPERIMENT ")
        return self.session


@dataclass
class Assembly:
    """What a stream of messages shows. `keep` is given each thing when it is complete, in order."""

    keep: Callable[[Seen], None]
    findings: list[Finding] = field(default_factory=list)
    waiting: list[Seen] = field(default_factory=list)
    awaits_text: bool = False
    pruning: PruneSeen | None = None
    pruning_place: int = 0

    def take(self, entry: Entry) -> None:
        """Add one message of the log."""
        if entry.tag == PRUNING:
            self._prune(entry)
        elif entry.tag == "GENERATION" and (match := _GENERATED.match(entry.text)):
            self.end()
            tokens, used = int(match[1]), match[2] == "True"
            self.waiting.append(
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
            self._amend(text=entry.text, text_line=entry.line)
            self.awaits_text = False
        elif _TRUNCATED.match(entry.text) and entry.tag in ("", "SYSTEM", "GENERATION"):
            self._amend(cut=True)
        elif entry.tag == "AUDIT" and entry.level == "ERROR":
            self.findings.append(Finding("audit-failed", "corrupt", entry.line, one_line(entry.text)))
        elif entry.tag in _CONTEXT_TAGS or (not entry.tag and entry.text.startswith("TOOL_RESULTS:")):
            self.waiting.append(ContextSeen(entry.line, entry.session, entry.text))
        elif entry.tag == "TOOL CALL" and (match := _CALL.match(entry.text)):
            self.waiting.append(CallSeen(entry.line, entry.session, match[1], match[2]))
        elif not entry.tag and entry.text.startswith("EXPERIMENT "):
            self.end()
            self.waiting.append(ConversationSeen(entry.line, entry.session))
        if len(self.waiting) > _MAX_WAITING:
            self._release()

    def end(self) -> None:
        """The turn is over: what follows belongs to another reply and another pruning."""
        self._end_prune()
        self._release()

    def _amend(self, **changes: object) -> None:
        """Change the last reply, if it is not given away yet."""
        if self.waiting and isinstance(self.waiting[0], GenerationSeen):
            self.waiting[0] = replace(self.waiting[0], **changes)  # type: ignore[arg-type]

    def _release(self) -> None:
        for seen in self.waiting:
            self.keep(seen)
        self.waiting.clear()

    def _prune(self, entry: Entry) -> None:
        if entry.text.startswith("Nothing pruned"):
            self.pruning = None
            reason = entry.text.removeprefix("Nothing pruned: ")
            self.waiting.append(PruneRefused(entry.line, entry.session, reason))
            return
        last_line = entry.line + entry.text.rstrip().count("\n")
        if self.pruning is None or entry.text.startswith("Pruning needed"):
            self._end_prune()
            self.pruning_place = len(self.waiting)
            self.pruning = PruneSeen(
                line=entry.line, last_line=last_line, time=entry.time, session=entry.session, kept_turns=None
            )
        keeping = _KEEPING.search(entry.text)
        kept = int(keeping[1]) if keeping else self.pruning.kept_turns
        removed, stated = self.pruning.removed, _REMOVED.match(entry.text)
        removed = (removed or 0) + int(stated[1]) if stated else removed
        self.pruning = replace(self.pruning, last_line=last_line, kept_turns=kept, removed=removed)

    def _end_prune(self) -> None:
        if self.pruning is not None:
            self.waiting.insert(self.pruning_place, self.pruning)
        self.pruning = None
