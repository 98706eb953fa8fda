#!/usr/bin/env python
"""Measure the shape of the package from its syntax trees, now and at an earlier commit.

    python scripts/house_table.py --out data/benchmarks/house.md
    python scripts/house_table.py --ref 9663439 --ref main
    python scripts/house_table.py --calls

Nothing is imported or run: a column is read from the files of a commit or of the working tree.
"""

from __future__ import annotations

import argparse
import io
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from package_shape import MOST_ARGUMENTS, PACKAGE, Package, Unknown, depth_and_cycles

ROOT = Path(__file__).parent.parent
BEFORE = "9663439"
LONG_FUNCTION = 60
# What one prompt passes through from its rendering to the cache, as `Class.method` or `function`; `|` parts
# the names that a step has had. A step counts the module that defines it.
RENDER_TO_CACHE = (
    "TurnFormat.render",
    "PromptBuilder",
    "ContentEncoder.stretch",
    "GenerationRequest",
    "EngineDriver.serve",
    "Engine.prefill",
    "KVCache.truncate",
    "BufferLayer.update",
)
# What one command passes through from the command line to the terminal, the above included.
CLI_TO_TERMINAL = (
    "cli:run",
    "read_phase",
    "load_phase",
    "read_yaml",
    "PhaseConfig",
    "open_run",
    "open_session",
    "drive",
    "run_turn",
    *RENDER_TO_CACHE,
    "DecodingSequence.choose",
    "NucleusSampler.choose",
    "Generation",
    "Run.execute",
    "RunWriter.write",
    "sealed",
    "runlog.textlog:render",
    "RunView.show",
    "LiveLine.take",
)


def rows(package: Package) -> list[tuple[str, str]]:
    """What is measured, and its value."""
    lines = sorted((len(text.splitlines()), name) for name, text in package.sources.items())
    lengths = [length for length, _ in package.functions]
    eager, lazy = package.graph(lazy=False), package.graph(lazy=True)
    annotated, elsewhere = package.any_names()
    fan_out = max((len(targets), name) for name, targets in lazy.items())
    return [
        ("modules with content", str(len(lines))),
        ("lines", f"{sum(size for size, _ in lines):,}"),
        ("median and biggest file, lines", f"{_median(lines)}, {lines[-1][0]} (`{lines[-1][1]}`)"),
        ("files in the package root", str(package.root_files)),
        ("functions", f"{len(lengths):,}"),
        (
            "median and longest function, lines",
            f"{round(statistics.median(lengths))}, {lengths[-1]} (`{package.functions[-1][1]}`)",
        ),
        (f"functions above {LONG_FUNCTION} lines", str(sum(size > LONG_FUNCTION for size in lengths))),
        ("import depth, eager and with lazy", f"{depth_and_cycles(eager)[0]}, {depth_and_cycles(lazy)[0]}"),
        ("imports that close a cycle, lazy ones too", str(depth_and_cycles(lazy)[1])),
        ("highest fan-out", f"{fan_out[0]} (`{fan_out[1]}`)"),
        ("`Any` in annotations and elsewhere", f"{annotated}, {elsewhere}"),
        (
            f"constructors of more than {MOST_ARGUMENTS} positional arguments",
            str(len(package.positional_calls())),
        ),
        ("modules from render to cache", str(len(package.modules_of(RENDER_TO_CACHE)))),
        ("modules from CLI to terminal", str(len(package.modules_of(CLI_TO_TERMINAL)))),
    ]


def _median(lines: list[tuple[int, str]]) -> int:
    return round(statistics.median(size for size, _ in lines))


def measured(ref: str | None) -> list[tuple[str, str]]:
    """The rows of a commit, or of the working tree where no commit is named. Raises Unknown."""
    if ref is None:
        return rows(Package.read(ROOT))
    command = ["git", "archive", "--format=tar", ref, PACKAGE]
    archive = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
        return rows(Package.read(Path(folder)))


def table(columns: dict[str, list[tuple[str, str]]]) -> str:
    """Markdown: a row for each figure, a column for each state of the package."""
    names = [name for name, _ in next(iter(columns.values()))]
    head = f"| what | {' | '.join(columns)} |\n| --- |{' ---: |' * len(columns)}"
    body = [
        f"| {name} | {' | '.join(column[i][1] for column in columns.values())} |"
        for i, name in enumerate(names)
    ]
    return "\n".join([head, *body])


def page(columns: dict[str, list[tuple[str, str]]]) -> str:
    """The table with the definitions of its rows."""
    return f"""# The shape of the package

Made by `scripts/house_table.py` from syntax trees; nothing is imported or run.

{table(columns)}

- *Lines* are all lines of a file, comments and blank ones too; of a function, from `def` to its end.
- *Import depth* is the number of modules on the longest chain of imports: eager ones stand at the top of a
  file, lazy ones inside functions or under `TYPE_CHECKING`. A cycle is counted where a chain meets itself.
- *Fan-out* is how many modules of the package one module imports.
- *`Any`* counts the name, in annotations (parameters, results, variables) and elsewhere (aliases, casts).
- *Constructors* are calls of classes of the package; an argument by position stands without its name.
- *From render to cache*: the modules that define {_listed(RENDER_TO_CACHE)}.
- *From CLI to terminal*: those, and the modules that define
  {_listed(step for step in CLI_TO_TERMINAL if step not in RENDER_TO_CACHE)}.
"""


def _listed(steps: Iterable[str]) -> str:
    return ", ".join(f"`{step.rpartition(':')[2]}`" for step in steps)


def main() -> int:
    """Write the page, or print it. Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--ref", action="append", help=f"a commit; repeatable; {BEFORE} when left out")
    parser.add_argument("--out", type=Path, help="the page to write")
    parser.add_argument("--calls", action="store_true", help="list the constructors called by position")
    arguments = parser.parse_args()
    if arguments.calls:
        print("\n".join(Package.read(ROOT).positional_calls()))
        return 0
    refs = arguments.ref or [BEFORE]
    try:
        text = page({f"commit {ref}": measured(ref) for ref in refs} | {"now": measured(None)})
    except Unknown as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.out is None:
        print(text)
    else:
        arguments.out.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
