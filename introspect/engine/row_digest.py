"""A digest of one row of logits that the device computes where the row stands: the same bits on any.

It is a sum of products of whole numbers, modulo 2^64, which no order of summation rounds: of each entry the
bit pattern, spread over 64 bits and multiplied by an odd number of its place. Two rows that differ in one
entry never share a digest; others do with a probability of about 2^-60, where the numbers of the places are
taken for random ones. It finds noise and mistakes, not somebody who looks for a collision.
"""

from __future__ import annotations

from functools import lru_cache

import torch

SHA256 = "sha256"
"""The digest of a reply is one of all bytes of its rows."""
MIX64 = "mix64"
"""The digest of a reply is one of the digests of its rows, `mixed`, eight bytes each, the lowest first."""
ROW_DIGESTS = (SHA256, MIX64)
SPREAD = -7046029254386353131
"""0x9E3779B97F4A7C15 as a signed number, the odd one nearest to 2^64 over the golden ratio."""
PLACES = -4658895280553007687
"""0xBF58476D1CE4E5B9 as a signed number, an odd multiplier of splitmix64."""
_LOW_HALF = 0xFFFFFFFF


def mixed(row: torch.Tensor) -> torch.Tensor:
    """The digest of `row`, `[vocabulary]`, fp32 or fp64: int64, `[1]`, on the device of the row."""
    words = row.contiguous().view(torch.int64 if row.dtype == torch.float64 else torch.int32).long()
    return (_folded(words * SPREAD) * _multipliers(len(row), row.device)).sum(dim=0, keepdim=True)


def digest_bytes(digest: int) -> bytes:
    """What the digest of a row adds to that of a reply."""
    return digest.to_bytes(8, "little", signed=True)


@lru_cache(maxsize=4)
def _multipliers(count: int, device: torch.device) -> torch.Tensor:
    """An odd number for each place, `[count]`, int64."""
    places = torch.arange(1, count + 1, dtype=torch.int64, device=device)
    return _folded(_folded(places * SPREAD) * PLACES) | 1


def _folded(numbers: torch.Tensor) -> torch.Tensor:
    """Numbers with their upper half mixed into the lower one; different ones stay different."""
    return numbers ^ ((numbers >> 32) & _LOW_HALF)
