"""How much memory some work takes, as torch's profiler counts its allocations."""

from __future__ import annotations

import gc
from typing import Any

from torch.profiler import ProfilerActivity, profile


def peak_bytes(work: Any) -> int:
    """The most bytes that were allocated at a time during the work, above what there was before."""
    gc.collect()  # what others have left would be given back in the midst of the work, and count below nought
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        work()
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most
