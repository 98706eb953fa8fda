"""What the machine allows: the bytes and the operations that there have to be, over measured rates."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from introspect.bench.workload import Workload, plan
from introspect.engine.kv_config import kv_sizes
from introspect.events import JSON

_READ_BYTES = 512 * 2**20
"""Far more than any processor's caches hold."""
_ON_GPU = 8
"""Times as much of both on a GPU, where the launch of a kernel would count otherwise."""
_MATMUL = 1024
_ROUNDS = 5


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Measured rates, the best of some rounds: `read` in bytes a second, `matmul` in operations a second."""

    read: float
    matmul: float


def measure_machine(dtype: torch.dtype, device: str = "cpu") -> Machine:
    """The rates of a device; `matmul` is of the dtype. A processor has torch's threads as they are set."""
    larger = 1 if device == "cpu" else _ON_GPU
    size, width = _READ_BYTES * larger, _MATMUL * larger
    block = torch.ones(size // 4, device=device)
    read = max(size / seconds_of(block.sum, device) for _ in range(_ROUNDS))
    del block
    left, right = (torch.ones(width, width, dtype=dtype, device=device) for _ in range(2))
    matmul = max(2 * width**3 / seconds_of(lambda: left @ right, device) for _ in range(_ROUNDS))
    return Machine(read=read, matmul=matmul)


def decode_floor(model: Any, machine: Machine, context: int) -> float:
    """Seconds that a decoded token takes at least: its weights, and all K and V, are read once."""
    return (_weight_bytes(model) + context * _kv_bytes(model)) / machine.read


def prefill_floor(model: Any, machine: Machine, tokens: int) -> float:
    """Seconds that a prefill takes at least by its products of matrices, attention left out."""
    head = int(model.get_output_embeddings().weight.numel())
    return 2.0 * tokens * (_multiplied(model) - head) / machine.matmul


def workload_floor(model: Any, machine: Machine, workload: Workload) -> JSON:
    """Seconds that a workload takes at least: `whole` with its system prompt, a prefill after a `result` and
    a `prune` (None without one), a decoded token after `context` tokens, those of the median turn."""
    turns = plan(workload)
    context = round(median(turn.prompt + workload.decoded / 2 for turn in turns))
    prunes = [turn.new for turn in turns if turn.kind == "prune"]
    # The first token of a reply comes of the prefill.
    decoded = sum(
        decode_floor(model, machine, round(turn.prompt + workload.decoded / 2)) * (workload.decoded - 1)
        for turn in turns
    )
    return {
        "whole": sum(prefill_floor(model, machine, turn.new) for turn in turns) + decoded,
        "result": prefill_floor(model, machine, workload.fed + 1),
        "prune": prefill_floor(model, machine, round(median(prunes))) if prunes else None,
        "decode": decode_floor(model, machine, context),
        "context": context,
    }


def _multiplied(model: Any) -> int:
    """Weights that a token is multiplied with: not the table that it is looked up in, unless it is tied."""
    table, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    count = sum(int(parameter.numel()) for parameter in model.parameters())
    return count if table.data_ptr() == head.data_ptr() else count - int(table.numel())


def _weight_bytes(model: Any) -> int:
    return _multiplied(model) * int(next(model.parameters()).element_size())


def _kv_bytes(model: Any) -> int:
    """Bytes of K and V of one token in all layers."""
    return kv_sizes(model.config).elements * int(next(model.parameters()).element_size())


def seconds_of(run: Any, device: str = "cpu") -> float:
    """Seconds that `run` takes, whose kernels on a GPU are waited for."""
    gpu = torch.device(device).type == "cuda"
    if gpu:
        torch.cuda.synchronize()
    began = time.perf_counter()
    run()
    if gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - began
