"""How many tokens a model can take, from its configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

CONTEXT_KEYS = (
    "max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length", "n_ctx",
)  # fmt: skip
"""Keys of a configuration that say how long a text a model was made for: MPT has the third, Bloom the fifth.

Families with ALiBi have no table that ends there, but none was trained on anything longer.
"""
LONGROPE = "longrope"
DYNAMIC = "dynamic"


def context_length_of(model_config: Any) -> int | None:
    """Tokens that a model was made for; None where its configuration does not say."""
    text = model_config.get_text_config()
    values = (getattr(text, key, None) for key in CONTEXT_KEYS)
    return next((value for value in values if type(value) is int and value >= 1), None)


def usable_context(model_config: Any) -> int | None:
    """Tokens up to which a cache is exact: those that a model was made for, or fewer where its rotary factors
    change before; None where its configuration does not say."""
    length, switch = context_length_of(model_config), rotary_switch(model_config)
    return length if length is None or switch is None else min(length, switch[1])


def rotary_switch(model_config: Any) -> tuple[str, int] | None:
    """The kind of rotary factors that change with the length, and the tokens up to which they do not.

    The library turns every position by other factors once a text is longer, so that what a cache holds from
    before is wrong. None where the factors stay.
    """
    text = model_config.get_text_config()
    switches = []
    for rope in _rope_parameters(text):
        kind = str(rope.get("rope_type", rope.get("type", "")))
        if kind == LONGROPE:
            original = rope.get("original_max_position_embeddings")
            original = original or getattr(text, "original_max_position_embeddings", None)
            switches.append((kind, original or context_length_of(model_config)))
        elif DYNAMIC in kind:
            switches.append((kind, context_length_of(model_config)))
    known = [(kind, int(length)) for kind, length in switches if length]
    return min(known, key=lambda switch: switch[1]) if known else None


def _rope_parameters(text: Any) -> Iterator[Mapping[str, Any]]:
    """The rotary parameters of a configuration: one set, or one for each type of layer."""
    found = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None)
    if isinstance(found, Mapping):
        yield found
        yield from (part for part in found.values() if isinstance(part, Mapping))
