"""llama.cpp as a contender of a benchmark, through llama-cpp-python, with its own reuse of a prefix."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import llama_cpp

BATCH = 512


class LlamaContender:
    """`Llama.generate` over one context: it keeps K and V of the prefix that the next prompt shares.

    Logits are computed for the last position of a prompt alone. K and V are fp16 and attention is the flash
    kernel, llama.cpp's own choices, which round to fp16; `exact` takes fp32 and the other kernel.
    """

    def __init__(self, name: str, file: Path, capacity: int, threads: int, exact: bool = False) -> None:
        self.name = name
        kind = llama_cpp.GGML_TYPE_F32 if exact else llama_cpp.GGML_TYPE_F16
        self.llama = llama_cpp.Llama(
            model_path=str(file),
            n_ctx=capacity,
            n_batch=BATCH,
            n_threads=threads,
            n_threads_batch=threads,
            flash_attn=not exact,
            logits_all=False,
            type_k=kind,
            type_v=kind,
            verbose=False,
        )

    def turn(self, prompt: Sequence[int], decoded: int) -> tuple[list[int], float, float]:
        began = time.perf_counter()
        tokens = self.llama.generate(list(prompt), temp=0.0, reset=True)
        reply = [next(tokens)]
        first = time.perf_counter()
        reply += islice(tokens, decoded - 1)
        end = time.perf_counter()
        tokens.close()
        return reply, first - began, end - first

    def processor(self) -> float:
        return time.process_time()

    def close(self) -> None:
        """Give the memory of the model and of its context back."""
        self.llama.close()


def described() -> str:
    """The version, and what the build was made for."""
    system = llama_cpp.llama_print_system_info().decode("utf-8", errors="replace")
    return f"llama-cpp-python {llama_cpp.__version__} ({' '.join(system.split())})"
