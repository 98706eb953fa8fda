"""Events, logs and a document for the tests of records, built here and not by the code under test."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from introspect import events as ev
from introspect.runlog.writer import RunWriter

START = datetime(2025, 11, 10, 20, 47, 45, 29_000, tzinfo=UTC)

GARBLED = '      "nonrozen_parameters": 0,\n"selfwen2LayerCausalLM": 1,\n"Embedwen2For": 1,\n"Qding": 1,'
CALL = '{"reasoning": "summary", "tool_call": {"function": "get_architecture_summary", "arguments": {}}}'
PROSE = "Based on the summary the model has 36 layers and 434 tensors. Next the weights.\n\n"
GOOD = PROSE + CALL

DOCUMENT = """# Investigation

**Date:** November 10, 2025

The onset is known (21:47:45.029 → 21:47:59.785).

```python
print("Line 12: not a record of a log")
```

```
Line 789: [GENERATION] Generated 314 tokens, cache used: True
          [MODEL] Based on the get_architecture_summary result... (COHERENT)

Line 819: [MEMORY MANAGEMENT] Pruning needed in tool loop
Line 820: [MEMORY MANAGEMENT] Clearing cache and keeping last 2 turns
Line 821: [MEMORY MANAGEMENT] Reset conversation, keeping last 2 turns

Line 825: [GENERATION] Generated 175 tokens, cache used: True
Line 826: [MODEL]       "nonrozen_parameters": 0,    <-- GARBLED!
                      "selfwen2LayerCausalLM": 1,
                      "Embedwen2For": 1,
                      "Qding": 1,
```

The rest is prose.
"""


def ticking_clock(step: float = 0.5) -> Callable[[], datetime]:
    """A clock that goes on by `step` seconds each time it is read."""
    count = iter(range(10**9))
    return lambda: START + timedelta(seconds=step * next(count))


def run_start(**changes: Any) -> ev.RunStart:
    values: dict[str, Any] = {
        "schema": ev.SCHEMA_VERSION,
        "phase": "phase1a",
        "title": "Baseline",
        "model": "tiny",
        "seed": 0,
        "utc_offset": 60,
        "system_prompt": "You examine yourself.",
        "system_tokens": 612,
        "environment": {},
        "settings": {},
    }
    return ev.RunStart(**(values | changes))


def generation(text: str, turn: int = 1, tokens: int = 3, **changes: Any) -> ev.Generation:
    values: dict[str, Any] = {
        "experiment": 0,
        "turn": turn,
        "prompt_tokens": 700,
        "cached_tokens": 612,
        "token_ids": tuple(range(tokens)),
        "text": text,
        "finish_reason": "stop",
        "seconds": 0.5,
        "logprobs": (-0.5,) * tokens,
        "top_logits": {"first": [(1, 2.5)], "last": [(2, 1.5)]},
        "logits_digest": "00",
        "state_digest": ("00",),
        "decode_path": "one",
        "max_new_tokens": 400,
    }
    return ev.Generation(**(values | changes))


def prune(turn: int = 3, **changes: Any) -> ev.Prune:
    values: dict[str, Any] = {
        "experiment": 0,
        "turn": turn,
        "reasons": ("token count (2345 > 2000)", "turn count (3 >= 3)"),
        "dropped_messages": (1, 2),
        "dropped_turns": 1,
        "shortened_messages": (),
        "kept_turns": 2,
        "cached_before": 2900,
        "cached_after": 612,
        "tokens_before": 2345,
        "tokens_after": 1400,
        "memory_note": "MEMORY: older turns were dropped",
    }
    return ev.Prune(**(values | changes))


def conversation(*replies: str, prune_before: int | None = None) -> list[ev.Event]:
    """A run's events after its start: a task, a turn for each reply, a prune before that reply, the end."""
    events: list[ev.Event] = [
        ev.ExperimentStart(experiment=0, name="architecture", task="Examine your architecture."),
        ev.UserMessage(experiment=0, turn=0, kind="task", text="Examine your architecture."),
    ]
    for turn, text in enumerate(replies, 1):
        if turn - 1 == prune_before:
            events.append(prune(turn))
        events += [
            ev.Prefill(
                experiment=0, turn=turn, start=612, token_ids=tuple(range(89)), chunks=(89,), seconds=0.1
            ),
            generation(text, turn),
            ev.ToolCall(
                experiment=0,
                turn=turn,
                function="get_architecture_summary",
                arguments={"part": turn},
                reasoning="the summary first",
            ),
            ev.ToolResult(
                experiment=0,
                turn=turn,
                function="get_architecture_summary",
                ok=True,
                result={"layers": 36},
                text='TOOL_RESULTS:\n{"layers": 36}',
                seconds=0.1,
            ),
            ev.Audit(experiment=0, turn=turn, level="e0", codes=(), detail="29 tensors"),
        ]
    events.append(
        ev.ExperimentEnd(
            experiment=0,
            name="architecture",
            status="complete",
            reason="the model is done",
            turns=len(replies),
            tool_calls=1,
        )
    )
    events.append(ev.RunEnd(status="complete", summary={"status": "complete"}))
    return events


def written(output: Path, events: Iterable[ev.Event], **start: Any) -> Path:
    """A run with these events, written by the writer; returns its directory."""
    with RunWriter.create(output, run_start(**start), {"seed": 0}, ticking_clock()) as writer:
        for event in events:
            writer.write(event)
        return writer.directory
