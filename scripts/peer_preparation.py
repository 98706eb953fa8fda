"""What a benchmark of contenders needs before it begins, made in processes that take their memory along."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from introspect.bench.workload import Workload

Row = dict[str, Any]


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function gives in a process of its own, which takes its memory with it."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def machine_facts(model: str, dtype: str, threads: int, works: dict[int, Workload]) -> Row:
    """Rates of the machine, the model's size and vocabulary, and the floor of each workload."""
    import torch

    from introspect.bench.floor import measure_machine, workload_floor
    from introspect.checkpoint.loading import load_model
    from introspect.engine.units import has_units
    from introspect.phase.config import ModelConfig

    torch.set_num_threads(threads)
    config = ModelConfig.model_validate({"id": model, "device": "cpu", "dtype": dtype})
    loaded: Any = load_model(config).model
    taken = str(loaded.dtype).removeprefix("torch.")
    # Without units for 16 bit products are fastest in fp32, and users of the library load a model in it.
    fast = taken if has_units(taken, "cpu") else "float32"
    machine = measure_machine(getattr(torch, fast))
    return {
        "dtype": taken,
        "library_dtype": fast,
        "weights": sum(one.numel() * one.element_size() for one in loaded.parameters()),
        "vocabulary": loaded.get_input_embeddings().weight.shape[0],
        "read": machine.read,
        "matmul": machine.matmul,
        "floors": {system: workload_floor(loaded, machine, work) for system, work in works.items()},
    }


def llama_described() -> str:
    """llama.cpp as it was built, or that it is not there."""
    try:
        from llama_contender import described
    except ImportError:
        return "without llama-cpp-python"
    return described()


def gguf_files(model: Path, folder: Path, contenders: list[str]) -> dict[str, str]:
    """The GGUF file of each dtype that is measured, or why there is none."""
    files = {}
    for name, dtype in (("llama.cpp-bf16", "bfloat16"), ("llama.cpp-fp32", "float32")):
        if name in contenders and find_spec("llama_cpp") is None:
            files[dtype] = "llama-cpp-python is not installed"
        elif name in contenders:
            file = folder / f"{model.name}-{dtype}.gguf"
            print(f"writing {file.name}", file=sys.stderr, flush=True)
            files[dtype] = apart(written_gguf, model, file, dtype)
    return files


def written_gguf(model: Path, file: Path, dtype: str) -> str:
    """Write it; its path, or why it could not be written."""
    try:
        from write_gguf import NotWritable, write_gguf

        write_gguf(model, file, dtype)
    except ImportError as error:
        return f"gguf is not there ({error})"
    except NotWritable as error:
        return str(error)
    return str(file)
