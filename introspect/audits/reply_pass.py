"""A recorded reply scored in one pass over its prompt: its rows of logits, and what a record has of them."""

from __future__ import annotations

from typing import Any

import torch

from introspect.engine.decoding import TopLogits
from introspect.engine.strategies import new_cache


@torch.no_grad()
def reply_rows(model: Any, prompt: tuple[int, ...], reply: tuple[int, ...], ended: bool) -> torch.Tensor:
    """The logits before each id of a reply, `[token, vocabulary]`, in one pass.

    One row more, that after its last id, where the reply did not end there by itself.
    """
    ids = (*prompt, *(reply[:-1] if ended else reply))
    device = next(model.parameters()).device
    wanted = len(reply) + (not ended)
    output = model(
        input_ids=torch.tensor([ids], device=device),
        position_ids=torch.arange(len(ids), device=device).unsqueeze(0),
        past_key_values=new_cache(model),
        use_cache=True,
        logits_to_keep=wanted,
    )
    rows: torch.Tensor = output.logits[0, -wanted:]
    return rows.cpu() if rows.dtype == torch.float64 else rows.float().cpu()


def figures_of_rows(rows: torch.Tensor, reply: tuple[int, ...]) -> tuple[list[float], TopLogits]:
    """The log-probability of each id, and every logit at the first and the last position."""
    chances = torch.log_softmax(rows.double(), dim=-1)
    logprobs = [float(chances[i, token_id]) for i, token_id in enumerate(reply)]
    return logprobs, {"first": list(enumerate(rows[0].tolist())), "last": list(enumerate(rows[-1].tolist()))}
