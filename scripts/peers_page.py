"""The page of a benchmark of contenders, from the rows that were written while it was measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from introspect.bench.contenders import TurnTimes
from introspect.bench.figures import Figures, disturbance, figures_of

Row = dict[str, Any]
LLAMA, REUSE = "llama.cpp-bf16", "generate-copied"
"""What the ratios are to."""
MEANING = {
    "plain": "this program's engine, by the model's own modules",
    "step": "this program's engine, replies by the step for one row",
    "generate": "transformers' `generate` without reuse",
    "generate-copied": "`generate` with a copy of a cache of the system prompt for each turn",
    "generate-cropped": "`generate` with one cache that grows, cropped to what the next prompt shares",
    "generate-static": "`generate` with a static cache of the session's size, without reuse; its decoding"
    " step compiled by torch.compile",
    "llama.cpp-bf16": "llama.cpp, the same weights as bf16, K and V in fp16, flash attention, its own reuse",
    "llama.cpp-fp32": "llama.cpp, the same weights as fp32, else as above",
}
_INTRODUCTION = """\
# Beside llama.cpp and transformers' own loop

Written by `scripts/bench_peers.py`. A session as phases make them, in numbers of tokens: random ids behind a
system prompt; after every third turn a prune leaves the newest two. All contenders decode greedily and as
many tokens, without stop ids; each is in a process of its own, and one turn of each is made in its turn.
Seconds by the clock.

- *Ready*: imports, loading and a first short reply, with what is compiled in it, before the session.
- *Session*: all turns, the first prefill of the system prompt included. "≈" where fewer turns were made: the
  rest are taken to last as long as those after the first did.
- *Result*, *prune*: until the first token after a tool's result, after a prune: median (least).
- *Decode*: one token of a reply: median (least), after as many tokens as the heading says in the median.
- *Peak*: the most memory that its process had during the session above what it had with its weights read.
- *Floor*: what has to be read and multiplied, at the rates that torch showed here; without attention."""


def page(rows: list[Row]) -> str:
    """Markdown; of each system prompt's length the newest run counts."""
    runs: dict[int, str] = {}
    for row in rows:
        if row["row"] == "floor":
            runs[row["system"]] = row["run"]
    machines = {row["run"]: row for row in rows if row["row"] == "machine"}
    parts, shown = [_INTRODUCTION], None
    for system, run in sorted(runs.items()):
        machine = machines[run]
        own = [row for row in rows if row["run"] == run and row.get("system") == system]
        header = _machine(machine)
        if header != shown:
            parts.append(header)
        shown = header
        parts.append(_workload(machine, own))
    named = [name for name in MEANING if any(row.get("contender") == name for row in rows)]
    parts.append("\n".join(f"- `{name}`: {MEANING[name]}" for name in named))
    return "\n\n".join(parts) + "\n"


def turns_of(rows: list[Row]) -> dict[str, list[TurnTimes]]:
    """The turns of each contender, in the order in which they were measured."""
    names = [field.name for field in fields(TurnTimes)]
    turns: dict[str, list[TurnTimes]] = {}
    for row in rows:
        if row["row"] == "turn":
            turns.setdefault(row["contender"], []).append(TurnTimes(**{name: row[name] for name in names}))
    return turns


def _machine(machine: Row) -> str:
    parts = [
        f"{machine['cpu']}, {machine['cores']} cores ({', '.join(machine['flags'])}),"
        f" {machine['threads']} thread{'s' if machine['threads'] > 1 else ''};"
        f" reads {machine['read'] / 1e9:.1f} GB/s, multiplies {machine['matmul'] / 1e9:.0f} GFLOP/s in"
        f" {machine['library_dtype']}.",
        f"{machine['model']}, {machine['weights'] / 2**20:,.0f} MiB of weights in"
        f" {machine['dtype']}; `generate` in {machine['library_dtype']}.",
        f"Python {machine['python']}, torch {machine['torch']}, transformers {machine['transformers']},"
        f" {machine['llama']}.",
        f"{machine['turns']} turns of {machine['fed']} fed and {machine['decoded']} decoded tokens. Measured"
        f" {machine['run'][:16]} UTC.",
    ]
    return "\n".join(parts)


def _workload(machine: Row, rows: list[Row]) -> str:
    floor = next(row for row in rows if row["row"] == "floor")
    turns = {name: made for name, made in turns_of(rows).items() if len(made) > 1}
    figures = {name: figures_of(made, machine["threads"]) for name, made in turns.items()}
    wholes = {name: _whole(figures[name], len(made), machine["turns"]) for name, made in turns.items()}
    lines = [f"## {floor['system']:,} tokens of system prompt, decoding after {floor['context']:,}", ""]
    lines += _times(rows, floor, turns, figures, wholes, machine["turns"])
    lines += ["", *_ratios(floor, figures, wholes)]
    if figures:
        why = disturbance(figures.values())
        lines += ["", f"Not on quiet cores: {why}." if why else "On quiet cores."]
    left_out = {row["contender"]: row["why"] for row in rows if row["row"] == "left out"}
    lines += [f"Left out: `{name}`: {why}." for name, why in left_out.items()]
    fewer = [f"`{name}` {len(made)}" for name, made in turns.items() if len(made) < machine["turns"]]
    return "\n".join(lines + ([f"Fewer turns were made by {', '.join(fewer)}."] if fewer else []))


def _whole(figures: Figures, made: int, turns: int) -> float:
    """Seconds of the session; where fewer turns were made, those after the first stand for the rest."""
    return figures.start + figures.session / (made - 1) * (turns - 1)


def _times(
    rows: list[Row],
    floor: Row,
    turns: dict[str, list[TurnTimes]],
    figures: dict[str, Figures],
    wholes: dict[str, float],
    planned: int,
) -> list[str]:
    peaks = {row["contender"]: row["bytes"] for row in rows if row["row"] == "peak"}
    ready = {row["contender"]: row["load"] + row["warm"] for row in rows if row["row"] == "ready"}
    lines = [
        "| contender | ready s | session s | result s | prune s | decode ms | peak MiB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, one in figures.items():
        prunes = [turn.first for turn in turns[name] if turn.kind == "prune"]
        about = "≈ " if len(turns[name]) < planned else ""
        peak = peaks.get(name)
        cells = [
            f"`{name}`",
            f"{ready[name]:.1f}" if name in ready else "-",
            f"{about}{wholes[name]:.1f}",
            f"{one.result:.3f} ({one.best_result:.3f})",
            f"{one.prune:.3f} ({min(prunes):.3f})" if one.prune is not None else "-",
            f"{1000 * one.decode:.1f} ({1000 * one.best_decode:.1f})",
            f"{peak / 2**20:,.0f}" if peak is not None else "-",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    prune = "-" if floor["prune"] is None else f"{floor['prune']:.3f}"
    least = f"{floor['whole']:.1f} | {floor['result']:.3f} | {prune} | {1000 * floor['decode']:.1f}"
    return [*lines, f"| floor | | {least} | |"]


def _ratios(floor: Row, figures: dict[str, Figures], wholes: dict[str, float]) -> list[str]:
    """Each figure over that of llama.cpp in bf16, and over that of `generate` with reuse."""
    kinds: dict[str, Callable[[str], float | None]] = {
        "session": lambda name: wholes[name],
        "result": lambda name: figures[name].result,
        "prune": lambda name: figures[name].prune,
        "decode": lambda name: figures[name].decode,
    }
    lines = [
        f"| over `{LLAMA}` / `{REUSE}` | {' | '.join(kinds)} | decode over floor |",
        f"| --- |{' ---: |' * (len(kinds) + 1)}",
    ]
    for name in figures:
        cells = [
            " / ".join(
                _over(figure(name), figure(base) if base in figures else None) for base in (LLAMA, REUSE)
            )
            for figure in kinds.values()
        ]
        lines.append(f"| `{name}` | {' | '.join(cells)} | {_over(figures[name].decode, floor['decode'])} |")
    return lines


def _over(own: float | None, base: float | None) -> str:
    return f"{own / base:.2f}" if own is not None and base else "-"
