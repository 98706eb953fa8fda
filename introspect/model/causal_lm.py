"""What this program asks of a causal language model of transformers, whatever its class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch


class CausalLM(Protocol):
    """A decoder-only model of transformers, as `AutoModelForCausalLM` gives it; every such model is one.

    `config` is a PretrainedConfig, whose fields differ from family to family.
    """

    @property
    def config(self) -> Any: ...

    @property
    def base_model(self) -> Any:
        """The decoder without its LM head."""

    def __call__(self, *, input_ids: torch.Tensor, **inputs: Any) -> Any:
        """One forward pass over `[batch, token]` ids; its `logits` are `[batch, token, vocabulary]`."""

    def get_input_embeddings(self) -> torch.nn.Embedding:
        """The embeddings; `weight` is `[vocabulary, hidden]`."""

    def get_output_embeddings(self) -> torch.nn.Module | None:
        """The LM head."""

    def get_submodule(self, target: str) -> torch.nn.Module:
        """The module of this dotted name. Raises AttributeError."""

    def named_modules(self) -> Iterator[tuple[str, torch.nn.Module]]:
        """Every module once, under its dotted name, the model itself first."""

    def modules(self) -> Iterator[torch.nn.Module]:
        """Every module once."""

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """The parameters by name; a tied one under each of its names where duplicates are kept."""

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Every parameter once."""
