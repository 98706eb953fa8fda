#!/usr/bin/env python
"""Seconds and forward passes that `check_cache` takes on a real model, as a table.

    python scripts/check_cache_cost.py MODEL_DIRECTORY --length 640 --length 2000

Caches are filled in one pass, or in passes of 300 ids, of 200, and token by token from there on (longer ones
in proportion), and are checked sound and with one slot of a middle layer overwritten by another's. Forward
passes are counted here, at the model's decoder layers: ids times layers, over those of one pass of all ids.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache  # noqa: E402

from introspect.model.cache_audit import check_cache  # noqa: E402

OUT = ROOT / "data" / "benchmarks" / "check-cache.md"
TEXT = ROOT / "README.md"


class Counter:
    """Ids times decoder layers that were run; those that only a first layer's K and V were asked of apart."""

    def __init__(self) -> None:
        self.ids = 0


@contextmanager
def counted(model: Any) -> Iterator[Counter]:
    """Count ids at the entry of every decoder layer inside the block."""
    counter = Counter()

    def count(module: Any, arguments: Any, keywords: Any) -> None:
        hidden = arguments[0] if arguments else keywords["hidden_states"]
        counter.ids += hidden.shape[0] * hidden.shape[1]

    hooks = [layer.register_forward_pre_hook(count, with_kwargs=True) for layer in model.base_model.layers]
    try:
        yield counter
    finally:
        for hook in hooks:
            hook.remove()


def filled(model: Any, ids: list[int], passes: list[int]) -> DynamicCache:
    """A cache of `ids`, fed in `passes`."""
    cache, begin = DynamicCache(config=model.config), 0
    with torch.no_grad():
        for size in passes:
            model.base_model(input_ids=torch.tensor([ids[begin : begin + size]]), past_key_values=cache)
            begin += size
    return cache


def overwrite(cache: Any, length: int) -> None:
    """One slot of the middle layer gets the state of another."""
    layer = cache.layers[len(cache.layers) // 2]
    for tensor in (layer.keys, layer.values):
        tensor[:, :, length // 2] = tensor[:, :, length // 4]


def mixture(length: int) -> list[int]:
    """Passes of 300 and 200 ids and single ids for 640, in proportion for others."""
    first, second = length * 300 // 640, length * 200 // 640
    return [first, second, *[1] * (length - first - second)]


def row(model: Any, ids: list[int], passes: list[int], damaged: bool, tell: bool) -> str:
    """One line of the table."""
    cache = filled(model, ids, passes)
    if damaged:
        overwrite(cache, len(ids))
    arguments: dict[str, Any] = {"passes": passes} if tell else {}
    with counted(model) as counter:
        began = time.perf_counter()
        codes = check_cache(model, cache, ids, **arguments)
        seconds = time.perf_counter() - began
    count = counter.ids / len(ids) / len(model.base_model.layers)
    kind = "one pass" if len(passes) == 1 else f"{passes[0]}, {passes[1]}, {len(passes) - 2} x 1"
    given = ", passes given" if tell else ""
    state = "damaged" if damaged else "sound"
    line = (
        f"| {len(ids)} | {kind}{given} | {state} | {seconds:.1f} | {count:.2f} | {', '.join(codes) or '-'} |"
    )
    print(line, flush=True)
    return line


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model", type=Path, help="a directory of transformers")
    parser.add_argument("--length", type=int, action="append", help="ids in the cache; may be repeated")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the table, with a heading, into this file")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=getattr(torch, options.dtype)).eval()
    text = AutoTokenizer.from_pretrained(options.model).encode(TEXT.read_text(encoding="utf-8"))
    knows = "passes" in inspect.signature(check_cache).parameters
    lines = []
    for length in options.length or [640, 2000]:
        ids = text[:length]
        for passes, tell in (([length], False), (mixture(length), False), (mixture(length), True)):
            if tell and not knows:
                continue
            lines += [row(model, ids, passes, damaged, tell) for damaged in (False, True)]
    return 0


if __name__ == "__main__":
    sys.exit(main())
