"""Of a record, what the loop of its run gave: the events that a run which goes on gives again, or adds to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from introspect import events as ev
from introspect.events import JSON, Event
from introspect.runlog.codec import to_plain_record
from introspect.runlog.reader import ReadEvent
from introspect.tally import common_prefix

NOT_SHARED = "note-not-shared"
"""The code of a warning that comes from beside the loop, whenever it comes."""
_FROM_BESIDE = (ev.RunStart, ev.RunResumed, ev.RunEnd, ev.Error)
_NEVER_THE_SAME = frozenset({"seconds", "digest_seconds", "traceback", "failed_at"})
AUDIT_VERDICT = ("experiment", "turn", "level", "codes")
"""What an audit says of the run; how much of it was repeated, and at what cost, is of the day."""
_MOST_SHOWN = 60
_LONGEST_RUN = 1e12
"""Seconds, some thirty thousand years: what a record says beyond it is no length of a run."""
# What is compared first of an event, the nearest to a cause before what follows from it.
_CAUSES = dict.fromkeys(
    ("prompt_tokens", "cached_tokens", "start", "token_ids", "logits_digest", "state_digest")
)


def loop_events(record: Iterable[tuple[int, Event]]) -> list[tuple[int, Event]]:
    """The events of a record that its loop gave, in their order, each with its line."""
    made: list[tuple[int, Event]] = []
    begun = False
    for line, event in record:
        begun = begun or isinstance(event, ev.ExperimentStart)
        beside = isinstance(event, ev.Warning) and (not begun or event.code == NOT_SHARED)
        if not beside and not isinstance(event, _FROM_BESIDE):
            made.append((line, event))
    return made


def first_warnings(record: Iterable[Event]) -> list[ev.Warning] | None:
    """The warnings before the first experiment; None where that has not begun: some may be missing."""
    warnings: list[ev.Warning] = []
    for event in record:
        if isinstance(event, ev.ExperimentStart):
            return warnings
        if isinstance(event, ev.Warning):
            warnings.append(event)
    return None


def has_ended(record: Iterable[Event]) -> ev.RunEnd | None:
    """The end of a run that has nothing left to do; None where it broke off, by a signal or by a crash."""
    end: ev.RunEnd | None = None
    crashed = False
    for event in record:
        end = event if isinstance(event, ev.RunEnd) else None
        crashed = isinstance(event, ev.Error) or (crashed and not isinstance(event, ev.RunResumed))
    return None if end is None or crashed or end.status == "interrupted" else end


def seconds_used(record: Iterable[ReadEvent]) -> float:
    """Seconds in which somebody was at work on a run: its parts, without the time between them."""
    used, began, last = 0.0, 0.0, 0.0
    for read in record:
        now = datetime.fromisoformat(read.time.replace("Z", "+00:00")).timestamp()
        if isinstance(read.event, (ev.RunStart, ev.RunResumed)):
            used, began = used + max(0.0, last - began), now
        last = now
    return used + max(0.0, last - began)


def said_seconds(end: ev.RunEnd) -> float | None:
    """Seconds that a run took, as its end says; None where that is no number that a clock can give."""
    said = end.summary.get("seconds")
    if isinstance(said, bool) or not isinstance(said, int | float):
        return None
    return float(said) if 0 <= said < _LONGEST_RUN else None


def run_seconds(record: Sequence[ReadEvent]) -> float:
    """Seconds that a run took: as its end says them; of a run that has none, those that its record shows."""
    last = record[-1].event if record else None
    said = said_seconds(last) if isinstance(last, ev.RunEnd) else None
    return seconds_used(record) if said is None else said


@dataclass(frozen=True)
class Difference:
    """A field in which an event that was made again is another; `place` is that in a list, None elsewhere.

    `recorded` and `made` are what stands there, cut where it is long.
    """

    name: str
    recorded: Any
    made: Any
    place: int | None = None


def first_difference(made: Event, recorded: Event) -> Difference | None:
    """How an event that was made again differs from the recorded one; None where it does not.

    Times never count, nor what an audit says beside its level and its codes. What is nearest to the cause is
    told first: ids, then what was computed of them.
    """
    if made is recorded:
        return None
    if made.event != recorded.event:
        return Difference("event", place_of(recorded), place_of(made))
    one, other = _compared(made), _compared(recorded)
    names = [*(name for name in _CAUSES if name in other), *sorted(one.keys() - _CAUSES.keys())]
    for name in names:
        was, now = other.get(name), one.get(name)
        if was == now:
            continue
        if isinstance(was, list) and isinstance(now, list):
            place = common_prefix(was, now)
            return Difference(name, _cut(was[place : place + 1]), _cut(now[place : place + 1]), place)
        return Difference(name, _cut(was), _cut(now))
    return None


def difference(made: Event, recorded: Event) -> str | None:
    """The same in words."""
    found = first_difference(made, recorded)
    if found is None:
        return None
    if found.name == "event":
        return f"{found.made} comes in its place"
    where = "" if found.place is None else f" at {found.place}"
    return f"its {found.name}{where} is {found.recorded!r} in the record and {found.made!r} now"


def place_of(event: Event) -> str:
    """An event in words: its kind, and where in the run it stands."""
    number = getattr(event, "experiment", None)
    turn = getattr(event, "turn", None)
    where = "" if number is None else f" of experiment {number + 1}"
    where = f" in turn {turn}{where}" if turn else where
    return f"the {event.event}{where}"


def _compared(event: Event) -> JSON:
    record = to_plain_record(event)
    if isinstance(event, ev.Audit):
        return {name: record[name] for name in AUDIT_VERDICT}
    return {name: value for name, value in record.items() if name not in _NEVER_THE_SAME}


def _cut(value: Any) -> Any:
    """A value as it is told: the first characters of what is long."""
    text = value if isinstance(value, str) else repr(value)
    return value if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
