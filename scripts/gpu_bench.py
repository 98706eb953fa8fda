#!/usr/bin/env python
"""Measure what decodes on a device, one line of JSON for each figure as soon as it is there.

    python scripts/gpu_bench.py --contender ours --geometry qwen2.5-3b --context 0 2000 6000

Weights are random, bf16, and made on the device. The first line has the device and its measured rates.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from make_random_model import COMMON, GEOMETRIES
from transformers import Qwen2Config, Qwen2ForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from introspect.bench.floor import decode_floor, measure_machine, prefill_floor, seconds_of
from introspect.engine.cache_replay import first_difference, replay_passes
from introspect.engine.decode_paths import choose_decode_path
from introspect.engine.decoding import DecodingSequence
from introspect.engine.engine import Engine
from introspect.engine.sampling import GreedySampler

JSON = dict[str, Any]
SMALL = {
    **COMMON,
    "vocab_size": 512,
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
SHAPES = {**GEOMETRIES, "small": SMALL}
WARM_UP = 8
"""Tokens before those that count: recordings are made and kernels chosen in them."""
ROUNDS = 3
PROBE = 600
"""Tokens of the prompt that is repeated to see whether bits are the same: two passes of a prefill."""
CONTENDERS = ("ours", "eager", "static")


def random_model(geometry: str, device: str) -> Any:
    """A Qwen2 with random bf16 weights, made on a device."""
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen2ForCausalLM._from_config(Qwen2Config(**SHAPES[geometry]), dtype=torch.bfloat16)
    model.generation_config.eos_token_id = None
    return model.eval()


def prompt_of(model: Any, context: int) -> list[int]:
    """Random ids, `context` of them, 4 at least."""
    rng = random.Random(context)
    return [rng.randrange(model.config.vocab_size) for _ in range(max(4, context))]


def ours(model: Any, contexts: list[int], tokens: int) -> Iterator[JSON]:
    """Each decode path of this engine, and whether its passes repeat themselves bit for bit."""
    for wanted in ("plain", "graph"):
        path = choose_decode_path(model, wanted)
        engine = Engine(model, step=path.step, graph=path.graph)
        yield repeats_itself(engine, prompt_of(model, min(PROBE, max(contexts))))
        for context in contexts:
            line = decoded(engine, prompt_of(model, context), tokens)
            yield figures(f"introspect, {path.name}", context, **line) | {"kernels": path.kernels}


def decoded(engine: Engine, prompt: list[int], tokens: int) -> JSON:
    """What a prefill takes, the first token after it, and each of `tokens` that count."""
    cache = engine.new_cache()
    began = time.perf_counter()
    logits = engine.prefill(cache, prompt).logits
    times = [time.perf_counter()]
    sequence = DecodingSequence(
        cache=cache,
        sampler=GreedySampler(),
        logits=logits,
        stop_ids=frozenset(),
        max_new_tokens=tokens + WARM_UP,
        through_faults=True,
    )
    for _ in engine.decode([sequence]):
        times.append(time.perf_counter())
    assert sequence.paths == {engine.decode_path}
    each = [later - earlier for earlier, later in itertools.pairwise(times)]
    return {"prefill": times[0] - began, "first": each[1], "seconds": each[WARM_UP:]}


def repeats_itself(engine: Engine, prompt: list[int]) -> JSON:
    """What E1 asks of a device first: whether a prompt and some decoded ids give the same bits twice."""
    cache = engine.new_cache()
    engine.prefill(cache, prompt)
    for token_id in range(WARM_UP):
        engine.forward(cache, [token_id], engine.decode_path)
    twin = replay_passes(engine, cache.schedule)
    same = first_difference(cache, twin, len(cache.token_ids)) is None
    return {"kind": "probe", "path": engine.decode_path, "tokens": len(cache.token_ids), "repeats": same}


def generated(model: Any, contexts: list[int], tokens: int, name: str, **how: Any) -> Iterator[JSON]:
    """transformers' own loop: what `tokens` more than one take, the longer of several rounds each."""
    device = str(model.device)
    for context in contexts:
        ids = torch.tensor([prompt_of(model, context)], device=device)

        def seconds(count: int, ids: torch.Tensor = ids) -> float:
            def run() -> Any:
                return model.generate(
                    ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, **how
                )

            return seconds_of(run, device)

        one = [seconds(1) for _ in range(ROUNDS)]
        first = seconds(tokens + 1)
        more = [seconds(tokens + 1) for _ in range(ROUNDS)]
        each = [max(0.0, whole - median(one)) / tokens for whole in more]
        yield figures(name, context, seconds=each, prefill=min(one), first=first) | {"kernels": None}


def eager(model: Any, contexts: list[int], tokens: int) -> Iterator[JSON]:
    """`generate` as it is."""
    return generated(model, contexts, tokens, "transformers, eager loop")


def static(model: Any, contexts: list[int], tokens: int) -> Iterator[JSON]:
    """`generate` with a cache of fixed size, compiled where the library does that: on a GPU."""
    compiled = model.device.type == "cuda"
    name = f"transformers, static cache{', compiled' if compiled else ''}"
    how = {"cache_implementation": "static", "disable_compile": not compiled}
    return generated(model, contexts, tokens, name, **how)


def figures(name: str, context: int, *, seconds: list[float], prefill: float, first: float) -> JSON:
    """What a line says of a contender at a context; all in seconds, `seconds` those of each token."""
    return {
        "kind": "decode",
        "contender": name,
        "context": context,
        "median": median(seconds),
        "best": min(seconds),
        "prefill": prefill,
        "first": first,
    }


def measured(options: argparse.Namespace) -> Iterator[JSON]:
    """The lines: the device, then each figure with its share of the limit and the memory that it took."""
    device = options.device
    rates = measure_machine(torch.bfloat16, device)
    if device == "cuda":
        torch.cuda.empty_cache()
    model = random_model(options.geometry, device)
    weights = torch.cuda.memory_allocated() if device == "cuda" else 0
    peak_memory(device)
    yield {
        "kind": "machine",
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "read": rates.read,
        "matmul": rates.matmul,
        "geometry": options.geometry,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "versions": {"cuda": torch.version.cuda} | {n: version(n) for n in ("torch", "transformers")},
    }
    lines: dict[str, Callable[..., Iterator[JSON]]] = {"ours": ours, "eager": eager, "static": static}
    for line in lines[options.contender](model, options.context, options.tokens):
        if line["kind"] == "decode":
            context = max(4, line["context"])
            line["limit"] = decode_floor(model, rates, context + options.tokens // 2)
            line["prefill_limit"] = prefill_floor(model, rates, context)
            peak = peak_memory(device)
            line["above_weights"] = None if peak is None else peak - weights
        yield line


def peak_memory(device: str) -> int | None:
    """Bytes that tensors took on a GPU at most since this was asked last."""
    if device == "cpu":
        return None
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return int(peak)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--contender", choices=CONTENDERS, required=True)
    parser.add_argument("--geometry", choices=sorted(SHAPES), default="qwen2.5-3b")
    parser.add_argument("--context", type=int, nargs="+", default=[0, 2000, 6000], metavar="TOKENS")
    parser.add_argument("--tokens", type=int, default=32, help="that count, after some that do not")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    with torch.no_grad():
        for line in measured(parser.parse_args(arguments)):
            print(json.dumps(line), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
