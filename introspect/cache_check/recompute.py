"""K and V computed again by the model's own layers, recorded, with no trace left on model or cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer

from introspect.cache_check.view import StoredLayer

BATCH = 8192
"""Rows of one batch of layer-0 projections. Chosen for memory; it changes no verdict."""


class _Enough(Exception):
    """Raised by the last layer of interest: what comes after it need not be computed."""


class _Recorder(DynamicLayer):  # type: ignore[misc]
    """Keeps what its layer computes; attention reads `past` in its place where there is one.

    `start` is the slot that the next pass begins at.
    """

    def __init__(self, past: StoredLayer | None, start: int, last: bool) -> None:
        super().__init__()
        self.past, self.start, self.last = past, start, last
        self.new: list[tuple[torch.Tensor, torch.Tensor]] = []

    def get_seq_length(self) -> int:
        return self.start

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.start + query_length, 0

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        self.new.append((key_states, value_states))
        self.start += key_states.shape[-2]
        if self.last:
            raise _Enough
        if self.past is None:
            return super().update(key_states, value_states)
        shown = (self.past.keys[None, :, : self.start], self.past.values[None, :, : self.start])
        batch = key_states.shape[0]
        return tuple(t.expand(batch, *t.shape[1:]) for t in shown)


class _Recording(Cache):  # type: ignore[misc]
    def __init__(self, layers: int, past: Sequence[StoredLayer] | None, start: int) -> None:
        last = layers - 1
        super().__init__(
            layers=[_Recorder(past[i] if past else None, start, i == last) for i in range(layers)]
        )

    def recorded(self) -> list[StoredLayer]:
        """K and V of the slots that were computed, joined; batch 1."""
        joined = []
        for layer in self.layers:
            keys, values = (torch.cat([new[i] for new in layer.new], dim=2)[0] for i in (0, 1))
            joined.append(StoredLayer(keys, values))
        return joined


@contextmanager
def eager_attention(model: Any) -> Iterator[None]:
    """The model attends with the eager backend inside the block."""
    config = model.config
    backend = config._attn_implementation
    try:
        config._attn_implementation = "eager"
        yield
    finally:
        config._attn_implementation = backend


def _run(
    model: Any, cache: _Recording, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None
) -> None:
    with suppress(_Enough):
        model.base_model(
            input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=True
        )


def recompute(
    model: Any,
    token_ids: Sequence[int],
    layers: int,
    chunks: Sequence[int],
    positions: Sequence[int] | None = None,
    past: Sequence[StoredLayer] | None = None,
    start: int = 0,
) -> list[StoredLayer]:
    """K and V of the first `layers` layers for the slots from `start` on, computed in passes of `chunks` ids.

    Args:
        model: A model that `refuse_model` accepts, inside `undisturbed`.
        token_ids: The ids of every slot.
        layers: How many layers from the first on.
        chunks: Ids of each pass.
        positions: The position of every slot; 0, 1, 2, ... where left out.
        past: K and V that attention reads in place of what is computed, so that rounding does not travel
            from slot to slot. Needed where `start` is not 0.
        start: The first slot computed.

    Returns:
        One StoredLayer per layer, `[kv_head, sum(chunks), head_dim]`, in the model's dtype.
    """
    cache = _Recording(layers, past, start)
    device = model.get_input_embeddings().weight.device
    ids = torch.tensor([list(token_ids)], device=device)
    plain = positions is None
    where = (
        torch.arange(ids.shape[1], device=device)[None] if plain else torch.tensor([positions], device=device)
    )
    begin = start
    for size in chunks:
        end = begin + size
        # Positions with a gap and no mask would be read as several packed texts.
        mask = None if plain else torch.ones((1, end), dtype=torch.long, device=device)
        _run(model, cache, ids[:, begin:end], where[:, begin:end], mask)
        begin = end
    return cache.recorded()


def first_projections(
    model: Any, token_ids: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Layer-0 K and V, `[row, kv_head, head_dim]`, of single tokens at single positions, both `[row]`."""
    keys, values = [], []
    for begin in range(0, len(token_ids), BATCH):
        cache = _Recording(1, None, 0)
        rows = slice(begin, begin + BATCH)
        _run(model, cache, token_ids[rows, None], positions[rows, None], None)
        keys.append(cache.layers[0].new[0][0][:, :, 0])
        values.append(cache.layers[0].new[0][1][:, :, 0])
    return torch.cat(keys), torch.cat(values)


def last_row_under_masks(
    model: Any, token_ids: Sequence[int], past: Sequence[StoredLayer], masks: torch.Tensor
) -> StoredLayer:
    """Layer-1 K and V of the last of `token_ids` for several masks over what it may see.

    Args:
        model: As for `recompute`.
        token_ids: The ids of every slot up to the row in question.
        past: Layers 0 and 1 as cached.
        masks: `[mask, slot]`, 1 where the row may look.

    Returns:
        K and V `[kv_head, mask, head_dim]`.
    """
    row = len(token_ids) - 1
    cache = _Recording(2, past[:2], row)
    count = masks.shape[0]
    ids = torch.tensor([[token_ids[-1]]], device=masks.device).expand(count, 1)
    positions = torch.full((count, 1), row, device=masks.device)
    _run(model, cache, ids, positions, masks)
    keys, values = cache.layers[1].new[0]
    return StoredLayer(keys[:, :, 0].transpose(0, 1), values[:, :, 0].transpose(0, 1))


def rotary_tables(model: Any, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of layer 0's rotary angles, `[position, head_dim / 2]`, float32, without scaling."""
    module = model.base_model.rotary_emb
    probe = torch.zeros(1, dtype=torch.float32, device=positions.device)
    config = model.config.get_text_config()
    arguments = {}
    if config.model_type == "gemma3_text":
        arguments["layer_type"] = config.layer_types[0]
    cos, sin = module(probe, positions[None], **arguments)
    half = cos.shape[-1] // 2
    length = torch.sqrt(cos[0, :, :half] ** 2 + sin[0, :, :half] ** 2)
    return cos[0, :, :half] / length, sin[0, :, :half] / length


def block_ranges(rows: Sequence[int], size: int, length: int) -> list[tuple[int, int]]:
    """Ranges that cover `rows`, each beginning at a multiple of `size` and not much longer than needed."""
    ranges: list[tuple[int, int]] = []
    for row in rows:
        start = row - row % size
        end = min(start + size, length)
        if ranges and ranges[-1][1] >= start:
            ranges[-1] = (ranges[-1][0], max(end, ranges[-1][1]))
        else:
            ranges.append((start, end))
    return ranges
