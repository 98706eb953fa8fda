"""Which token and which position each slot of a cache really holds, read off layer 0.

Before attention has mixed anything, V of a slot depends on its token alone, and K on its token and position.
V is compared with that of every token of the vocabulary; K with that of the token found, turned to every
position of a window at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from introspect.cache_check.recompute import BATCH, first_projections, rotary_tables
from introspect.cache_check.rounding import few_of, rounding_step
from introspect.cache_check.signs import SlotContent
from introspect.cache_check.view import StoredLayer

GROSS = 0.1
"""Length of the error over that of the row from which a slot is taken to hold something else. Set with the
fault matrix, between the error of an 8-bit copy and that of another token. Lower, and lossy copies are looked
up in the vocabulary; higher, and ids whose states are alike pass for each other."""
FITS = 0.15
"""A slot holds a token when its distance to it is at most this share of that to tokens in general. Set with
the fault matrix. Lower, and a right token with rounding is not recognised; higher, and noise is taken for
tokens."""
TOUCHED = 1e-3
"""Relative error from which an element counts as touched. Chosen: above rounding in bf16 but for one step."""
OWN_POSITION, OWN_ROUNDING = 2, 1e-5
"""A slot's own position is taken where its squared distance is at most so many times the least, plus this
share of the squares of both rows. Set with the fault matrix; lower, and a slow rotary channel names a
neighbour."""
LARGEST_WINDOW = 32768
"""Positions at most among which a slot's is looked for. Chosen for memory: a cosine for each and each
channel."""
SLOTS_AT_ONCE = 512
"""Slots that are read at a time. Chosen for memory; it changes no verdict."""


def gross_slots(stored: StoredLayer, expected: StoredLayer) -> list[int]:
    """Slots whose K or V in layer 0 is far from what is expected there, both `[kv_head, slot, head_dim]`.

    A few elements, however wrong, do not make a slot another token's.
    """
    wrong = torch.zeros(expected.length, dtype=torch.bool, device=expected.keys.device)
    for cached, wanted in ((stored.keys, expected.keys), (stored.values, expected.values)):
        error = (cached[:, : expected.length].double() - wanted.double()).abs()
        far = error.pow(2).sum(dim=(0, 2)) > GROSS**2 * wanted.double().pow(2).sum(dim=(0, 2))
        touched = (error > TOUCHED * wanted.double().abs()).sum(dim=(0, 2))
        wrong |= far & (touched > few_of(error.shape[0] * error.shape[2]))
    return [int(slot) for slot in wrong.nonzero().flatten()]


def read_slots(
    model: Any, stored: StoredLayer, slots: Sequence[int], likely: Sequence[int]
) -> dict[int, SlotContent]:
    """What each of `slots` holds in layer 0.

    Args:
        model: Inside `undisturbed`.
        stored: Layer 0, `[kv_head, slot, head_dim]`.
        slots: The slots to read.
        likely: Ids to prefer where two tokens fit equally well.
    """
    found: dict[int, SlotContent] = {}
    for begin in range(0, len(slots), SLOTS_AT_ONCE):
        some = list(slots[begin : begin + SLOTS_AT_ONCE])
        found.update(_read(model, stored, some, likely))
    return found


def _read(model: Any, stored: StoredLayer, slots: list[int], likely: Sequence[int]) -> dict[int, SlotContent]:
    where = torch.tensor(slots, device=stored.keys.device)
    keys, values = (t[:, where].transpose(0, 1) for t in (stored.keys, stored.values))
    flat = _turned(model, keys.double(), where, -1.0).to(keys.dtype)
    (key_tokens, key_fits, usual), (tokens, fits, _) = _nearest_tokens(model, (flat, values), likely)
    positions, placed = _nearest_positions(model, keys, tokens, where, stored.length, usual)
    return {
        slot: SlotContent(
            int(tokens[i]) if fits[i] else None,
            int(positions[i]) if placed[i] else None,
            int(key_tokens[i]) if key_fits[i] else None,
        )
        for i, slot in enumerate(slots)
    }


def _nearest_tokens(
    model: Any, wanted: Sequence[torch.Tensor], likely: Sequence[int]
) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """For K and for V: the token that fits each row best, whether it fits, and how far others usually lie.

    That is from the row, or from each other where they lie nearer: a K at another position is far from all.

    `wanted` are K at position 0, and V, `[row, kv_head, head_dim]`. It takes K and V of layer 0 of the whole
    vocabulary, and of no deeper layer.
    """
    vocabulary = model.get_input_embeddings().weight.shape[0]
    device = wanted[0].device
    rows = [tensor.reshape(len(tensor), -1).double() for tensor in wanted]
    best = [torch.full((len(row),), torch.inf, dtype=torch.float64, device=device) for row in rows]
    tokens = [torch.zeros(len(row), dtype=torch.long, device=device) for row in rows]
    total = [torch.zeros_like(row) for row in best]
    sums = [torch.zeros_like(row[0]) for row in rows]
    squares = [torch.zeros_like(row[0, 0]) for row in rows]
    batches = [
        torch.arange(a, min(a + BATCH, vocabulary), device=device) for a in range(0, vocabulary, BATCH)
    ]
    preferred = torch.tensor(sorted(set(likely)), device=device, dtype=torch.long)
    for ids in [preferred, *batches] if len(preferred) else batches:
        for i, candidates in enumerate(first_projections(model, ids, torch.zeros_like(ids))):
            states = candidates.reshape(len(ids), -1).double()
            distances = torch.cdist(rows[i], states)
            least, index = distances.min(dim=1)
            better = least < best[i] * (1 - 1e-9)
            best[i] = torch.where(better, least, best[i])
            tokens[i] = torch.where(better, ids[index], tokens[i])
            total[i] += distances.sum(dim=1)
            sums[i] += states.sum(dim=0)
            squares[i] += states.pow(2).sum()
    count = vocabulary + len(preferred)
    found = []
    for i, row in enumerate(wanted):
        usual = total[i] / count
        apart = (2 * (squares[i] / count - (sums[i] / count).pow(2).sum())).clamp_min(0).sqrt()
        fits = best[i] <= torch.maximum(FITS * usual, _rounding(row).sqrt())
        found.append((tokens[i], fits, torch.minimum(usual, apart)))
    return found


def _nearest_positions(
    model: Any,
    keys: torch.Tensor,
    tokens: torch.Tensor,
    slots: torch.Tensor,
    length: int,
    usual: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The position at which K of `tokens` fits `keys`, `[row, kv_head, head_dim]`, best, and whether it does.

    A slot's own position is taken where it fits no worse than the best. `usual` is how far K of other tokens
    lies: with a large bias in K every token fits the right position better than its own one fits another.
    """
    config = model.config.get_text_config()
    window = min(config.max_position_embeddings, LARGEST_WINDOW, max(4096, 4 * length))
    base = first_projections(model, tokens, torch.zeros_like(tokens))[0].double()
    cos, sin = rotary_tables(model, torch.arange(window, device=keys.device))
    half = keys.shape[-1] // 2
    a, b = base[..., :half], base[..., half:]
    c, d = keys.double()[..., :half], keys.double()[..., half:]
    along = (a * c + b * d).sum(dim=1) @ cos.double().T + (a * d - b * c).sum(dim=1) @ sin.double().T
    squares = base.pow(2).sum(dim=(1, 2)) + keys.double().pow(2).sum(dim=(1, 2))
    distances = (squares[:, None] - 2 * along).clamp_min(0)
    least, positions = distances.min(dim=1)
    inside = slots.clamp_max(window - 1)
    own = distances.gather(1, inside[:, None])[:, 0]
    positions = torch.where(
        (own <= OWN_POSITION * least + OWN_ROUNDING * squares) & (slots < window), slots, positions
    )
    chosen = distances.gather(1, positions[:, None])[:, 0]
    near = FITS**2 * torch.minimum(distances.mean(dim=1), usual**2)
    return positions, chosen <= torch.maximum(near, _rounding(keys))


def _rounding(rows: torch.Tensor) -> torch.Tensor:
    """The squared distance, `[row]`, that rounding alone can move each of `rows` by."""
    return rounding_step(rows, rows.dtype).pow(2).sum(dim=(1, 2))


def _turned(model: Any, keys: torch.Tensor, positions: torch.Tensor, sign: float) -> torch.Tensor:
    """K turned by its position's angles, backwards with `sign` -1; `[row, kv_head, head_dim]`."""
    cos, sin = (table.double()[:, None] for table in rotary_tables(model, positions))
    half = keys.shape[-1] // 2
    a, b = keys[..., :half], keys[..., half:]
    sin = sign * sin
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
