"""Text logs in the form that other programs' logs have, built without the code under test."""

from __future__ import annotations

RULE = "=" * 80


def log_of(*replies: str, logger: str = "phase1a") -> str:
    """A log in the seed's format: one session, a turn and a monitor's warning for each reply, one prune."""
    messages = [("INFO", RULE), ("INFO", "PHASE 1a: Baseline"), ("INFO", RULE)]
    messages += [("INFO", "[INITIALIZATION] Loading model"), ("WARNING", "[GPU MONITOR] 12.6 GiB in use")]
    for turn, reply in enumerate(replies):
        if turn == 2:
            messages.append(("WARNING", "[MEMORY MANAGEMENT] Pruning needed: turn count (3 >= 3)"))
            messages.append(("INFO", "[MEMORY MANAGEMENT] Reset conversation, keeping last 2 turns"))
        messages.append(("INFO", f"\n[GENERATION] Generated {40 + turn} tokens, cache used: {turn > 0}"))
        messages.append(("INFO", f"\n[MODEL] {reply}"))
        messages.append(("WARNING", "[GPU MONITOR] 12.6 of 14.7 GiB in use"))
        messages.append(("INFO", f'TOOL_RESULTS:\n{{\n  "layers": {turn}\n}}'))
    return "".join(
        f"2025-11-10 21:{40 + count // 60:02d}:{count % 60:02d},120 - {logger} - {level} - {message}\n"
        for count, (level, message) in enumerate(messages)
    )
