"""What audits cost in a run: `python scripts/audit_cost.py RUN`, as a Markdown table."""

from __future__ import annotations

import sys
from pathlib import Path

from introspect.events import Audit, Generation, Prefill, RunEnd, RunStart
from introspect.runlog.reader import read_events
from introspect.tally import Tally


def main() -> None:
    events = [read.event for read in read_events(Path(sys.argv[1]) / "events.jsonl").events]
    start = next(e for e in events if isinstance(e, RunStart))
    turns = [e for e in events if isinstance(e, Generation)]
    tally = Tally.of(events)
    prefills = [e for e in events if isinstance(e, Prefill)]
    prefill_seconds = sum(e.seconds for e in prefills)
    digest_seconds = sum(e.digest_seconds for e in turns)
    turn_seconds = prefill_seconds + tally.decode_seconds + digest_seconds
    environment = start.environment
    conditions = ", ".join(f"{key} {environment[key]}" for key in ("device", "dtype", "threads", "attention"))
    print(f"{start.model}; {conditions}; prefill in chunks of at most {environment['prefill_chunk']}\n")
    print("| what | figure |\n| --- | --- |")
    print(f"| turns, prunes | {len(turns)}, {tally.prunes} |")
    print(f"| system prompt | {start.system_tokens} tokens |")
    fed = tally.prefilled
    print(f"| prefill | {fed} tokens, {prefill_seconds:.1f} s, {fed / prefill_seconds:.0f} tokens/s |")
    rate = "" if tally.tokens_per_second is None else f", {1 / tally.tokens_per_second:.3f} s per token"
    print(f"| decode | {tally.generated} tokens, {tally.decode_seconds:.1f} s{rate} |")
    if digest_seconds:
        share = digest_seconds / turn_seconds
        print(f"| digests of K and V | {digest_seconds:.1f} s, {share:.2%} of turn time |")
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
    end = next((e for e in events if isinstance(e, RunEnd)), None)
    if end is not None:
        audits = sum(e.seconds for e in events if isinstance(e, Audit))
        whole = end.summary["seconds"]
        print(f"| all audits | {audits:.1f} s of a run of {whole:.1f} s, {audits / whole:.2%} |")


if __name__ == "__main__":
    main()
