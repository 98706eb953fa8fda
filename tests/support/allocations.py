"""How much memory some work takes, as torch's profiler counts its allocations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile


def peak_bytes(work: Any) -> int:
    """The most bytes at a time of what the work itself has allocated.

    What was there before may be given back in the midst of it, by a cache that forgets or a collection: that
    is none of it, so each return is held against the allocation of its address.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        work()
    made: dict[int, int] = {}
    live = most = 0
    for event in sorted(_allocations(record), key=lambda each: each.start_time_ns):
        place, size = event.extra_fields.ptr, event.extra_fields.alloc_size
        if size > 0:
            made[place] = size
            live += size
            most = max(most, live)
        else:
            live -= made.pop(place, 0)
    return most


def _allocations(record: Any) -> Iterator[Any]:
    nodes = [*record.profiler.kineto_results.experimental_event_tree()]
    while nodes:
        node = nodes.pop()
        nodes += node.children
        if node.tag == _EventType.Allocation:
            yield node
