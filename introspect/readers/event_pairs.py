"""Of two records the events that are compared, in pairs.

A run that was interrupted and went on is compared as the one run that it is. An audit that found nothing is
compared only with itself: whether one is made depends on what it costs, and that is of the day.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from introspect import events as ev
from introspect.runlog.reader import EventLog, ReadEvent

_MARKS = (ev.ExperimentStart, ev.UserMessage, ev.Prefill, ev.Generation, ev.ToolCall, ev.ToolResult, ev.Prune,
          ev.Audit, ev.Warning, ev.Error, ev.ExperimentEnd, ev.RunStart, ev.RunEnd)  # fmt: skip
"""Events that say what a run did; others, such as that it was taken up again, say how it came to it."""
_ENDS = (ev.RunEnd, ev.Error)


def compared_events(log: EventLog) -> list[ReadEvent]:
    """The events that say what a run did: without an end, or an error before it, after which it went on."""
    did = [read for read in log.events if isinstance(read.event, _MARKS)]
    goes_on = max((i for i, read in enumerate(did) if not isinstance(read.event, _ENDS)), default=0)
    return [read for i, read in enumerate(did) if i > goes_on or not isinstance(read.event, _ENDS)]


def event_pairs(
    a: Sequence[ReadEvent], b: Sequence[ReadEvent]
) -> Iterator[tuple[ReadEvent | None, ReadEvent | None]]:
    """The events of two runs in pairs, without the audits that found nothing and that only one run has."""
    i = j = 0
    while i < len(a) or j < len(b):
        left, right = (a[i] if i < len(a) else None), (b[j] if j < len(b) else None)
        checks = [_check(read) for read in (left, right)]
        if checks[0] != checks[1] and _is_sound(left):
            i += 1
        elif checks[0] != checks[1] and _is_sound(right):
            j += 1
        else:
            yield left, right
            i, j = i + 1, j + 1


def _check(read: ReadEvent | None) -> tuple[int, int, str] | None:
    """Of which turn, and of which level, an event is an audit."""
    event = read and read.event
    return (event.experiment, event.turn, event.level) if isinstance(event, ev.Audit) else None


def _is_sound(read: ReadEvent | None) -> bool:
    return read is not None and isinstance(read.event, ev.Audit) and not read.event.codes
