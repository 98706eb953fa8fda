"""What a configuration says of the K and V that a cache of its model holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SLIDING = "sliding_attention"


@dataclass(frozen=True)
class KVSizes:
    """Layers, KV heads in each, and numbers in K and in V of one head."""

    layers: int
    kv_heads: int
    head_dim: int

    @property
    def elements(self) -> int:
        """Elements of K and V of one token in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim


def kv_sizes(model_config: Any) -> KVSizes:
    """The sizes of a cache, as families with plain attention have them; 0 where nothing is said."""
    text = model_config.get_text_config()
    heads = size_in(text, "num_attention_heads")
    return KVSizes(
        layers=size_in(text, "num_hidden_layers"),
        kv_heads=size_in(text, "num_key_value_heads") or heads,
        head_dim=size_in(text, "head_dim") or size_in(text, "hidden_size") // max(1, heads),
    )


def size_in(config: Any, name: str) -> int:
    """A size of a configuration, the largest where layers differ; 0 where it has none of that name."""
    try:
        value = getattr(config, name, None)
    except Exception:  # the library has an error of its own for what differs between layers
        return 0
    sizes = value if isinstance(value, list | tuple) else [value]
    return max((size for size in sizes if isinstance(size, int)), default=0)


def hiding_layers(text_config: Any, context: int) -> list[str]:
    """Kinds of layers whose queries do not see the K and V of every token before them; sorted.

    A window that is no shorter than a context of so many tokens hides nothing; of 0 tokens none is.
    """
    kinds, window = other_layers(text_config), getattr(text_config, "sliding_window", None)
    if window and window >= (context or window + 1):
        kinds = [kind for kind in kinds if kind != SLIDING]
    return kinds


def other_layers(text_config: Any) -> list[str]:
    """Kinds of layers that a cache of K and V of every token, in each layer, does not describe; sorted.

    A sliding window counts, however long it is.
    """
    layer_types = getattr(text_config, "layer_types", None)
    kinds = sorted(set(layer_types or ()) - {"full_attention"})
    if layer_types is None and getattr(text_config, "sliding_window", None):
        kinds.append(SLIDING)
    if getattr(text_config, "num_kv_shared_layers", 0):
        kinds.append("K and V shared between layers")
    return kinds
