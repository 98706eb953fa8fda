"""Which documents the tiny model reads: `scripts/document_table.py --out data/benchmarks/documents.md`.

Runs every shipped phase with several seeds through the product's own loop. A document counts as read where
a call of read_heritage_document for it succeeded. A name counts as mangled where the model writes, in a call
or in its report, something like the id of an offered document that is not that id.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from evaluate_tiny import executed

from introspect import events
from introspect.phase.load import load_phase

PHASES = ("phase1a", "phase1b", "phase1c", "phase1d", "phase1e")
LIKE = 0.6
"""Likeness, by difflib, from which a word with a hyphen is meant as an id: the four shipped ids are at most
0.68 alike, `how-transformers-ute` is 0.91 like the id that it was meant for."""


@dataclass(frozen=True)
class Reading:
    """What one run did with its documents."""

    phase: str
    seed: int
    offered: tuple[str, ...]
    read: tuple[str, ...]
    mangled: tuple[str, ...]
    malformed: int
    failed_calls: int
    corrupt: int
    status: str
    turns: int


def reading(task: tuple[str, str, int]) -> Reading:
    """Run a phase with a model and a seed, and look at what it read."""
    phase, model, seed = task
    return reading_of(phase, seed, *executed((phase, model, seed, False, None)))


def reading_of(
    phase: str, seed: int, stream: list[events.Event], summary: dict[str, Any], corrupt: int
) -> Reading:
    """What a run did with its documents, from its events."""
    settings = load_phase(phase)
    offered = tuple(dict.fromkeys(name for e in settings.experiments for name in settings.documents_of(e)))
    read: dict[str, None] = {}
    mangled: list[str] = []
    for event in stream:
        if isinstance(event, events.Generation):
            mangled += mangled_names(event.text, offered)
        elif isinstance(event, events.ToolResult) and event.function == "read_heritage_document" and event.ok:
            read[event.result["document"]] = None
    calls = summary["tool_calls"]
    return Reading(
        phase,
        seed,
        offered,
        tuple(read),
        tuple(mangled),
        calls["malformed"],
        calls["total"] - calls["ok"] - calls["malformed"],
        corrupt,
        summary["status"],
        summary["turns"],
    )


def mangled_names(text: str, offered: tuple[str, ...]) -> list[str]:
    """Words of a text that are meant as ids of offered documents and are none."""
    words = (word.strip(".") for word in re.findall(r"[^\s\"',:{}\[\]]+", text))
    return [
        word
        for word in words
        if "-" in word and word not in offered and difflib.get_close_matches(word, offered, 1, LIKE)
    ]


def table(readings: list[Reading]) -> str:
    """The page with the figures."""
    lines = [
        "# Documents that the tiny model reads",
        "",
        "`scripts/document_table.py --out data/benchmarks/documents.md`: every shipped phase on the tiny",
        "model, temperature 0.7, top-p 0.95, fp32, one thread. *Read*: documents with a call that succeeded,",
        "of those offered in the phase. *Mangled*: names that the model wrote, in calls or reports, that are",
        "like the id of an offered document and are not it. *Corrupt*: what `replay` finds in the record.",
        "",
        "| phase | seed | read | mangled | malformed replies | failed calls | corrupt | status | turns |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in readings:
        lines.append(
            f"| {r.phase} | {r.seed} | {len(r.read)} of {len(r.offered)} | {len(r.mangled)} | {r.malformed}"
            f" | {r.failed_calls} | {r.corrupt} | {r.status} | {r.turns} |"
        )
    lines += [
        "",
        f"Together: {sum(len(r.read) for r in readings)} of {sum(len(r.offered) for r in readings)} documents"
        f" read, names mangled: {sum(len(r.mangled) for r in readings)},"
        f" {sum(r.status == 'complete' for r in readings)} of {len(readings)} runs complete.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Count the documents that the tiny model reads.")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--phases", nargs="+", default=PHASES)
    parser.add_argument("--seeds", type=int, default=5, help="how many runs of each phase")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--out", type=Path, help="write the page there")
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    tasks = [(phase, arguments.model, seed) for phase in arguments.phases for seed in seeds]
    readings: list[Reading] = []
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        for result in pool.map(reading, tasks):
            readings.append(result)
            print(result, file=sys.stderr, flush=True)
    page = table(readings)
    print(page)
    if arguments.out:
        arguments.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
