"""What a pass of fixed shapes sees of a cache: a bucket of its slots, and where the new one is written.

A bucket is as long as it is, whatever was cached: its first slots are visible through a mask that is made
from the position, on the device. The tensors are the cache's own buffers: what a pass writes is cached where
it stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from introspect.engine.one_row import is_one_query

BUCKET = 512
"""Slots by which buckets are longer than each other: a pass reads at most so many for nothing. Chosen."""


def mask_of(slot: torch.Tensor, bucket: int, dtype: torch.dtype) -> torch.Tensor:
    """What is added to scores: 0 up to `slot`, `[1]`, -Infinity behind it; `[1, 1, 1, bucket]`."""
    hidden = torch.arange(bucket, device=slot.device) > slot
    added = torch.zeros(bucket, dtype=dtype, device=slot.device).masked_fill(hidden, -torch.inf)
    return added.view(1, 1, 1, bucket)


class BucketLayer(CacheLayerMixin):  # type: ignore[misc]
    """K and V of one layer, `[1, kv_head, slot, head_dim]`, for a pass that writes one slot.

    To whatever asks it is always as long: a length would be that of the pass that was recorded.
    """

    is_sliding = False

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, slot: torch.Tensor, bucket: int) -> None:
        super().__init__()
        self.keys, self.values = keys[:, :, :bucket], values[:, :, :bucket]
        self._slot = slot
        self.is_initialized = True

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None: ...

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write K and V, `[1, kv_head, 1, head_dim]`, at the slot; returns those of the bucket."""
        self.keys.index_copy_(2, self._slot, key_states)
        self.values.index_copy_(2, self._slot, value_states)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return int(self.keys.shape[-2]) - 1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return int(self.keys.shape[-2]), 0

    def get_max_length(self) -> int:
        return int(self.keys.shape[-2])


def bucket_cache(buffers: Sequence[torch.Tensor], slot: torch.Tensor, bucket: int) -> Any:
    """A transformers cache over `buffers`, K and V of one layer after another."""
    pairs = zip(buffers[::2], buffers[1::2], strict=True)
    return Cache(layers=[BucketLayer(keys, values, slot, bucket) for keys, values in pairs])


def attention_of_bucket(otherwise: Any) -> Any:
    """An attention function as transformers calls it; `otherwise` takes what is not one masked query.

    K and V are read once, by products over the heads that share them.
    """

    def attend(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float | None = None,
        **further: Any,
    ) -> Any:
        masked = attention_mask is not None and attention_mask.shape == (1, 1, 1, key.shape[2])
        if not masked or not is_one_query(query, further):
            return otherwise(module, query, key, value, attention_mask, scaling=scaling, **further)
        assert attention_mask is not None
        heads, groups, width = query.shape[1], key.shape[1], query.shape[-1]
        scale = width**-0.5 if scaling is None else scaling
        grouped = query.reshape(groups, heads // groups, width)
        hidden = attention_mask[0].to(query.dtype)
        scores = torch.baddbmm(hidden, grouped, key[0].transpose(1, 2), alpha=scale)
        found = torch.matmul(torch.softmax(scores, dim=-1), value[0])
        return found.reshape(1, 1, heads, value.shape[-1]), None

    return attend
