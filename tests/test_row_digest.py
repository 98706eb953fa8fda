"""The digest of a row of logits that any device computes, beside whole numbers without limit."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.amounts import examples
from support.digest_by_hand import by_hand

from introspect.engine.row_digest import digest_bytes, mixed


def digest(row: torch.Tensor) -> bytes:
    return digest_bytes(int(mixed(row)))


rows = st.lists(st.floats(width=32), min_size=1, max_size=40)


@settings(max_examples=examples(200))
@given(row=rows, dtype=st.sampled_from([torch.float32, torch.float64]))
def test_the_digest_is_that_of_the_formula(row: list[float], dtype: torch.dtype) -> None:
    tensor = torch.tensor(row, dtype=dtype)
    assert digest(tensor) == by_hand(tensor)
    assert digest(torch.stack((tensor, tensor), dim=1)[:, 0]) == by_hand(tensor)  # whatever its strides


@settings(max_examples=examples(200))
@given(row=rows, place=st.integers(0, 39), bit=st.integers(0, 31))
def test_one_bit_of_one_entry_changes_it(row: list[float], place: int, bit: int) -> None:
    words = torch.tensor(row).view(torch.int32).clone()
    before = digest(words.view(torch.float32))
    words[place % len(row)] ^= (1 << bit) - (1 << 32 if bit == 31 else 0)
    assert digest(words.view(torch.float32)) != before


@pytest.mark.parametrize("change", ["swap", "sign", "ulp"])
def test_rows_that_differ_alike_in_two_places_have_digests_of_their_own(change: str) -> None:
    row = torch.linspace(-3, 5, 128)
    seen = {digest(row)}
    pairs = list(itertools.combinations(range(128), 2))
    for a, b in pairs:
        other = row.clone()
        if change == "swap":
            other[[a, b]] = row[[b, a]]
        elif change == "sign":
            other[[a, b]] *= -1
        else:
            other.view(torch.int32)[[a, b]] += 1
        seen.add(digest(other))
    assert len(seen) == len(pairs) + 1


def test_the_bits_of_the_digests_are_evenly_one_and_zero() -> None:
    draw = random.Random(0)
    rows_ = [torch.tensor([draw.gauss(0, 3) for _ in range(16)]) for _ in range(2000)]
    bits = [[number >> i & 1 for i in range(64)] for number in (int.from_bytes(digest(r)) for r in rows_)]
    ones = [sum(column) for column in zip(*bits, strict=True)]
    assert all(850 < count < 1150 for count in ones)  # 6.7 standard deviations
