#!/usr/bin/env python
"""What `check_cache` costs on a real model, in processor time and passes: data/benchmarks/check-cache.md.

    python scripts/check_cache_cost.py MODEL_DIRECTORY --rows after.jsonl [--length 640] [--row mixture-sound]
    python scripts/check_cache_cost.py MODEL_DIRECTORY --rows after.jsonl --before before.jsonl --out PAGE

Caches are filled in one pass, or in passes of 300 ids, of 200, and token by token from there on (longer ones
in proportion), and are checked sound and with one slot of a middle layer overwritten by another's. Forward
passes are counted here, at the model's decoder layers: ids times layers, over those of one pass of all ids.
Each row is appended to a file as soon as it is measured; rows of an earlier version of the package, measured
by this same script in its checkout, stand beside them on the page.
"""

from __future__ import annotations

import argparse
import inspect
import json
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


ROWS = {
    "one-pass-sound": "one pass, sound",
    "one-pass-damaged": "one pass, damaged",
    "mixture-sound": "mixture, sound",
    "mixture-damaged": "mixture, damaged",
    "given-sound": "mixture, sound, `passes` given",
    "given-damaged": "mixture, damaged, `passes` given",
}
LENGTHS = (640, 2000)
Row = dict[str, Any]


class Counter:
    """Ids times decoder layers that were run."""

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


def measured(model: Any, ids: list[int], name: str) -> Row:
    """One row: a cache filled and, where asked, damaged, then checked."""
    passes = [len(ids)] if name.startswith("one-pass") else mixture(len(ids))
    cache = filled(model, ids, passes)
    if name.endswith("damaged"):
        overwrite(cache, len(ids))
    arguments: dict[str, Any] = {"passes": passes} if name.startswith("given") else {}
    with counted(model) as counter:
        began = time.process_time()
        codes = check_cache(model, cache, ids, **arguments)
        seconds = time.process_time() - began
    count = counter.ids / len(ids) / len(model.base_model.layers)
    return {"length": len(ids), "row": name, "seconds": seconds, "passes": count, "codes": codes}


def page(model: str, rows: list[Row], before: list[Row]) -> str:
    """The table as Markdown; a row that was not measured says so."""
    lines = [
        "# What check_cache costs",
        "",
        "Written by `scripts/check_cache_cost.py`. Caches of a pretrained model, filled in one pass or in a",
        "mixture of passes (of 640 ids: 300, 200 and 140 x 1; of others in proportion), sound or with one",
        "slot of a middle layer overwritten by another's. Seconds are of processor time. Forward passes are",
        "ids times layers that entered the model's decoder layers, over those of one pass of all ids.",
        "Before: the search without a bound, which could not be told the passes.",
        "",
        f"{model}, torch {torch.__version__}, {torch.get_num_threads()} thread.",
        "",
        "| ids | cache | seconds before | after | forward passes before | after | verdict before | after |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for length in sorted({*LENGTHS, *(row["length"] for row in rows + before)}):
        for name, words in ROWS.items():
            old, new = _cells(before, length, name), _cells(rows, length, name)
            if name.startswith("given"):
                old = ["-"] * 3
            pairs = (cell for pair in zip(old, new, strict=True) for cell in pair)
            lines.append(f"| {length:,} | {words} | " + " | ".join(pairs) + " |")
    return "\n".join(lines) + "\n"


def _cells(rows: list[Row], length: int, name: str) -> list[str]:
    """Seconds, forward passes and verdict of the last such row."""
    found = [row for row in rows if row["length"] == length and row["row"] == name]
    if not found:
        return ["not measured"] * 3
    row = found[-1]
    return [f"{row['seconds']:.1f}", f"{row['passes']:.2f}", ", ".join(row["codes"]) or "nothing"]


def read(path: Path | None) -> list[Row]:
    """The rows of a file of JSON lines; none where there is no file."""
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model", type=Path, help="a directory of transformers")
    parser.add_argument("--length", type=int, action="append", help="ids in the cache; may be repeated")
    parser.add_argument("--row", choices=ROWS, action="append", help="measure these rows alone")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=Path, required=True, help="JSON lines: measured rows are appended")
    parser.add_argument("--before", type=Path, help="such a file of an earlier version")
    parser.add_argument("--out", type=Path, help=f"write the page from both files, such as {OUT.name}")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.out is not None:
        name = f"{options.model.name}, {options.dtype}"
        options.out.write_text(page(name, read(options.rows), read(options.before)), encoding="utf-8")
        return 0
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=getattr(torch, options.dtype)).eval()
    text = AutoTokenizer.from_pretrained(options.model).encode(TEXT.read_text(encoding="utf-8"))
    knows = "passes" in inspect.signature(check_cache).parameters
    for length in options.length or LENGTHS:
        for name in options.row or ROWS:
            if knows or not name.startswith("given"):
                row = measured(model, text[:length], name)
                print(row, flush=True)
                with options.rows.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
