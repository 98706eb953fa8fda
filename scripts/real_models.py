"""What models that were not trained for this do in a phase: `data/benchmarks/real-models.md`.

    scripts/real_models.py MODEL_DIR... --limit 1     # free and constrained, greedy and two seeds
    scripts/real_models.py MODEL_DIR --condition free --seeds greedy --set limits.max_seconds=600
    scripts/real_models.py MODEL_DIR --condition native=dialect=native,generation.constrain=none
    scripts/real_models.py                            # the page again, from the records

Each run is a process of the command line and leaves its record under `--runs`; the page is made from all
records there, of runs of the same model, phase, settings and seed from the newest. So a page grows by a model
at a time, on whatever machine has it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from introspect import events as ev
from introspect.commands.summary import constraint_in_words
from introspect.errors import IntrospectError
from introspect.events import JSON, Event
from introspect.readers.replay import load
from introspect.runlog.reader import EVENTS, read_events
from introspect.tally import Tally

ROOT = Path(__file__).resolve().parent.parent
CONDITIONS = {
    "free": ("generation.constrain=none",),
    "constrained": ("generation.constrain=calls",),
}
"""Settings of the conditions that are known by name."""
GREEDY = "greedy"
COLUMNS = (
    "model",
    "dialect",
    "replies",
    "seed",
    "status",
    "turns",
    "valid calls",
    "distinct tools",
    "prunes",
    "misses",
    "tokens/s",
    "audits",
    "garbled",
)


@dataclass(frozen=True)
class Row:
    """A run: what tells it from others, and its cells in the order of COLUMNS."""

    key: tuple[str, ...]
    written: str
    phase: str
    machine: str
    cells: tuple[str, ...]


def settings_of(condition: str) -> tuple[str, ...]:
    """The `--set` arguments of a condition: a name that is known, or `name=key=value,key=value`."""
    name, _, given = condition.partition("=")
    if given:
        return tuple(given.split(","))
    if name not in CONDITIONS:
        raise SystemExit(
            f"--condition {name}: known are {', '.join(CONDITIONS)}; or write {name}=KEY=VALUE,…"
        )
    return CONDITIONS[name]


def command(
    model: Path, condition: str, seed: str, phase: str, runs: Path, limit: int | None, more: Iterable[str]
) -> list[str]:
    """The command line of one run."""
    settings = [*settings_of(condition), *more]
    if seed == GREEDY:
        settings.append("generation.temperature=0")
    line = [sys.executable, "-m", "introspect", "run", phase, "--model", str(model), "--force", "--quiet"]
    line += ["--seed", "0" if seed == GREEDY else seed, "--output", str(runs)]
    line += [] if limit is None else ["--limit", str(limit)]
    for setting in settings:
        line += ["--set", setting]
    return line


def row_of(directory: Path, runs: Path) -> Row | None:
    """A run's row, from its record alone; None of a directory that holds no record of a run."""
    try:
        stream = [read.event for read in read_events(directory / EVENTS).events]
        findings = load(str(directory), runs).findings
    except (IntrospectError, OSError):
        return None
    start = next((event for event in stream if isinstance(event, ev.RunStart)), None)
    if start is None:
        return None
    environment, generation = start.environment, start.settings["generation"]
    model = f"{Path(start.model).name} {environment['weight_hash'][:6]}, {environment['dtype']}"
    greedy = not generation["temperature"]
    constrain = constraint_in_words({"constrain": "none", **environment})
    seed = GREEDY if greedy else str(start.seed)
    dialect = _dialect(start)
    end = stream[-1]
    ended = end.status if isinstance(end, ev.RunEnd) else "open"
    garbled = [finding for finding in findings if finding.severity == "corrupt"]
    cells = (
        model,
        dialect,
        "free" if constrain == "none" else f"constrained: {constrain}",
        seed,
        ended,
        *counted(stream),
        str(len(garbled)) if garbled else "no",
    )
    threads = f"{environment['threads']} thread" + ("s" if environment["threads"] != 1 else "")
    known = (start.phase, model, dialect, constrain, seed, json.dumps(start.settings["experiments"]))
    return Row(known, directory.name, start.phase, f"{environment['device']}, {threads}", cells)


def counted(stream: Sequence[Event]) -> tuple[str, ...]:
    """The cells from `turns` to `audits`, counted from a run's events."""
    tally = Tally.of(stream)
    good = {event.function for event in stream if isinstance(event, ev.ToolResult) and event.ok}
    audits = tally.audits
    made = ", ".join(f"{level} {audits[level]}" for level in ("e0", "e1", "e2"))
    rate = tally.tokens_per_second
    return (
        str(tally.turns),
        f"{tally.calls_ok} of {tally.calls}",
        str(len(good)),
        str(tally.prunes),
        ", ".join(f"{kind} {count}" for kind, count in misses(stream).most_common()) or "none",
        "" if rate is None else f"{rate:.1f}",
        f"{made}; skipped {audits['skipped']}, failed {audits['failed']}",
    )


def misses(stream: Iterable[Event]) -> Counter[str]:
    """Replies that neither called a tool nor completed, by the code of what was said to them."""
    found: Counter[str] = Counter()
    warned = ""
    for event in stream:
        if isinstance(event, ev.UserMessage) and event.kind == "feedback":
            found[warned] += 1
        warned = event.code if isinstance(event, ev.Warning) else ""
    return found


def _dialect(start: ev.RunStart) -> str:
    """The dialect that the record says was taken; records from before there were several say none."""
    said: JSON | str | None = start.environment.get("dialect")
    return str((said.get("name") if isinstance(said, dict) else said) or "own")


def page(rows: Sequence[Row]) -> str:
    """The page, with the newest row of each key."""
    newest = {row.key: row for row in sorted(rows, key=lambda row: row.written)}
    lines = [
        "# What other models do",
        "",
        "`scripts/real_models.py MODEL_DIR...`: models that were not trained for this, in phases that they",
        "read for the first time, each figure from the record of its run. *Valid calls*: calls with a result",
        "that is no error, of all calls and replies in which neither a call nor a completion could be read.",
        "*Distinct tools*: those with such a result. *Misses*: these replies, by what was said to them.",
        "*Audits*: checks of the cached state that were made. *Garbled*: what `replay` calls corrupt.",
        "A constrained experiment concludes in the last reply that its limits leave, if it has not before.",
    ]
    for phase in sorted({row.phase for row in newest.values()}):
        of_phase = sorted((row for row in newest.values() if row.phase == phase), key=lambda row: row.key)
        machines = "; ".join(sorted({row.machine for row in of_phase}))
        lines += ["", f"## {phase}", "", f"On {machines}.", ""]
        lines += [f"| {' | '.join(COLUMNS)} |", "|" + " --- |" * len(COLUMNS)]
        lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row.cells)} |" for row in of_phase]
    return "\n".join([*lines, ""])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run a phase with models and make a page of what they did.")
    parser.add_argument("models", nargs="*", type=Path, help="directories or GGUF files")
    parser.add_argument("--condition", action="append", help="free, constrained, or NAME=KEY=VALUE,KEY=VALUE")
    parser.add_argument("--seeds", default=f"{GREEDY},0,1", help=f"numbers, or '{GREEDY}'")
    parser.add_argument("--phase", default="phase1a")
    parser.add_argument("--limit", type=int, help="experiments of the phase")
    parser.add_argument("--set", action="append", default=[], help="a setting of every run")
    parser.add_argument("--runs", type=Path, default=ROOT / "data" / "runs" / "real-models")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "benchmarks" / "real-models.md")
    options = parser.parse_args(arguments)
    worst = 0
    for model in options.models:
        for condition in options.condition or list(CONDITIONS):
            for seed in options.seeds.split(","):
                line = command(
                    model, condition, seed, options.phase, options.runs, options.limit, options.set
                )
                print(f"{model.name}: {condition}, seed {seed}", file=sys.stderr, flush=True)
                code = subprocess.run(line, stdout=subprocess.DEVNULL, env=os.environ).returncode
                # A run that failed has a record and a row; one that was never begun has none.
                worst = max(worst, code if code not in (0, 1) else 0)
    found = (row_of(directory, options.runs) for directory in sorted(options.runs.glob("*")))
    options.out.write_text(page([row for row in found if row is not None]), encoding="utf-8")
    return worst


if __name__ == "__main__":
    sys.exit(main())
