"""What audits cost in a run: `python scripts/audit_cost.py RUN`, as a Markdown table."""

from __future__ import annotations

import sys
from pathlib import Path

from introspect.events import Audit, Generation, Prefill, Prune, RunStart
from introspect.runlog.reader import read_events


def main() -> None:
    events = [read.event for read in read_events(Path(sys.argv[1]) / "events.jsonl").events]
    start = next(e for e in events if isinstance(e, RunStart))
    turns = [e for e in events if isinstance(e, Generation)]
    turn_seconds = sum(e.seconds for e in turns)
    decoded = sum(len(e.token_ids) for e in turns)
    prefills = [e for e in events if isinstance(e, Prefill)]
    prefill_seconds = sum(e.seconds for e in prefills)
    environment = start.environment
    conditions = ", ".join(f"{key} {environment[key]}" for key in ("device", "dtype", "threads", "attention"))
    print(f"{start.model}; {conditions}; prefill in chunks of at most {environment['prefill_chunk']}\n")
    print("| what | figure |\n| --- | --- |")
    print(f"| turns, prunes | {len(turns)}, {sum(isinstance(e, Prune) and not e.refused for e in events)} |")
    print(f"| system prompt | {start.system_tokens} tokens |")
    fed = sum(len(e.token_ids) for e in prefills)
    print(f"| prefill | {fed} tokens, {prefill_seconds:.1f} s, {fed / prefill_seconds:.0f} tokens/s |")
    decode_seconds = turn_seconds - prefill_seconds
    print(
        f"| decode | {decoded} tokens, {decode_seconds:.1f} s, {decode_seconds / decoded:.3f} s per token |"
    )
    for level in ("e0", "e1", "e2"):
        made = [e for e in events if isinstance(e, Audit) and e.level == level and not e.skipped]
        skipped = sum(isinstance(e, Audit) and e.level == level and bool(e.skipped) for e in events)
        if made or skipped:
            seconds = sum(e.seconds for e in made)
            each = seconds / len(made) if made else 0.0
            failed = sum(bool(e.codes) for e in made)
            print(
                f"| {level} | {len(made)} made, {failed} failed, {skipped} skipped; {each:.4f} s each,"
                f" {seconds / turn_seconds:.2%} of turn time |"
            )


if __name__ == "__main__":
    main()
