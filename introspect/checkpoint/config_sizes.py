"""The sizes that a model's config.json gives, looked at before any library computes with them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from introspect.errors import ModelError
from introspect.model.context_length import CONTEXT_KEYS

MOST: dict[str, int] = {
    **dict.fromkeys(("num_hidden_layers", "n_layer"), 10_000),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "n_head"), 100_000),
    **dict.fromkeys(("hidden_size", "intermediate_size", "n_embd", "n_inner", "head_dim"), 1 << 24),
    "vocab_size": 1 << 28,
    **dict.fromkeys(CONTEXT_KEYS, 1 << 40),
}
"""The largest value of each key that is believed; all are at least 1."""
EACH_LAYER = frozenset(["intermediate_size"])
"""Keys that may list a size for each layer."""
OWN_HEAD_DIM = ("head_dim", "qk_nope_head_dim", "qk_rope_head_dim", "kv_channels")
"""Keys that say how wide a head is, so that it is not the hidden size divided by the number of heads."""
MAX_BYTES = 1 << 24


def refuse_sizes(path: Path, name: str) -> None:
    """Raise ModelError where the configuration in a directory has sizes that no model has.

    A file that is not JSON is left to the library that reads it.
    """
    file = path / "config.json"
    if file.stat().st_size > MAX_BYTES:
        raise ModelError(f"{name}: config.json is larger than {MAX_BYTES} bytes; a few kilobytes is usual")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return
    for part in (config, config.get("text_config")) if isinstance(config, dict) else ():
        if isinstance(part, dict):
            refuse_values(part, name, "config.json")


def refuse_values(config: Mapping[str, Any], name: str, where: str) -> None:
    """Raise ModelError where settings have sizes that no model has; `where` they are written, in words."""
    for key, most in MOST.items():
        value = config.get(key)
        sizes = value if isinstance(value, list) and key in EACH_LAYER else [value]
        if value is not None and not all(type(size) is int and 1 <= size <= most for size in sizes):
            shown = repr(value)[:40]
            raise ModelError(f"{name}: {where}: {key} is {shown}; a whole number from 1 to {most} is meant")
    _refuse_numbers(config, name, where)
    heads, kv_heads = config.get("num_attention_heads"), config.get("num_key_value_heads")
    if heads and kv_heads and heads % kv_heads:
        raise ModelError(f"{name}: {where}: {heads} attention heads cannot share {kv_heads} KV heads evenly")
    width = config.get("hidden_size")
    if heads and width and not any(map(config.get, OWN_HEAD_DIM)) and width % heads:
        raise ModelError(f"{name}: {where}: hidden_size {width} is no multiple of {heads} attention heads")


def _refuse_numbers(config: Mapping[str, Any], name: str, where: str) -> None:
    """Raise ModelError for a number with which every logit comes out wrong or as NaN."""
    for key in ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"):
        _refuse_number(key, config.get(key), name, where, zero=True)
    ropes = [config, config.get("rope_parameters"), config.get("rope_scaling")]
    ropes += [part for rope in ropes[1:] if isinstance(rope, dict) for part in rope.values()]
    for rope in ropes:
        if isinstance(rope, dict):
            for key in ("rope_theta",) if rope is config else ("rope_theta", "factor"):
                _refuse_number(key, rope.get(key), name, where, zero=False)


def _refuse_number(key: str, value: object, name: str, where: str, zero: bool) -> None:
    if value is None:
        return
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        least = "0 or more" if zero else "more than 0"
        raise ModelError(f"{name}: {where}: {key} is {repr(value)[:40]}; a number is meant, {least}")
