"""transformers' `generate` as contenders of a benchmark: with what its documentation shows for reuse."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any

import torch
from transformers import CompileConfig, DynamicCache, GenerationConfig, StaticCache

from introspect.tally import common_prefix


class FirstToken:
    """A streamer that keeps the time at which `generate` handed over the first token of a reply."""

    def __init__(self) -> None:
        self.handed = 0
        self.at = 0.0

    def put(self, value: Any) -> None:
        self.handed += 1
        if self.handed == 2:  # the prompt comes first
            self.at = time.perf_counter()

    def end(self) -> None:
        return


class Generate:
    """`generate` without reuse: every turn computes its whole prompt."""

    def __init__(self, name: str, model: Any) -> None:
        self.name = name
        self.model = model
        model.generation_config = GenerationConfig(do_sample=False, eos_token_id=None, pad_token_id=0)

    def turn(self, prompt: Sequence[int], decoded: int) -> tuple[list[int], float, float]:
        streamer = FirstToken()
        began = time.perf_counter()
        ids = torch.tensor([list(prompt)])
        with torch.no_grad():
            made = self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=decoded,
                streamer=streamer,
                **self.options(prompt),
            )
        end = time.perf_counter()
        reply = made[0, len(prompt) :].tolist()
        self.made(prompt, reply)
        return reply, streamer.at - began, end - streamer.at

    def options(self, prompt: Sequence[int]) -> dict[str, Any]:
        """What else `generate` is given for a prompt."""
        return {"past_key_values": DynamicCache(config=self.model.config)}

    def made(self, prompt: Sequence[int], reply: Sequence[int]) -> None:
        """Take note of what was computed."""

    def processor(self) -> float:
        return time.process_time()


class CopiedPrefix(Generate):
    """`generate` with a copy, for each turn, of a cache of the system prompt, the first `prefix` ids."""

    def __init__(self, name: str, model: Any, prefix: int) -> None:
        super().__init__(name, model)
        self.prefix = prefix
        self.cache: Any = None

    def options(self, prompt: Sequence[int]) -> dict[str, Any]:
        if len(prompt) <= self.prefix:
            return super().options(prompt)
        if self.cache is None:
            self.cache = DynamicCache(config=self.model.config)
            self.model(
                input_ids=torch.tensor([list(prompt[: self.prefix])]),
                past_key_values=self.cache,
                logits_to_keep=1,
            )
        return {"past_key_values": copy.deepcopy(self.cache)}


class CroppedCache(Generate):
    """`generate` with one cache that grows, cropped to what the next prompt shares with it."""

    def __init__(self, name: str, model: Any) -> None:
        super().__init__(name, model)
        self.cache = DynamicCache(config=model.config)
        self.held: list[int] = []

    def options(self, prompt: Sequence[int]) -> dict[str, Any]:
        shared = min(common_prefix(self.held, prompt), len(prompt) - 1)
        self.cache.crop(shared - len(self.held))
        return {"past_key_values": self.cache}

    def made(self, prompt: Sequence[int], reply: Sequence[int]) -> None:
        self.held = [*prompt, *reply[:-1]]


class StaticCompiled(Generate):
    """`generate` with a static cache of `capacity` tokens, without reuse; the decoding step is compiled.

    The cache is what `cache_implementation="static"` makes, made once for the whole session: made by
    `generate` it grows with the prompts, and every new size compiles anew.
    """

    def __init__(self, name: str, model: Any, capacity: int, backend: Any = "inductor") -> None:
        super().__init__(name, model)
        self.cache = StaticCache(config=model.config, max_cache_len=capacity)
        self.compiling = CompileConfig(backend=backend, mode="default")
        # Without it `generate` compiles on accelerators alone.
        self.compiling._compile_all_devices = True

    def options(self, prompt: Sequence[int]) -> dict[str, Any]:
        self.cache.reset()
        return {"past_key_values": self.cache, "compile_config": self.compiling}
