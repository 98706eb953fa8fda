"""E2: the logits that a cache leads to, against those of a single pass over the same ids.

E1 repeats the passes that filled a cache, and with them whatever the forward pass does wrong. One pass has no
cached state at all: where rounding does not explain the difference, one of the two ways is wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from introspect.audits.rounding_noise import explaining_noise
from introspect.engine.cache import TokenCache
from introspect.engine.engine import Engine
from introspect.engine.finite import largest_difference

ALARMS = {
    ("cpu", "float64"): 1e-9,
    ("cpu", "float32"): 1e-3,
    ("cpu", "bfloat16"): 0.5,
    ("cpu", "float16"): 0.1,
    ("cuda", "float32"): 1e-2,
    ("cuda", "bfloat16"): 1.0,
    ("cuda", "float16"): 0.15,
}
"""Logit differences from which rounding is no explanation any more, by device and dtype."""
NOISE_FACTOR = 4.0
"""The alarm lies at this many times what `rounding_noise` measures, where that is above the fixed one."""
LARGEST_PASS = 1 << 30
"""Bytes of activations that the one pass may take: 6,500 tokens of a model of 3B parameters."""
FORWARD_FAULT = (
    "where E1 passes, that is a deterministic fault of the forward pass, which E1 repeats and cannot see"
    " (rotary factors or attention that depend on how ids are split into passes)"
)


@dataclass(frozen=True)
class OnePass:
    """The largest difference of a logit, and from where on it is no rounding.

    `noise` is what rounding was measured to do, None where that was not needed.
    """

    size: float
    alarm: float
    noise: float | None = None

    @property
    def alarmed(self) -> bool:
        """Whether rounding does not explain the difference; a difference that is no number is alarming."""
        return not self.size <= self.alarm


def against_one_pass(engine: Engine, cache: TokenCache) -> OnePass:
    """Compare what comes after the last id of a cache with one pass over its ids. The cache is only read.

    Rounding is measured only where the difference is above the fixed alarm.
    """
    ids = list(cache.token_ids)
    cached_row = engine.forward(cache.without_last(), ids[-1:])
    recomputed_row = engine.forward(engine.new_cache(), ids)
    size = largest_difference(cached_row, recomputed_row)
    device, dtype = torch.device(engine.device).type, engine.dtype
    alarm = alarm_of_rounding(device, dtype)
    if size <= alarm:
        return OnePass(size, alarm)
    noise = explaining_noise(
        engine.model,
        lambda: largest_difference(engine.forward(engine.new_cache(), ids), recomputed_row),
        partial(explained_by_rounding, size, device, dtype),
    )
    return OnePass(size, alarm_of_rounding(device, dtype, noise), noise)


def alarm_of_rounding(device: str, dtype: str, noise: float = 0.0) -> float:
    """The logit difference above which E2 alarms; `noise` is what rounding was measured to do, if it was."""
    measured = NOISE_FACTOR * noise if math.isfinite(noise) else 0.0
    return max(ALARMS.get((device, dtype), 1.0), measured)


def explained_by_rounding(size: float, device: str, dtype: str, noise: float) -> bool:
    """Whether rounding that makes so much noise explains a difference; never one that is no number."""
    return size <= alarm_of_rounding(device, dtype, noise)


def seconds_of_one_pass(cache: TokenCache) -> float:
    """What one pass over all ids of a cache will take, by the pace of the longest pass that filled it."""
    longest = max(cache.schedule.passes, key=lambda forward_pass: len(forward_pass.token_ids))
    return longest.seconds / len(longest.token_ids) * len(cache.token_ids)


def refused_one_pass(model: Any, tokens: int) -> str | None:
    """Why a single pass over so many tokens is not made: the memory that it takes beside the cache."""
    config = model.config.get_text_config()
    hidden = config.hidden_size
    needed = tokens * (4 * hidden + 3 * (getattr(config, "intermediate_size", None) or 4 * hidden)) * 4
    if config._attn_implementation == "eager":
        needed += 2 * config.num_attention_heads * tokens * tokens * 4
    if needed <= LARGEST_PASS:
        return None
    return f"one pass over {tokens} tokens takes about {needed / 2**20:.0f} MiB of activations"
