"""Write data/benchmarks/auto-dtype.md: what a token costs in each dtype, with units for bf16 and without.

    scripts/dtype_table.py DIR... [--out FILE]

DIR are models. Each figure is measured in a process of its own, by the engine that runs use, on one thread,
in processor time, for other programs beside it take time by the clock. A processor without units is emulated:
ONEDNN_MAX_CPU_ISA=AVX2 keeps oneDNN from those of this one, ATEN_CPU_CAPABILITY=avx2 torch's own kernels.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent.parent / "data/benchmarks/auto-dtype.md"
WITHOUT_UNITS = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
MACHINES: dict[str, dict[str, str]] = {"with": {}, "without": WITHOUT_UNITS}
DTYPES = ("float32", "bfloat16", "float16")
PROMPT = 256
REPLY = 16
Figures = dict[str, Any]


def measure(model: str, dtype: str) -> Figures:
    """Seconds of one thread for a token of the prompt, and the median of those for a token of the reply."""
    import torch

    from introspect.checkpoint.dtype_choice import choose_dtype
    from introspect.checkpoint.loading import load_model
    from introspect.engine.decode_paths import choose_decode_path, widened_products
    from introspect.engine.engine import Engine
    from introspect.engine.units import can_compile, has_units
    from introspect.phase.config import ModelConfig

    torch.set_num_threads(1)
    loaded = load_model(ModelConfig.model_validate({"id": model, "device": "cpu", "dtype": dtype}))
    path, draw = choose_decode_path(loaded.model), random.Random(0)
    engine = Engine(loaded.model, step=path.step, widened=widened_products(loaded.model))
    cache = engine.new_cache()
    ids = [draw.randrange(1000, 30000) for _ in range(8 + PROMPT + REPLY)]
    engine.forward(cache, ids[:8])
    began = time.process_time()
    engine.forward(cache, ids[8 : 8 + PROMPT])
    prefill, decode = (time.process_time() - began) / PROMPT, []
    for token in ids[8 + PROMPT :]:
        began = time.process_time()
        engine.forward(cache, [token], engine.decode_path)
        decode.append(time.process_time() - began)
    units = has_units("bfloat16", "cpu")
    return {
        "prefill": prefill,
        "decode": statistics.median(decode),
        "units": units,
        "auto": choose_dtype(
            "auto", "cpu", "bfloat16", units=units, compiles=can_compile(), need="fits"
        ).dtype,
    }


def measured_apart(model: str, dtype: str, environment: dict[str, str]) -> Figures:
    command = [sys.executable, __file__, model, "--measure", dtype]
    done = subprocess.run(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True
    )
    print(Path(model).name, dtype, environment, done.stdout.strip(), file=sys.stderr, flush=True)
    figures: Figures = json.loads(done.stdout)
    return figures


def page(figures: dict[str, dict[tuple[str, str], Figures]]) -> str:
    """The page, from the figures of each model by machine and dtype."""
    lines = [
        "# What a dtype costs on a processor, and what `auto` takes",
        "",
        f"Written by `scripts/dtype_table.py`: {_processor()}, one thread, torch {version('torch')},"
        f" transformers {version('transformers')}. Milliseconds of processor time: for a token of a prompt"
        f" ({PROMPT} in one pass), and the median for a token of a reply ({REPLY} decoded after it), by the",
        "path that `auto` decodes by.",
        "“Without” is emulated, by the environment variables ONEDNN_MAX_CPU_ISA=AVX2 and",
        "ATEN_CPU_CAPABILITY=avx2 on the same machine; MKL, which computes fp32, heeds neither.",
        "",
        "| model | units for bf16 | dtype | prompt, ms a token | over fp32 | reply, ms a token | over fp32 |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for model, cells in figures.items():
        for (machine, dtype), found in cells.items():
            plain = cells[machine, "float32"]
            both = [
                f"{1000 * found[kind]:.1f} | {found[kind] / plain[kind]:.2f}"
                for kind in ("prefill", "decode")
            ]
            lines.append(f"| {model} | {machine} | {dtype} | {both[0]} | {both[1]} |")
    lines += [
        "",
        "What `auto` takes for weights stored in bf16 that fit in fp32, on the machine without units:",
        "",
        "| model | dtype | ms a token of prompt, of reply |",
        "| --- | --- | --- |",
    ]
    for model, cells in figures.items():
        taken = cells["without", "bfloat16"]["auto"]
        found = cells["without", taken]
        figure = f"{1000 * found['prefill']:.1f}, {1000 * found['decode']:.1f}"
        lines.append(f"| {model} | {taken} | {figure} |")
    return "\n".join(lines) + "\n"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("models", nargs="+", metavar="DIR")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE")
    parser.add_argument("--measure", choices=DTYPES, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        print(json.dumps(measure(options.models[0], options.measure)))
        return 0
    for model in options.models:
        if not (Path(model) / "config.json").is_file():
            print(f"dtype_table: {model}: no model there (config.json)", file=sys.stderr)
            return 2
    figures = {
        Path(model).name: {
            (machine, dtype): measured_apart(model, dtype, environment)
            for machine, environment in MACHINES.items()
            for dtype in DTYPES
        }
        for model in options.models
    }
    options.out.write_text(page(figures), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
