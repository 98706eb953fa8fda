"""Where a model keeps its decoder layers."""

from __future__ import annotations

from typing import Any

import torch


def block_list_name(model: Any) -> str | None:
    """Where the list of layers stands; None where no module list is as long as the configuration says."""
    layers = getattr(model.config.get_text_config(), "num_hidden_layers", 0)
    lists = ((n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.ModuleList))
    return next((n for n, m in lists if len(m) == layers > 0), None)


def block_list(model: Any) -> torch.nn.ModuleList | None:
    """The list of the model's layers; None where there is none that can be told."""
    name = block_list_name(model)
    blocks = None if name is None else model.get_submodule(name)
    return blocks if isinstance(blocks, torch.nn.ModuleList) else None
