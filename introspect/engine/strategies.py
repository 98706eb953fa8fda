"""Which class of cache a run has: `memory.strategy` chooses it, here and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from introspect.engine.cache import TokenCache
from introspect.engine.kv_cache import KVCache

STRATEGIES: dict[str, Callable[[int], TokenCache]] = {"recent": KVCache}
"""The class of cache for each `memory.strategy`; it is given the number of layers."""


def new_cache(model: Any, strategy: str = "recent") -> TokenCache:
    """An empty cache for a model. Raises KeyError for a strategy that has no class."""
    return STRATEGIES[strategy](model.config.get_text_config().num_hidden_layers)
