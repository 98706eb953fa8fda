"""How well a model continues taught runs when it is given everything before each id: loss and figures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from tiny.batches import Batch
from tiny.corpus import Row

from introspect.prompt.formats import ChatML


def weighted_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Mean of the cross-entropy of each next id, weighted."""
    logits = model(input_ids=batch.token_ids, use_cache=False).logits[:, :-1]
    targets, weights = batch.token_ids[:, 1:], batch.weights[:, 1:]
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return (losses * weights.flatten()).sum() / weights.sum()


@torch.no_grad()
def taught_figures(model: Any, prompt_format: ChatML, rows: Iterable[Row]) -> dict[str, float]:
    """Shares of the ids to learn: nats lost per id, digits right, whole replies right to the last id."""
    nats = ids = digits = digits_right = replies = replies_right = 0.0
    digit_ids = torch.tensor([prompt_format.encode(digit)[0] for digit in "0123456789"])
    for row in rows:
        targets = torch.tensor(row.token_ids)[1:]
        learned = torch.tensor(row.learned)[1:]
        logits = model(input_ids=torch.tensor([row.token_ids]), use_cache=False).logits[0, :-1]
        nats += float(torch.nn.functional.cross_entropy(logits, targets, reduction="none")[learned].sum())
        ids += int(learned.sum())
        right = logits.argmax(dim=-1) == targets
        are_digits = learned & torch.isin(targets, digit_ids)
        digits += int(are_digits.sum())
        digits_right += int((right & are_digits).sum())
        begin = 0
        for end in torch.nonzero(learned & (targets == prompt_format.end_id)).flatten().tolist():
            reply = learned[begin : end + 1]
            replies += 1
            replies_right += bool(right[begin : end + 1][reply].all())
            begin = end + 1
    figures = {
        "loss": nats / ids,
        "digits": digits_right / max(digits, 1),
        "replies": replies_right / replies,
    }
    return {name: round(figure, 4) for name, figure in figures.items()}
