#!/usr/bin/env python
"""Measure every tool: truth on the tiny model; tokens, time and memory on the 3B geometry.

    python scripts/tool_table.py --out data/benchmarks/tools.md
    python scripts/tool_table.py --tools get_weight_summary --geometry qwen2.5-0.5b

Truth: largest difference to the oracle over the largest true value, with all digits reported. The rest:
random bf16 weights, the real Qwen2.5 tokenizer, results of at most 500 tokens, the slowest and largest of the
example calls; memory is the peak of the process above what it held before the call.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from make_random_model import DEFAULT_TOKENIZER, GEOMETRIES, empty_model
from safetensors.numpy import load_file
from tool_oracles import EXAMPLES, Example
from transformers import AutoModelForCausalLM, AutoTokenizer

from introspect.errors import ToolError
from introspect.phase.paths import shipped_documents, tiny_model
from introspect.tools import context as context_module
from introspect.tools.context import ToolContext
from introspect.tools.figures import FIGURES
from introspect.tools.instruments.registry import ALL_TOOLS
from introspect.tools.library import document_ids, load_documents
from introspect.tools.note_store import NoteStore

BLOCK = 1 << 22


@dataclass(frozen=True)
class Row:
    """What was measured of one tool; times in seconds, memory in MiB."""

    tool: str
    method: str
    difference: float | None
    tokens: int
    first: float
    processor: float
    again: float
    memory: float


def filled_model(geometry: str) -> Any:
    """A model of this geometry whose weights are one random block over and over; made in seconds."""
    model = empty_model(GEOMETRIES[geometry], "bfloat16").to_empty(device="cpu")
    model.tie_weights()
    block = (torch.randn(BLOCK, generator=torch.Generator().manual_seed(0)) * 0.02).bfloat16()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
            else:
                for part in parameter.view(-1).split(BLOCK):
                    part.copy_(block[: part.numel()])
    # Buffers that are not stored came out empty; a module made anew has them.
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if "Rotary" in type(child).__name__:
                setattr(parent, name, type(child)(model.config))
    return model.eval().requires_grad_(False)


def context_of(model: Any, tokenizer: Any) -> ToolContext:
    documents = load_documents(shipped_documents(), tuple(document_ids(shipped_documents())))

    def encode(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text))

    measuring = tuple(FIGURES)
    return ToolContext(model, encode, tokenizer.decode, NoteStore(), documents, measuring=measuring)


def call(context: ToolContext, tool: str, arguments: dict[str, Any]) -> Any:
    return ALL_TOOLS[tool].call(context, arguments)


def largest_difference(tool: str, example: Example, context: ToolContext) -> float | None:
    """Over the largest true value; None where the tool has no oracle."""
    if example.oracle is None:
        return None
    raw = load_file(tiny_model() / "model.safetensors")
    config = json.loads((tiny_model() / "config.json").read_text(encoding="utf-8"))
    for name, arguments in example.before:
        call(context, name, arguments)
    pairs = [
        pair
        for arguments in example.arguments[: example.checked]
        for pair in example.oracle(call(context, tool, arguments), raw, config)
    ]
    scale = max(abs(float(true)) for _, true in pairs) or 1.0
    return max(abs(float(told) - float(true)) for told, true in pairs) / scale


def resident(key: str) -> float:
    """VmRSS or VmHWM of this process, in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition(f"{key}:")[2].split()[0]) / 1024


def measured(tool: str, example: Example, context: ToolContext) -> tuple[int, float, float, float, float]:
    """Most tokens, seconds of a first time (wall, processor) and of a second, MiB above the model."""
    for name, arguments in example.before:
        call(context, name, arguments)
    tokens, first, processor, again, memory = 0, 0.0, 0.0, 0.0, 0.0
    for arguments in example.arguments:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        held, begun, used = resident("VmRSS"), time.perf_counter(), time.process_time()
        result = call(context, tool, arguments)
        first = max(first, time.perf_counter() - begun)
        processor = max(processor, time.process_time() - used)
        memory = max(memory, resident("VmHWM") - held)
        begun = time.perf_counter()
        call(context, tool, arguments)
        again = max(again, time.perf_counter() - begun)
        tokens = max(tokens, context.count_tokens(result))
    return tokens, first, processor, again, memory


def measure(tools: list[str], geometry: str, tokenizer: Any) -> list[Row]:
    digits, context_module.SIGNIFICANT_DIGITS = context_module.SIGNIFICANT_DIGITS, 15
    tiny = context_of(
        AutoModelForCausalLM.from_pretrained(tiny_model(), local_files_only=True),
        AutoTokenizer.from_pretrained(tiny_model(), local_files_only=True),
    )
    tiny.max_result_tokens = 1 << 20
    differences = {tool: largest_difference(tool, EXAMPLES[tool], tiny) for tool in tools}
    context_module.SIGNIFICANT_DIGITS = digits
    begun = time.perf_counter()
    context = context_of(filled_model(geometry), tokenizer)
    say(f"{geometry}: {time.perf_counter() - begun:.0f} s, {resident('VmRSS') / 1024:.2f} GiB resident")
    rows = []
    for tool in tools:
        try:
            row = Row(
                tool, EXAMPLES[tool].method, differences[tool], *measured(tool, EXAMPLES[tool], context)
            )
        except ToolError as error:
            say(f"{tool}: {error}")
            continue
        say(f"{tool}: {row.tokens} tokens, {row.first:.2f} s, {row.again:.3f} s, {row.memory:.0f} MiB")
        rows.append(row)
    return rows


HEAD = """# Tools: truth, size, speed

Made by `scripts/tool_table.py`; {threads} threads, {cores} cores, load {load:.1f} at the end. Difference: to the oracle,
on the tiny model, over the largest true value, before rounding. The rest, on the geometry of {geometry} with random
bf16 weights: tokens of Qwen2.5 of the largest result, limited to {limit}; seconds of the slowest call the first time
and again, and processor seconds of all threads the first time; peak memory above the model.

| tool | oracle | largest difference | tokens | first, s | processor, s | again, s | memory, MiB |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |
"""  # noqa: E501


def page(rows: list[Row], geometry: str, limit: int) -> str:
    """The table in Markdown, by tool name."""
    machine = {"threads": torch.get_num_threads(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    head = HEAD.format(geometry=geometry, limit=limit, **machine)
    lines = []
    for row in sorted(rows, key=lambda row: row.tool):
        difference = "" if row.difference is None else f"{row.difference:.1e}" if row.difference else "0"
        times = f"{row.first:.2f} | {row.processor:.2f} | {row.again:.3f}"
        lines.append(
            f"| `{row.tool}` | {row.method} | {difference} | {row.tokens} | {times} | {row.memory:.0f} |\n"
        )
    missing = sorted(set(ALL_TOOLS) - set(EXAMPLES))
    return head + "".join(lines) + (f"\nWithout an example: {', '.join(missing)}.\n" if missing else "")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table there, else print it")
    parser.add_argument("--tools", nargs="*", choices=sorted(EXAMPLES), metavar="NAME")
    parser.add_argument("--geometry", choices=sorted(GEOMETRIES), default="qwen2.5-3b")
    parser.add_argument("--tokenizer", type=Path, default=DEFAULT_TOKENIZER, metavar="DIR")
    options = parser.parse_args(arguments)
    if not options.tokenizer.is_dir():
        say(f"tool_table: {options.tokenizer}: no such tokenizer; name one with --tokenizer")
        return 2
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer, local_files_only=True)
    tools = options.tools or [tool for tool in EXAMPLES if tool in ALL_TOOLS]
    text = page(measure(tools, options.geometry, tokenizer), options.geometry, ToolContext.max_result_tokens)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    else:
        print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
