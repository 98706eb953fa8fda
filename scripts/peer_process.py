"""Contenders of a benchmark, each in a process of its own: its memory is its own, and ends with it.

Nothing here imports a tensor library before a process has begun to load its contender.
"""

from __future__ import annotations

import ctypes
import gc
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from introspect.bench.processor import forget_peak, peak_bytes, resident_bytes

_WARM_UP = ((5, 6, 7, 8, 9, 10, 11, 12), 4)
"""Prompt and length of the reply that a contender makes before it is measured."""
_PAGE = 4096
Made = Callable[[], Any]


class LeftOut(Exception):
    """A contender that cannot be measured here; the message says why, in one line."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What contenders are made for: a model directory, and the sizes of a session.

    `dtype` is that of this program's engine, `library_dtype` that of transformers' loop.
    `gguf` has the files for llama.cpp by dtype, or why there is none; `capacity` counts the most ids that a
    session has at once, `prefix` those of its system prompt.
    """

    model: str
    dtype: str
    library_dtype: str
    threads: int
    prefix: int
    capacity: int
    gguf: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Ready:
    """Seconds that loading took, and a first short reply, in which kernels are compiled.

    `processor` seconds were computed up to here.
    """

    load: float
    warm: float
    processor: float


def engine_maker(path: str) -> Callable[[Setting], tuple[int | None, Made]]:
    """This program's engine by a decode path."""

    def load(setting: Setting) -> tuple[int | None, Made]:
        from introspect.bench.contenders import EngineContender
        from introspect.checkpoint.loading import load_model
        from introspect.engine.decode_paths import choose_decode_path, widened_products
        from introspect.engine.engine import Engine
        from introspect.phase.config import ModelConfig

        config = {"id": setting.model, "device": "cpu", "dtype": setting.dtype}
        model: Any = load_model(ModelConfig.model_validate(config)).model
        loaded = _touched(model)
        step = choose_decode_path(model, path).step  # type: ignore[arg-type]
        widened = widened_products(model)
        return loaded, lambda: EngineContender(path, Engine(model, step=step, widened=widened))

    return load


def generate_maker(name: str) -> Callable[[Setting], tuple[int | None, Made]]:
    """transformers' `generate`, in one of the ways of `generate_contenders`."""

    def load(setting: Setting) -> tuple[int | None, Made]:
        import generate_contenders as ways
        import torch
        from transformers import AutoModelForCausalLM

        dtype = getattr(torch, setting.library_dtype)
        model = AutoModelForCausalLM.from_pretrained(setting.model, dtype=dtype).eval()
        made: dict[str, Made] = {
            "generate": lambda: ways.Generate(name, model),
            "generate-copied": lambda: ways.CopiedPrefix(name, model, setting.prefix),
            "generate-cropped": lambda: ways.CroppedCache(name, model),
            "generate-static": lambda: ways.StaticCompiled(name, model, setting.capacity),
        }
        return _touched(model), made[name]

    return load


def llama_maker(name: str, dtype: str) -> Callable[[Setting], tuple[int | None, Made]]:
    """llama.cpp on a GGUF file of the same weights."""

    def load(setting: Setting) -> tuple[int | None, Made]:
        file = Path(setting.gguf.get(dtype, ""))
        if not file.is_file():
            raise LeftOut(setting.gguf.get(dtype, "there is no GGUF file"))
        try:
            from llama_contender import LlamaContender
        except ImportError as error:
            raise LeftOut(f"llama-cpp-python is not there ({error})") from None
        before = resident_bytes()
        contender = LlamaContender(name, file, setting.capacity, setting.threads)
        # It maps the whole file, and allots its context at once.
        return None if before is None else before + file.stat().st_size, lambda: contender

    return load


MAKERS: dict[str, Callable[[Setting], tuple[int | None, Made]]] = {
    "plain": engine_maker("plain"),
    "step": engine_maker("step"),
    **{
        name: generate_maker(name)
        for name in ("generate", "generate-copied", "generate-cropped", "generate-static")
    },
    "llama.cpp-bf16": llama_maker("llama.cpp-bf16", "bfloat16"),
    "llama.cpp-fp32": llama_maker("llama.cpp-fp32", "float32"),
}


def _touched(model: Any) -> int | None:
    """Memory of this process once all its weights were read: of a mapped file it has few pages at first."""
    for parameter in model.parameters():
        flat = parameter.detach().reshape(-1)
        flat[:: max(1, _PAGE // flat.element_size())].float().sum()
    _give_back()  # what loading left behind would hide as much of a session
    return resident_bytes()


def serve(connection: Connection, name: str, setting: Setting) -> None:
    """The process of a contender: it loads, warms up, makes the turns that it is sent, and tells its peak.

    Answers are pairs of a word and what belongs to it; the word is `left out` where something went wrong.
    """
    try:
        _serve(connection, name, setting)
    except LeftOut as error:
        connection.send(("left out", str(error)))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        connection.send(("left out", f"{type(error).__name__}: {first[:160]}"))


def _serve(connection: Connection, name: str, setting: Setting) -> None:
    os.environ["OMP_NUM_THREADS"] = str(setting.threads)
    if not name.startswith("llama.cpp"):
        import torch

        torch.set_num_threads(setting.threads)
    began = time.perf_counter()
    loaded, make = MAKERS[name](setting)
    load = time.perf_counter() - began
    began = time.perf_counter()
    make().turn(*_WARM_UP)
    warm = time.perf_counter() - began
    _give_back()
    contender = make()
    forget_peak()
    connection.send(("ready", Ready(load=load, warm=warm, processor=time.process_time())))
    while (asked := connection.recv()) is not None:
        prompt, decoded = asked
        connection.send(("turn", (contender.turn(prompt, decoded), time.process_time())))
    peak = peak_bytes()
    connection.send(("peak", None if peak is None or loaded is None else peak - loaded))


def _give_back() -> None:
    """Hand memory that is free inside the process back to the system, where its allocator can."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class PeerProcess:
    """A contender in its process, seen from outside. `left_out` says why it cannot go on, once it cannot."""

    def __init__(self, name: str, setting: Setting) -> None:
        self.name = name
        self.left_out = ""
        self._computed = 0.0
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, name, setting))
        self._process.start()
        theirs.close()

    def ready(self) -> Ready:
        """Wait until it is loaded and warm. Raises LeftOut."""
        ready: Ready = self._answer()
        self._computed = ready.processor
        return ready

    def turn(self, prompt: Sequence[int], decoded: int) -> tuple[list[int], float, float]:
        """The others go on where this one cannot: its reply then is made up, and its times are no numbers."""
        try:
            if not self.left_out:
                self._connection.send((list(prompt), decoded))
                made, self._computed = self._answer()
                reply: tuple[list[int], float, float] = made
                return reply
        except (LeftOut, OSError) as error:
            self.left_out = str(error)
        return [0] * decoded, math.nan, math.nan

    def processor(self) -> float:
        return self._computed

    def end(self) -> int | None:
        """Let it end; the most bytes that it had above its weights, if the system says. Raises LeftOut."""
        self._connection.send(None)
        peak: int | None = self._answer()
        self.close()
        return peak

    def close(self) -> None:
        """End the process, whatever it does."""
        self._connection.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _answer(self) -> Any:
        try:
            word, answer = self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join(10)
            raise LeftOut(f"its process ended ({self._process.exitcode})") from None
        if word == "left out":
            raise LeftOut(answer)
        return answer
