"""Measure the tiny model: `python scripts/evaluate_tiny.py --seeds 50 --scrambled`.

Runs phase1a (or another phase) with different seeds through the product's own loop and reports how many runs
complete, how many replies are usable, and how many of the quoted numbers are right. With --scrambled every
number of every tool result is replaced by a fresh random one, so that nothing can be recited.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tiny.invention import scrambled_tools

from introspect import events
from introspect.execution.opening import open_run
from introspect.execution.options import RunOptions
from introspect.execution.preparation import prepare
from introspect.phase.load import load_phase
from introspect.readers.quoted_figures import quotes, report_of
from introspect.readers.replay import load
from introspect.tools.calls.actions import Unusable
from introspect.tools.calls.parsing import parse_reply

SCRAMBLE_SEEDS = 700_000
"""Seeds of the replaced numbers; training, held-out runs and the tokenizer use others."""


def executed(
    task: tuple[str, str, int, bool, float | None],
) -> tuple[list[events.Event], dict[str, Any], int]:
    """A run of (phase, model, seed, scrambled, temperature): its events and summary, `corrupt` findings."""
    phase, model, seed, scrambled, temperature = task
    torch.set_num_threads(1)
    overrides: dict[str, Any] = {"model.id": model, "model.revision": None, "generation.seed": seed}
    if temperature is not None:
        overrides["generation.temperature"] = temperature
    with TemporaryDirectory() as folder:
        settings, options = load_phase(phase, overrides), RunOptions(Path(folder), force=True)
        prepared = prepare(settings, options)
        if scrambled:
            rng = random.Random(SCRAMBLE_SEEDS + seed)
            prepared = replace(prepared, tools=scrambled_tools(prepared.tools, rng))
        run = open_run(prepared, lambda: False)
        stream: list[events.Event] = []
        summary = run.execute(stream.append)
        findings = load(summary["run"], Path(folder)).findings
    return stream, summary, sum(finding.severity == "corrupt" for finding in findings)


def evaluate_run(task: tuple[str, str, int, bool, float | None]) -> Counter[str]:
    """Counts of one run."""
    stream, summary, corrupt = executed(task)
    counts: Counter[str] = Counter({"runs": 1, "corrupt findings": corrupt})
    counts["complete"] = summary["status"] == "complete"
    tools = {event.function for event in stream if isinstance(event, events.ToolResult) and event.ok}
    counts["complete with 4 tools"] = summary["status"] == "complete" and len(tools) >= 4
    for key in ("prunes", "turns"):
        counts[key] = summary[key]
    counts["prefilled"], counts["minimum"] = summary["tokens"]["prefilled"], summary["tokens"]["minimum"]
    counts["calls"], counts["calls ok"] = summary["tool_calls"]["total"], summary["tool_calls"]["ok"]
    return counts + _quoted(stream)


def _quoted(stream: list[events.Event]) -> Counter[str]:
    """Replies that are usable, and quoted numbers that are right, before and after the first prune."""
    counts: Counter[str] = Counter()
    result: Any = None
    pruned = False
    for event in stream:
        if isinstance(event, events.ExperimentStart):
            result, pruned = None, False
        elif isinstance(event, events.Prune):
            pruned = pruned or bool(event.dropped_messages)
        elif isinstance(event, events.ToolResult):
            result = event.result
        elif isinstance(event, events.Generation):
            counts["replies"] += 1
            counts["usable replies"] += not isinstance(parse_reply(event.text, False, 0), Unusable)
            when = "after a prune" if pruned else "before a prune"
            for quote in quotes(report_of(event.text), result):
                counts[f"numbers {when}"] += 1
                counts[f"found {when}"] += quote.found
                counts[f"right {when}"] += quote.found and quote.named
    return counts


def summarised(counts: Counter[str]) -> dict[str, Any]:
    """The figures that the card states."""
    numbers = counts["numbers before a prune"] + counts["numbers after a prune"]
    right = counts["right before a prune"] + counts["right after a prune"]
    found = counts["found before a prune"] + counts["found after a prune"]
    return {
        "runs": counts["runs"],
        "complete": counts["complete"],
        "complete_with_4_tools": counts["complete with 4 tools"],
        "replies": counts["replies"],
        "usable_replies": round(counts["usable replies"] / counts["replies"], 4),
        "numbers_quoted": numbers,
        "numbers_after_a_prune": counts["numbers after a prune"],
        "numbers_right": round(right / numbers, 4),
        "numbers_in_the_result": round(found / numbers, 4),
        "numbers_right_after_a_prune": round(
            counts["right after a prune"] / max(1, counts["numbers after a prune"]), 4
        ),
        "prunes": counts["prunes"],
        "turns": counts["turns"],
        "calls_ok": round(counts["calls ok"] / counts["calls"], 4),
        "token_economy": counts["prefilled"] / counts["minimum"],
        "corrupt_findings": counts["corrupt findings"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the tiny model.")
    parser.add_argument("--phase", default="phase1a")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--seeds", type=int, default=50, help="how many runs, with seeds from 0 up")
    parser.add_argument("--scrambled", action="store_true", help="replace every number of every tool result")
    parser.add_argument("--temperature", type=float, help="in place of the phase's")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    arguments = parser.parse_args()
    total: Counter[str] = Counter()
    tasks = [
        (arguments.phase, arguments.model, seed, arguments.scrambled, arguments.temperature)
        for seed in range(arguments.seeds)
    ]
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        for done, counts in enumerate(pool.map(evaluate_run, tasks), start=1):
            total += counts
            print(f"\r{done} of {len(tasks)} runs", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(json.dumps(summarised(total), indent=2))


if __name__ == "__main__":
    main()
