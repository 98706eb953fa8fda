"""Rows in batches of about equal cost, from a stream that a seed and a position determine."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tiny.corpus import Row, rows

from introspect.prompt.formats import ChatML

TRAINING_SEEDS = 1_000_000
"""Runs of the corpus are seeded from here up; evaluation uses seeds below, the tokenizer seeds far above."""
HELD_OUT_SEEDS = 500_000
TOKENIZER_SEEDS = 900_000_000
OTHER_WEIGHT = 0.03
"""Weight in the loss of ids that are not part of a reply to learn."""


@dataclass(frozen=True)
class Stage:
    """A part of the training: until this share of the time, rows of at most `length` tokens.

    With `system` false, rows begin at the first user message: more of each row is worth learning.
    """

    until: float
    length: int
    system: bool


STAGES = (Stage(0.12, 512, False), Stage(0.45, 1024, False), Stage(0.8, 1536, True), Stage(1.01, 3072, True))


@dataclass(frozen=True)
class Batch:
    """`[row, token]`: ids, right-padded, and the weight of each id in the loss."""

    token_ids: torch.Tensor
    weights: torch.Tensor


def row_stream(prompt_format: ChatML, first_seed: int, stride: int = 1) -> Iterator[tuple[int, Row]]:
    """Rows of run after run, each with the seed of its run."""
    seed = first_seed
    while True:
        for row in rows(prompt_format, random.Random(seed)):
            yield seed, row
        seed += stride


def mixed_stream(prompt_format: ChatML, first_seed: int, stride: int = 1) -> Iterator[tuple[int, Row]]:
    """Rows of many runs in random order, about half of their tokens from runs that read documents.

    A run gives twenty rows that are much alike; a short training sees more kinds of them when it takes a
    quarter of each. Most of the runs that only read begin at the task: their names are in the conversation.
    """
    seed, waiting = first_seed, list[tuple[int, Row]]()
    while True:
        rng = random.Random(-seed)
        long = [row for row in rows(prompt_format, random.Random(seed)) if rng.random() < 0.25]
        waiting += ((seed, row) for row in long)
        tokens = sum(len(row.token_ids) for row in long)
        while tokens > 0:
            seed += stride
            whole = rng.random() < 0.3
            for row in rows(prompt_format, random.Random(seed), reading=True):
                start = 0 if whole else row.token_ids.index(prompt_format.end_id) + 2
                waiting.append((seed, Row(row.token_ids[start:], row.learned[start:])))
                tokens -= len(row.token_ids) - start
        seed += stride
        if len(waiting) < 200:
            continue
        rng.shuffle(waiting)
        yield from waiting[100:]
        del waiting[100:]


def fitted(row: Row, stage: Stage, end_id: int) -> Row:
    """The row as a stage takes it: with or without its system message, cut to length."""
    start = 0 if stage.system else row.token_ids.index(end_id) + 2
    return Row(row.token_ids[start:][: stage.length], row.learned[start:][: stage.length])


def batches(
    stream: Iterator[tuple[int, Row]], stage: Stage, end_id: int, tokens: int, rng: random.Random
) -> list[Batch]:
    """About ten batches of at most `tokens` padded tokens from the stream, rows of like length together."""
    taken: list[Row] = []
    while sum(len(row.token_ids) for row in taken) < 10 * tokens:
        row = fitted(next(stream)[1], stage, end_id)
        if any(row.learned):
            taken.append(row)
    taken.sort(key=lambda row: len(row.token_ids))
    groups: list[list[Row]] = [[]]
    for row in taken:
        if len(row.token_ids) * (len(groups[-1]) + 1) > tokens and groups[-1]:
            groups.append([])
        groups[-1].append(row)
    rng.shuffle(groups)
    return [_padded(group) for group in groups]


def _padded(group: list[Row]) -> Batch:
    width = max(len(row.token_ids) for row in group)
    ids = torch.zeros((len(group), width), dtype=torch.long)
    weights = torch.zeros((len(group), width))
    for i, row in enumerate(group):
        ids[i, : len(row.token_ids)] = torch.tensor(row.token_ids)
        weights[i, : len(row.learned)] = torch.tensor(
            [1.0 if is_learned else OTHER_WEIGHT for is_learned in row.learned]
        )
    return Batch(ids, weights)
