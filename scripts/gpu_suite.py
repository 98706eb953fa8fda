"""All that a GPU is needed for, step by step, each with a time limit; see `scripts/gpu_suite`.

What fails or takes too long is on the page as well, and the next step is made.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpu_page import Done, page

ROOT = Path(__file__).resolve().parent.parent
ALL_SECONDS = 530.0
"""Of the nine minutes: what is left is for the page, and for processes to end."""


PATIENCE = 4.0
"""Times as long as on a GPU everything may take in a dry run."""


@dataclass(frozen=True)
class Step:
    """A command of the suite. Its arguments follow the interpreter's; it may take `limit` seconds."""

    name: str
    arguments: tuple[str, ...]
    limit: float


def steps(device: str, runs: Path) -> list[Step]:
    """The steps on a device, the most needed first; a run of theirs is written below `runs`."""
    gpu = device == "cuda"
    bench = ("scripts/gpu_bench.py", "--device", device)
    bench += () if gpu else ("--geometry", "small", "--context", "0", "600", "--tokens", "8")
    settings = [f"--set=model.device={device}", "--set=engine.decode_path=graph", f"--output={runs}"]
    return [
        Step(
            "tests",
            ("-m", "pytest", "tests/test_gpu.py", "-v", "-rfE", "-m", "gpu" if gpu else "not gpu"),
            120,
        ),
        Step("decoding: introspect, with E1's probe", (*bench, "--contender", "ours"), 120),
        Step("decoding: transformers, eager loop", (*bench, "--contender", "eager"), 80),
        Step(
            "a run by `graph`, with its audits", ("-m", "introspect", "run", "phase1a", *RUN, *settings), 90
        ),
        Step(
            "audit of its record, E1",
            ("-m", "introspect", "audit", "latest", f"--output={runs}", "--json"),
            60,
        ),
        Step("`introspect check`", ("-m", "introspect", "check", "tiny"), 30),
        Step("decoding: transformers, static cache", (*bench, "--contender", "static"), 150),
    ]


RUN = ("--model=tiny", "--seed=0", "--json")


def made(step: Step, seconds: float) -> Done:
    """A step made in `seconds` at most. A whole family of processes ends with it."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    began = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        process = subprocess.Popen(
            [sys.executable, *step.arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output.seek(0)
        text = output.read()
    return Done(step.name, code, time.monotonic() - began, text)


def suite(todo: Sequence[Step], seconds: float = ALL_SECONDS, patience: float = 1.0) -> list[Done]:
    """Every step, each in its own limit and what is left of `seconds` for all, `patience` times either."""
    end = time.monotonic() + patience * seconds
    results = []
    for step in todo:
        results.append(made(step, min(patience * step.limit, end - time.monotonic())))
        say(f"{results[-1].outcome:16} {results[-1].seconds:5.0f} s  {step.name}")
    return results


def lines_of(results: Sequence[Done]) -> list[dict[str, object]]:
    """The lines of JSON in what steps wrote."""
    found = []
    for result in results:
        for line in result.text.splitlines():
            if line.startswith('{"kind": '):
                found.append(json.loads(line))
    return found


def commit() -> str:
    """The commit that is measured, and whether files differ from it."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return told.stdout.strip() or "unknown"


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/gpu_suite", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page; needed for a dry run")
    parser.add_argument("--dry-run-cpu", action="store_true", help="try the suite itself, on a processor")
    options = parser.parse_args(arguments)
    if options.dry_run_cpu:
        if options.out is None:
            parser.error("--dry-run-cpu needs --out: its figures are of no GPU")
        name = "a processor"
    else:
        import torch

        name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
        if not name:
            say("gpu_suite: torch finds no CUDA device; --dry-run-cpu tries the suite without one")
            return 2
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    out = options.out or ROOT / "data" / "benchmarks" / f"gpu-{slug}.md"
    with tempfile.TemporaryDirectory() as runs:
        todo = steps("cpu" if options.dry_run_cpu else "cuda", Path(runs))
        results = suite(todo, patience=PATIENCE if options.dry_run_cpu else 1.0)
    out.write_text(page(name, options.dry_run_cpu, commit(), results, lines_of(results)), encoding="utf-8")
    say(f"{out} written")
    return 0 if all(result.code == 0 for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
