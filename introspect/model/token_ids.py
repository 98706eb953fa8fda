"""Ids that a caller gives, checked before a model computes on them."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index

from introspect.errors import ToolError
from introspect.model.causal_lm import CausalLM
from introspect.model.context_length import context_length_of


def checked_ids(model: CausalLM, token_ids: Sequence[int]) -> tuple[int, ...]:
    """The ids of one text as integers. Raises ToolError for none, too many and foreign ones."""
    try:
        ids = tuple(map(index, token_ids))
    except (TypeError, ValueError):
        raise ToolError("ids: give the token ids of a text, such as those of context.encode(text)") from None
    if not ids:
        raise ToolError("ids: there are none; give the token ids of a text")
    vocabulary = model.get_input_embeddings().weight.shape[0]
    wrong = next((token_id for token_id in ids if not 0 <= token_id < vocabulary), None)
    if wrong is not None:
        raise ToolError(f"ids: {wrong} is no token of this model, which has {vocabulary}")
    longest = context_length_of(model.config)
    if longest is not None and len(ids) > longest:
        raise ToolError(f"ids: {len(ids)} tokens; the model's context has {longest}")
    return ids
