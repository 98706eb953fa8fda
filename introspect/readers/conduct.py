"""What in a run's conduct a person should know: useless prunes, repeated calls, cut replies, silent gaps.

None of it is corruption, so all findings are notes, one of each kind for an experiment:

| code | what it is |
| --- | --- |
| prune-without-effect | a prune was due and removed nothing, or what it removed made the context no shorter |
| call-repeated | a call of the same tool with the same arguments, whose result the model still saw |
| reply-truncated | a reply that ended at its limit of tokens |
| silent-gap | a minute or more without a record, ten times what the session's own pace explains |

A search for notes is no repetition where a note was saved since. A gap before a session's first reply is
none: weights are loaded there. Nor is one before a run was taken up again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from statistics import median

from introspect.display import counted, one_line
from introspect.readers.reply_calls import called
from introspect.runlog.history import (
    CallSeen,
    ConversationSeen,
    Entry,
    Finding,
    GenerationSeen,
    History,
    PruneRefused,
    PruneSeen,
    Seen,
)
from introspect.runlog.textlog import RESUMED
from introspect.tally import SAVES_NOTE

_SEARCHES_NOTES = "query_memory"
_KEPT_TURNS = 2
"""Turns that a prune keeps where the record does not say: the original's."""
_SAMPLED = 5_000
_MAX_SESSIONS = 256
GAP_SECONDS = 60.0
GAP_TIMES = 10.0
_FEWEST = 5
_RULE = "====="
_MOST_GAPS = 1_000


@dataclass
class _Kind:
    """How often something was found in an experiment, and where first."""

    code: str
    message: str
    count: int = 0
    line: int = 0
    detail: str = ""

    def add(self, line: int, detail: str) -> None:
        if not self.count:
            self.line, self.detail = line, detail
        self.count += 1

    def findings(self) -> Iterator[Finding]:
        if self.count:
            more = f" (the first of {self.count} such)" if self.count > 1 else ""
            yield Finding(self.code, "note", self.line, f"{self.message}: {self.detail}{more}")


@dataclass
class _Experiment:
    """One conversation. `visible` are the calls whose results the model still sees, the oldest first."""

    visible: list[tuple[str, str]] = field(default_factory=list)
    useless: _Kind = field(
        default_factory=lambda: _Kind("prune-without-effect", "a prune that was due removed nothing")
    )
    repeated: _Kind = field(
        default_factory=lambda: _Kind("call-repeated", "a call whose result the model still saw came again")
    )
    cut: _Kind = field(
        default_factory=lambda: _Kind("reply-truncated", "a reply ended at its limit of tokens")
    )

    def take(self, one: Seen) -> None:
        match one:
            case PruneRefused():
                self.useless.add(one.line, one_line(one.reason))
            case PruneSeen():
                if one.removed == 0:
                    self.useless.add(one.line, "no message, or none that made the context shorter")
                kept = _KEPT_TURNS if one.kept_turns is None else one.kept_turns
                self.visible = self.visible[-kept:] if kept else []
            case GenerationSeen(cut=True):
                self.cut.add(one.line, counted(one.tokens, "token"))
            case CallSeen():
                self._call(one)
            case _:
                pass

    def _call(self, call: CallSeen) -> None:
        if call.name == SAVES_NOTE:
            self.visible = [seen for seen in self.visible if seen[0] != _SEARCHES_NOTES]
        key = call.name, call.arguments
        if key in self.visible:
            self.repeated.add(call.line, one_line(f"{call.name}({call.arguments})"[:200]))
        self.visible = [*self.visible[-_SAMPLED:], key]

    def findings(self) -> Iterator[Finding]:
        for kind in (self.useless, self.repeated, self.cut):
            yield from kind.findings()


def conduct(history: History) -> Iterator[Finding]:
    """What the table above says, of any record."""
    experiments: dict[int, _Experiment] = {}
    # A log of this program has a message for each call; one of the original has them in its replies alone.
    told = any(isinstance(one, CallSeen) for one in islice(history.seen, _SAMPLED))
    for one in history.seen:
        if isinstance(one, ConversationSeen) and one.session in experiments:
            yield from experiments.pop(one.session).findings()
        experiment = experiments.setdefault(one.session, _Experiment())
        if len(experiments) > _MAX_SESSIONS:
            yield from experiments.pop(next(iter(experiments))).findings()
        experiment.take(one)
        if not told and isinstance(one, GenerationSeen):
            for name, arguments in called(one.text):
                experiment.take(CallSeen(one.text_line, one.session, name, arguments))
    for experiment in experiments.values():
        yield from experiment.findings()
    yield from silent_gaps(history.entries)


@dataclass
class _Pace:
    """How fast a session writes: seconds before a record by its tag, for a reply by its token.

    The line over a title is held until the title: a last one is the beginning of the next session.
    """

    last: Entry | None = None
    held: Entry | None = None
    replied: bool = False
    usual: dict[str, list[float]] = field(default_factory=dict)
    longest: list[float] = field(default_factory=list)
    gaps: list[tuple[float, Entry, Entry, int]] = field(default_factory=list)

    def take(self, entry: Entry) -> None:
        held, self.held = self.held, entry if entry.text.startswith(_RULE) else None
        for each in (held, entry):
            if each is not None and each is not self.held:
                self._take(each)

    def _take(self, entry: Entry) -> None:
        before, self.last = self.last, entry
        begins = entry.tag in ("INITIALIZATION", "INITIAL PROMPT")
        self.replied = (self.replied and not begins) or entry.tag == "MODEL"
        taken_up = entry.tag == "SESSION" and entry.text.startswith(RESUMED)
        seconds = _seconds_between(before, entry) if before and not taken_up else None
        if before is None or seconds is None or not self.replied or entry.tag == "MODEL":
            return
        tokens = _tokens_of(entry)
        samples = self.usual.setdefault(entry.tag[:40], []) if len(self.usual) < 100 else []
        if len(samples) < _SAMPLED:
            samples.append(seconds / tokens)
        self.longest = sorted([*self.longest, seconds])[-2:]
        if seconds >= GAP_SECONDS and len(self.gaps) < _MOST_GAPS:
            self.gaps.append((seconds, before, entry, tokens))

    def findings(self) -> Iterator[Finding]:
        silent = [gap for gap in self.gaps if gap[0] >= GAP_TIMES * self._explained(*gap)]
        if silent:
            seconds, before, entry, _ = max(silent, key=lambda gap: gap[0])
            more = f" (the longest of {len(silent)} such)" if len(silent) > 1 else ""
            message = f"nothing was written for {seconds:.0f} s, far above the session's own pace{more}"
            between = before.time, entry.time
            yield Finding("silent-gap", "note", entry.line, message, before.line, between)

    def _explained(self, seconds: float, before: Entry, entry: Entry, tokens: int) -> float:
        """Seconds that the session's pace leads one to expect before a record."""
        samples = self.usual.get(entry.tag[:40], [])
        if len(samples) >= _FEWEST:
            return median(samples) * tokens
        others = [other for other in self.longest if other != seconds] or [seconds]
        return max(others)


def silent_gaps(entries: Iterable[Entry]) -> Iterator[Finding]:
    """The longest hole in the time of each session that its own pace does not explain."""
    paces: dict[int, _Pace] = {}
    for entry in entries:
        pace = paces.setdefault(entry.session, _Pace())
        if len(paces) > _MAX_SESSIONS:
            yield from paces.pop(next(iter(paces))).findings()
        pace.take(entry)
    for pace in paces.values():
        yield from pace.findings()


def _tokens_of(entry: Entry) -> int:
    words = entry.text[:40].split()
    is_count = entry.tag == "GENERATION" and len(words) > 1 and words[1].isdecimal()
    return max(1, int(words[1])) if is_count else 1


def _seconds_between(before: Entry, after: Entry) -> float | None:
    """None where a time is missing or is none."""
    if not (before.time and after.time) or before.time == after.time:
        return 0.0 if before.time and before.time == after.time else None
    try:
        first, second = (datetime.fromisoformat(one.time.replace("Z", "+00:00")) for one in (before, after))
        return max(0.0, (second - first).total_seconds())
    except (ValueError, TypeError):
        return None
