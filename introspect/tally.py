"""The figures of a run as a fold over its events: whoever shows, limits or compares a run reads them here.

A run that goes on and a record that is read give the same events, so they give the same figures. Tokens and
calls are counts, times are seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import get_args

from introspect import events as ev
from introspect.events import JSON, AuditLevel, Event, Status

NOTHING_DONE = "nothing-done"
"""Code of the warning that answers a first claim of completion: the feedback after it counts as no call."""
SAVES_NOTE = "record_observation"
"""The tool whose results have a `note_id`: the note that was saved, or that stood there already."""
_SHORTEST = 1e-6
"""Seconds below which no rate is given: clocks resolve no less, and a quotient may be no number."""


@dataclass
class ExperimentTally:
    """An experiment that was begun. `status` is None while it goes on, or where the record breaks off.

    `calls` has the replies in which no call and no completion could be read too; `notes` are the numbers of
    those that it has saved, whether another experiment has saved the same before or not.
    """

    name: str
    status: Status | None = None
    reason: str = ""
    turns: int = 0
    calls: int = 0
    calls_ok: int = 0
    notes: set[str] = field(default_factory=set)

    @property
    def no_tool_used(self) -> bool:
        """Whether no call has succeeded so far."""
        return self.calls_ok == 0

    def row(self, unfinished: str) -> JSON:
        """Its figures as a JSON object; `unfinished` is the status where it has not ended."""
        return {
            "name": self.name,
            "status": self.status or unfinished,
            "turns": self.turns,
            "tool_calls": self.calls,
            "notes": len(self.notes),
            "reason": self.reason,
            "no_tool_used": self.no_tool_used,
        }


@dataclass
class Tally:
    """What happened in a run so far. `take` is the only thing that changes it.

    `prunes` are those that dropped something. `prefilled` counts every id fed outside decoding, `minimum` the
    least that any exact cache must be fed: the sum over prompts of `max(1, len(prompt) - common prefix with
    expected_ids)`. `expected_ids` are those that the cache holds by now: the last prompt and what was sampled
    after it but the last id, which no pass was fed. `audits` counts the checks made of each level, those
    `skipped` and those `failed`; `skipped_reasons` has the first reason of each level that was skipped,
    `codes` what was found, each once. `by_tool` has calls and those that succeeded, `decode_paths` ids by the
    path that decoded them. `decode_seconds` span decoding alone, in records of schema 1 hashing too.
    """

    turns: int = 0
    prunes: int = 0
    generated: int = 0
    decode_paths: dict[str, int] = field(default_factory=dict)
    prefilled: int = 0
    minimum: int = 0
    cached_peak: int = 0
    decode_seconds: float = 0.0
    calls: int = 0
    calls_ok: int = 0
    malformed: int = 0
    by_tool: dict[str, JSON] = field(default_factory=dict)
    audits: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys((*get_args(AuditLevel), "skipped", "failed"), 0)
    )
    codes: list[str] = field(default_factory=list)
    skipped_reasons: dict[AuditLevel, str] = field(default_factory=dict)
    failures: list[JSON] = field(default_factory=list)
    experiments: dict[int, ExperimentTally] = field(default_factory=dict)
    expected_ids: tuple[int, ...] = ()
    _prompt: tuple[int, ...] = ()
    _prefill_seconds: float = 0.0
    _passes: int = 0
    _schema: int = ev.SCHEMA_VERSION
    _claim_answered: bool = False
    _notes: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, events: Iterable[Event]) -> Tally:
        """The figures of a whole stream."""
        tally = cls()
        for event in events:
            tally.take(event)
        return tally

    def take(self, event: Event) -> None:
        """Add one event; those that count for nothing change nothing."""
        match event:
            case ev.RunStart():
                self._schema = event.schema
            case ev.ExperimentStart():
                self.experiments.setdefault(event.experiment, ExperimentTally(event.name))
            case ev.Prefill():
                self._prefill(event)
            case ev.Generation():
                self._generation(event)
            case ev.ToolResult():
                self._tool_result(event)
            case ev.UserMessage(kind="feedback") if not self._claim_answered:
                self.calls += 1
                self.malformed += 1
                self.experiment(event.experiment).calls += 1
            case ev.Prune():
                self.prunes += bool(event.dropped_messages)
            case ev.Audit():
                self._audit(event)
            case ev.ExperimentEnd():
                ended = self.experiment(event.experiment)
                ended.status, ended.reason = event.status, event.reason
            case _:
                pass
        if isinstance(event, ev.Warning) and event.code == NOTHING_DONE:
            self._claim_answered = True
        elif not isinstance(event, (ev.Error, ev.RunEnd, ev.RunResumed)):
            # A run may break off before the answer, and be taken up again.
            self._claim_answered = False

    def experiment(self, index: int) -> ExperimentTally:
        """The figures of one experiment, counted from 0; of nothing where the record has no start of it."""
        return self.experiments.get(index) or ExperimentTally("")

    @property
    def no_tool_used(self) -> bool:
        """Whether no call of the run has succeeded so far."""
        return self.calls_ok == 0

    @property
    def notes(self) -> int:
        """Notes that were saved so far, each once."""
        return len(self._notes)

    @property
    def tokens_per_second(self) -> float | None:
        """Ids decoded in a second, over all replies; None where none was decoded."""
        return passes_per_second(self._passes + 1, self.decode_seconds)

    def rows(self, unfinished: str) -> list[JSON]:
        """A JSON object for each experiment; `unfinished` is the status of one that has not ended."""
        return [self.experiments[index].row(unfinished) for index in sorted(self.experiments)]

    def tokens(self) -> JSON:
        """The figures of tokens as a JSON object."""
        return {
            "generated": self.generated,
            "prefilled": self.prefilled,
            "minimum": self.minimum,
            "cached_peak": self.cached_peak,
        }

    def tool_calls(self) -> JSON:
        """The figures of tool calls as a JSON object."""
        return {"total": self.calls, "ok": self.calls_ok, "malformed": self.malformed}

    def _prefill(self, event: ev.Prefill) -> None:
        # What stands before `start` was kept: the prompt is that, and what was fed after it.
        before = self.expected_ids
        self._prompt = (*before[: max(0, event.start)], *event.token_ids)
        self._prefill_seconds = event.seconds
        self.prefilled += len(event.token_ids)
        self.minimum += max(1, len(self._prompt) - common_prefix(self._prompt, before))
        self.expected_ids = self._prompt

    def _generation(self, event: ev.Generation) -> None:
        self.turns += 1
        self.experiment(event.experiment).turns += 1
        self.generated += len(event.token_ids)
        path = event.decode_path
        self.decode_paths[path] = self.decode_paths.get(path, 0) + len(event.token_ids)
        self.expected_ids = (*self._prompt, *event.token_ids[:-1])
        self.cached_peak = max(self.cached_peak, len(self.expected_ids))
        before = self._prefill_seconds if self._schema < 2 else 0.0
        self._passes += max(0, len(event.token_ids) - 1)
        self.decode_seconds += max(0.0, event.seconds - before)

    def _tool_result(self, event: ev.ToolResult) -> None:
        experiment = self.experiment(event.experiment)
        tool = self.by_tool.setdefault(event.function, {"calls": 0, "ok": 0})
        tool["calls"] += 1
        tool["ok"] += event.ok
        self.calls += 1
        self.calls_ok += event.ok
        experiment.calls += 1
        experiment.calls_ok += event.ok
        note = saved_note(event)
        if note is not None:
            self._notes.add(note)
            experiment.notes.add(note)

    def _audit(self, event: ev.Audit) -> None:
        if event.skipped is not None:
            self.skipped_reasons.setdefault(event.level, event.skipped)
        self.audits["skipped" if event.skipped is not None else event.level] += 1
        self.audits["failed"] += bool(event.codes)
        self.codes += [code for code in dict.fromkeys(event.codes) if code not in self.codes]
        if event.codes:
            found = {"level": event.level, "codes": list(event.codes)}
            self.failures.append({"experiment": event.experiment, "turn": event.turn, **found})


def saved_note(event: Event) -> str | None:
    """The number of the note that a tool's result says is saved, as text; None where none is."""
    if not isinstance(event, ev.ToolResult) or not event.ok or event.function != SAVES_NOTE:
        return None
    return str(event.result.get("note_id")) if isinstance(event.result, dict) else "?"


def common_prefix(a: Sequence[object], b: Sequence[object]) -> int:
    """How many leading entries two sequences share."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


def passes_per_second(tokens: int, seconds: float) -> float | None:
    """Forward passes of decoding in a second; None where there was none, or no time that a clock can tell.

    The first of a reply's ids is sampled from the prefill's logits, so `n` ids take `n - 1` passes.
    """
    return (tokens - 1) / seconds if tokens > 1 and seconds > _SHORTEST else None
