"""Caches of transformers' own class, filled as a loop of anyone's would."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache

IDS = torch.randint(0, 640, (40,), generator=torch.Generator().manual_seed(3)).tolist()
LOUD = {"family": "qwen2", "key_bias": 100.0, "loud": 50.0}


def dynamic(model: Any, ids: list[int] = IDS, chunks: list[int] | None = None) -> DynamicCache:
    """A cache of transformers' own class, filled in passes of `chunks`."""
    cache = DynamicCache(config=model.config)
    begin = 0
    with torch.no_grad():
        for size in chunks or [len(ids)]:
            model(input_ids=torch.tensor([ids[begin : begin + size]]), past_key_values=cache)
            begin += size
    return cache
