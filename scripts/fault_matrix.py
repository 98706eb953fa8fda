#!/usr/bin/env python
"""Plant every fault at every place in small models, check the caches, and write what was found as a table.

    python scripts/fault_matrix.py --clean 10000

The check has the cache and the ids alone to go by. False alarms are counted on sound caches that were filled
in one pass, in chunks of every size, and token by token.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import random
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import torch  # noqa: E402
import transformers  # noqa: E402
from small_models import small_model  # noqa: E402

from introspect.fault_scene import Conversation, Scene, fed, feed  # noqa: E402
from introspect.faults import FAULTS, Fault  # noqa: E402
from introspect.model.cache_audit import check_cache  # noqa: E402
from introspect.model.cache_limits import OUT_OF_REACH  # noqa: E402
from introspect.model.kv_cache import KVCache  # noqa: E402

OUT = ROOT / "data" / "benchmarks" / "fault-matrix.md"
DTYPES = (torch.float32, torch.bfloat16)
MODELS: dict[str, dict[str, Any]] = {
    "qwen2": {"family": "qwen2"},
    "qwen2, K bias 100, channel x50": {"family": "qwen2", "key_bias": 100.0, "loud": 50.0},
    "qwen3": {"family": "qwen3", "layers": 4},
    "llama": {"family": "llama", "hidden": 64},
    "gemma": {"family": "gemma"},
}


@dataclasses.dataclass
class Cell:
    """One fault in one dtype at one place and depth: over models, how often planted, detected, named.

    `traceless` counts those not planted because every bit of the cache stayed as it was.
    """

    planted: int = 0
    traceless: int = 0
    detected: int = 0
    named: int = 0
    seen: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)


def a_conversation(rng: random.Random, vocabulary: int = 640) -> Conversation:
    """Turns that each begin with the ids that the prompt begins with, as headers do, and end with one id."""
    header = rng.sample(range(vocabulary), 2)
    end = rng.randrange(vocabulary)

    def turn(length: int) -> list[int]:
        return [header[0], rng.randrange(vocabulary), *rng.choices(range(vocabulary), k=length), end]

    prefix = [*header, *rng.choices(range(vocabulary), k=rng.randint(10, 20)), end]
    kept = [i for _ in range(3) for i in turn(rng.randint(5, 10))]
    dropped = [i for _ in range(2) for i in turn(rng.randint(5, 10))]
    return Conversation((*prefix, *kept), len(prefix), tuple(dropped))


def filled(model: Any, ids: list[int], chunks: list[int]) -> KVCache:
    """A cache of `ids`, fed in passes of `chunks`."""
    cache = fed(model, [])
    begin = 0
    for size in chunks:
        feed(model, cache, ids[begin : begin + size])
        begin += size
    return cache


def a_schedule(rng: random.Random, length: int) -> list[int]:
    """One pass, token by token, chunks of one size, a prefill and then single ids, or chunks of any size."""
    kind = rng.randrange(5)
    if kind == 0:
        return [length]
    if kind == 1:
        return [1] * length
    if kind == 2:
        size = rng.randint(2, 64)
        return [min(size, length - begin) for begin in range(0, length, size)]
    if kind == 3:
        first = rng.randint(1, length)
        return [first, *[1] * (length - first)]
    sizes: list[int] = []
    while sum(sizes) < length:
        sizes.append(min(rng.randint(1, 40), length - sum(sizes)))
    return sizes


def plant_all(
    models: dict[tuple[str, torch.dtype], Any], rounds: int
) -> dict[tuple[str, str, str, str], Cell]:
    """Every fault at every place and depth, `rounds` times in every model."""
    cells: dict[tuple[str, str, str, str], Cell] = collections.defaultdict(Cell)
    rng = random.Random(1)
    for number in range(rounds):
        for (_, dtype), model in models.items():
            conversation = a_conversation(rng)
            ids = list(conversation.ids)
            clean = filled(model, ids, a_schedule(rng, len(ids)))
            for fault in FAULTS.values():
                for place in fault.places:
                    for depth in fault.depths:
                        generator = torch.Generator().manual_seed(number)
                        scene = Scene(model, clean, conversation, place, depth, generator)
                        key = (fault.name, str(dtype).removeprefix("torch."), place, depth)
                        note(cells[key], fault, scene)
    return cells


def note(cell: Cell, fault: Fault, scene: Scene) -> None:
    damaged = fault.planted(scene)
    if damaged.cache.state_digest() == scene.clean.state_digest():
        cell.traceless += 1
        return
    codes = check_cache(scene.model, damaged.cache, damaged.intended)
    cell.planted += 1
    cell.detected += bool(codes)
    cell.named += bool(set(codes) & set(fault.codes))
    cell.seen[", ".join(codes) or "nothing"] += 1


def count_false_alarms(
    models: dict[tuple[str, torch.dtype], Any], audits: int, seconds: float
) -> tuple[collections.Counter[str], list[str]]:
    """Checks of sound caches by model and dtype, and what was wrongly reported; stops when time is up."""
    until = time.monotonic() + seconds
    rng = random.Random(2)
    done: collections.Counter[str] = collections.Counter()
    alarms = []
    keys = list(models)
    for number in range(audits):
        if time.monotonic() > until:
            break
        name, dtype = keys[number % len(keys)]
        model = models[name, dtype]
        ids = rng.choices(range(640), k=rng.randint(1, 90))
        chunks = a_schedule(rng, len(ids))
        label = f"{name}, {str(dtype).removeprefix('torch.')}"
        codes = check_cache(model, filled(model, ids, chunks), ids)
        done[label] += 1
        if codes:
            print(label, codes, chunks[:6], file=sys.stderr, flush=True)
            alarms.append(f"{label}: {', '.join(codes)} ({len(ids)} ids in passes of {chunks[:6]})")
    return done, alarms


def written(
    cells: dict[tuple[str, str, str, str], Cell],
    done: collections.Counter[str],
    alarms: list[str],
    seconds: float,
) -> str:
    """The page."""
    planted = sum(cell.planted for cell in cells.values())
    detected = sum(cell.detected for cell in cells.values())
    named = sum(cell.named for cell in cells.values())
    lines = [
        "# Faults planted, detected, named",
        "",
        "Written by `scripts/fault_matrix.py`. `check_cache` is given the damaged cache and the ids meant,"
        " nothing else. A fault counts as named when one of at most two codes is its own; a mask's may be"
        " either mask code. A fault that leaves every bit of the cache as it was has no trace to find, and is"
        " counted apart.",
        "",
        f"torch {torch.__version__}, transformers {transformers.__version__}, {torch.get_num_threads()}"
        f" thread; models: {'; '.join(MODELS)}; {seconds:.0f} s.",
        "",
        f"**{detected} of {planted} detected ({detected / planted:.2%}), {named} named"
        f" ({named / planted:.2%}); {len(alarms)} false alarms in {done.total():,} checks of sound caches.**",
        "",
        "| fault | dtype | place | layer | planted | no trace | detected | named | reported otherwise |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (name, dtype, place, depth), cell in cells.items():
        own = set(FAULTS[name].codes)
        other = {codes: n for codes, n in cell.seen.items() if not own & set(codes.split(", "))}
        told = "; ".join(f"{codes} ({n})" for codes, n in other.items())
        where = place if len(FAULTS[name].places) > 1 else "-"
        layer = depth if len(FAULTS[name].depths) > 1 else "-"
        lines.append(
            f"| {name} | {dtype} | {where} | {layer} | {cell.planted} | {cell.traceless} | {cell.detected}"
            f" | {cell.named} | {told} |"
        )
    lines += ["", "## Sound caches", "", "| model | checks |", "| --- | --- |"]
    lines += [f"| {label} | {count} |" for label, count in sorted(done.items())]
    lines += ["", "False alarms: " + ("none." if not alarms else ""), *[f"- {alarm}" for alarm in alarms]]
    lines += ["", "## Out of reach of a check that has state and ids alone", ""]
    lines += [f"- {limit}" for limit in OUT_OF_REACH]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--clean", type=int, default=10_000, metavar="N", help="sound caches to check")
    parser.add_argument(
        "--seconds", type=float, default=3600.0, metavar="N", help="for sound caches, at most"
    )
    parser.add_argument(
        "--rounds", type=int, default=2, metavar="N", help="conversations per model and dtype"
    )
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    began = time.monotonic()
    models = {
        (name, dtype): small_model(dtype=dtype, **made) for name, made in MODELS.items() for dtype in DTYPES
    }
    cells = plant_all(models, options.rounds)
    print(f"faults planted, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    done, alarms = count_false_alarms(models, options.clean, options.seconds)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    page = written(cells, done, alarms, time.monotonic() - began)
    options.out.write_text(page, encoding="utf-8")
    print(page.split("\n\n")[3], file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
