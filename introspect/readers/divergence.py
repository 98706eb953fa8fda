"""Where two runs part: the first event and the first token that are not the same in both.

What a run did is compared, not when or how fast: times and durations are no difference. What a run was given
(its settings, what it ran on) is listed beside, and is none either; the text that the model reads is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from introspect import events as ev
from introspect.errors import RecordError
from introspect.events import JSON, Event
from introspect.phase.shown_paths import shell_path
from introspect.readers.dotted import as_json, dotted
from introspect.readers.event_pairs import compared_events, event_pairs
from introspect.runlog.loop_events import AUDIT_VERDICT
from introspect.runlog.reader import EventLog, ReadEvent, read_events
from introspect.runlog.sources import find_source, is_event_log

_TIMES = frozenset({"seconds", "digest_seconds"})
_READ = ("system_prompt", "system_tokens", "tool_framing", "notes_before", "documents")
"""Fields of a `run_start` that the model reads; the others say what the run was given, and are listed so."""


@dataclass(frozen=True)
class EventDifference:
    """The first events that differ, `index` of those compared, from 0; None for a run that has no more.

    `fields` are those that differ; empty where the events are of two kinds.
    """

    index: int
    left: ReadEvent | None
    right: ReadEvent | None
    fields: tuple[str, ...]


@dataclass(frozen=True)
class TokenDifference:
    """The first sampled ids that differ: at `position` of `reply` of both runs, both counted from 0.

    None is an id where a reply, or the run, has no more; `experiment` and `turn` are those of the left run,
    or of the right where the left has ended.
    """

    reply: int
    experiment: int
    turn: int
    position: int
    left: int | None
    right: int | None
    left_text: str
    right_text: str


@dataclass(frozen=True)
class Divergence:
    """Where two runs part, and what is the same before. `given` has settings that differ by dotted key."""

    left: str
    right: str
    event: EventDifference | None
    token: TokenDifference | None
    events_compared: int
    tokens_compared: int
    given: dict[str, tuple[str | None, str | None]]

    @property
    def equal(self) -> bool:
        """Whether the runs did the same."""
        return self.event is None

    def to_json(self) -> JSON:
        """The object that `diff --json` prints; places count from 0, lines and turns from 1."""
        event, token = self.event, self.token
        return {
            "runs": [self.left, self.right],
            "equal": self.equal,
            "first_event": event and {
                "index": event.index,
                "fields": list(event.fields),
                "left": _place(event.left),
                "right": _place(event.right),
            },
            "first_token": token and {
                "reply": token.reply,
                "experiment": token.experiment,
                "turn": token.turn,
                "position": token.position,
                "left": token.left,
                "right": token.right,
            },
            "events_compared": self.events_compared,
            "tokens_compared": self.tokens_compared,
            "given": {key: list(pair) for key, pair in self.given.items()},
        }  # fmt: skip


def diverged(left: str, right: str, output: Path) -> Divergence:
    """Compare the runs that two sources mean. Raises RecordError where one is no event log of a run."""
    logs = []
    for source in (left, right):
        path = find_source(source, output)
        if not is_event_log(path):
            raise RecordError(
                f"{shell_path(path)}: no event log, so no ids to compare; give a run directory or its"
                " events.jsonl"
            )
        logs.append(read_events(path))
    return divergence(left, logs[0], right, logs[1])


def divergence(left: str, left_log: EventLog, right: str, right_log: EventLog) -> Divergence:
    """Compare two records event by event, and reply by reply."""
    a, b = compared_events(left_log), compared_events(right_log)
    event, events = _first_event(a, b)
    token, tokens = _first_token(_replies(a), _replies(b))
    return Divergence(
        left=left,
        right=right,
        event=event,
        token=token,
        events_compared=events,
        tokens_compared=tokens,
        given=_given(a, b),
    )


def contents(event: Event) -> JSON:
    """What an event says of what a run did, by field, as plain values."""
    if isinstance(event, ev.RunEnd):
        return {"status": event.status}
    if isinstance(event, ev.Audit):
        return {name: getattr(event, name) for name in AUDIT_VERDICT}
    names = _READ if isinstance(event, ev.RunStart) else [each.name for each in fields(event)]
    said = {name: getattr(event, name) for name in names if name not in _TIMES}
    if isinstance(event, ev.RunStart):
        # A document is its contents, wherever it lay; its hash stands for them.
        said["documents"] = [
            {key: value for key, value in row.items() if key not in ("file", "text")}
            for row in event.documents
        ]
    return said


def _first_event(a: Sequence[ReadEvent], b: Sequence[ReadEvent]) -> tuple[EventDifference | None, int]:
    """The first events that differ, and how many are the same before them."""
    count = 0
    for left, right in event_pairs(a, b):
        if left is None or right is None or left.event.event != right.event.event:
            return EventDifference(count, left, right, ()), count
        one, other = (contents(read.event) for read in (left, right))
        differing = tuple(name for name in one if not same(one[name], other[name]))
        if differing:
            return EventDifference(count, left, right, differing), count
        count += 1
    return None, count


def same(left: Any, right: Any) -> bool:
    """Whether two recorded values are the same; NaN is NaN, and 1 is neither True nor 1.0."""
    pairs = [(left, right)]
    while pairs:
        one, other = pairs.pop()
        if isinstance(one, dict) and isinstance(other, dict):
            if one.keys() != other.keys():
                return False
            pairs += [(one[key], other[key]) for key in one]
        elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
            if len(one) != len(other):
                return False
            pairs += zip(one, other, strict=True)
        elif type(one) is not type(other) or (one != other and not (one != one and other != other)):
            return False
    return True


def _replies(events: Iterable[ReadEvent]) -> list[ev.Generation]:
    return [read.event for read in events if isinstance(read.event, ev.Generation)]


def _first_token(
    a: Sequence[ev.Generation], b: Sequence[ev.Generation]
) -> tuple[TokenDifference | None, int]:
    """The first id that differs, and how many are the same before it."""
    compared = 0
    for number in range(max(len(a), len(b))):
        one = a[number] if number < len(a) else None
        other = b[number] if number < len(b) else None
        left, right = (() if reply is None else reply.token_ids for reply in (one, other))
        shared = next((i for i, (x, y) in enumerate(zip(left, right, strict=False)) if x != y), None)
        if shared is None:
            shared = min(len(left), len(right))
        compared += shared
        there = one or other
        if there is not None and shared < max(len(left), len(right)):
            ids = [ids[shared] if shared < len(ids) else None for ids in (left, right)]
            texts = ["" if reply is None else reply.text for reply in (one, other)]
            return TokenDifference(
                reply=number,
                experiment=there.experiment,
                turn=there.turn,
                position=shared,
                left=ids[0],
                right=ids[1],
                left_text=texts[0],
                right_text=texts[1],
            ), compared
    return None, compared


def _given(a: Sequence[ReadEvent], b: Sequence[ReadEvent]) -> dict[str, tuple[str | None, str | None]]:
    """What the runs were given that is not the same, by dotted key, each as JSON has it."""
    starts = [next((r.event for r in run if isinstance(r.event, ev.RunStart)), None) for run in (a, b)]
    left, right = ({} if start is None else _given_to(start) for start in starts)
    return {
        key: (left.get(key), right.get(key))
        for key in dict.fromkeys([*left, *right])
        if left.get(key) != right.get(key)
    }


def _given_to(start: ev.RunStart) -> dict[str, str]:
    apart = {*_READ, "settings", "environment", "utc_offset"}
    named = {each.name: getattr(start, each.name) for each in fields(start) if each.name not in apart}
    # How much memory was free is measured, as times are.
    ran_on = {key: value for key, value in start.environment.items() if key != "memory"}
    return as_json(dotted(named) | dotted(start.settings) | dotted(ran_on, "environment"))


def _place(read: ReadEvent | None) -> JSON | None:
    if read is None:
        return None
    event = read.event
    where = {name: getattr(event, name) for name in ("experiment", "turn") if hasattr(event, name)}
    return {"event": event.event, "line": read.line, **where}
