"""The model that a configuration describes, without weights: what its class needs, takes and keeps."""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from introspect.display import one_line
from introspect.engine.blocks import block_list
from introspect.engine.strategies import new_cache
from introspect.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_PROBE = (2, 1)
"""Tokens of the two passes of a probe: a prefill and a step, the least that shows a cache at work."""


@dataclass(frozen=True)
class CacheProbe:
    """What a model does with a cache of K and V, found by forward passes that compute nothing.

    `elements` are those of K and V of one token in all layers; None where the passes cannot be made without
    weights. `refusal` says why the cache does not describe the model; None where it does, or nobody knows.
    """

    elements: int | None
    refusal: str | None = None


def model_on_meta(model_config: PreTrainedConfig, attention: str) -> PreTrainedModel:
    """The model of a configuration on the meta device. Raises ModelError, without the model's name."""
    import torch
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(model_config)
    kind = config.model_type
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise ModelError(f"no causal language model is known of type {one_line(str(kind))}")
    build = AutoModelForCausalLM.from_config
    # Of the ways to compute experts this one alone looks at no data, so that a probe can take it.
    choices = {"attn_implementation": attention, "experts_implementation": "batched_mm"}
    try:
        with torch.device("meta"):
            model = build(config, trust_remote_code=False, **choices).eval()
    except Exception as error:  # a configuration may ask for anything
        if attention != "eager" and "scaled_dot_product_attention" in str(error):
            raise ModelError(
                f"models of type {one_line(str(kind))} have no attention {attention} in this library;"
                " use --set model.attention=eager"
            ) from None
        raise ModelError(f"no model can be built from its config.json: {short(error)}") from None
    with suppress(Exception):  # some configurations refuse to be without one
        model.config.pad_token_id = None  # a class that has one looks for it among ids, which hold no data
    return model


def is_causal(model: PreTrainedModel) -> bool:
    """Whether tokens of a model attend to none after them, as far as its layers and configuration tell."""
    blocks = block_list(model)
    causal = [m.is_causal for m in blocks.modules() if hasattr(m, "is_causal")] if blocks is not None else []
    # Encoders that can be decoders say which they are; so do some decoders, which then have it wrong.
    return all(causal) if causal else getattr(model.config, "is_decoder", None) is not False


def probe_cache(model: PreTrainedModel) -> CacheProbe:
    """Whether a model fills a cache of K and V for every token, and how large that is."""
    import torch

    device = next(model.parameters()).device
    start = 0
    try:
        cache = new_cache(model)
        with torch.no_grad(), torch.device(device):
            for count in _PROBE:
                model(
                    input_ids=torch.zeros((1, count), dtype=torch.long),
                    position_ids=torch.arange(start, start + count)[None],
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=torch.tensor([count - 1]),
                )
                start += count
    except Exception as error:  # whatever a class raises that was not written for such a cache
        # A class that looks at its data cannot be asked without any; with its weights it is asked again.
        if device.type == "meta" and ("meta" in str(error) or isinstance(error, NotImplementedError)):
            return CacheProbe(None)
        return CacheProbe(None, f"its class cannot go on from a cache of K and V: {short(error)}")
    unfilled = sum(length != start for length in cache.lengths())
    if unfilled:
        return CacheProbe(
            None,
            f"{unfilled} of its {len(cache.layers)} layers keep no K and V of every token in the cache that"
            " they are given, so that the exact cache does not cover them",
        )
    tensors = (tensor for layer in cache.layers for tensor in (layer.keys, layer.values))
    return CacheProbe(sum(tensor.numel() for tensor in tensors) // start)


def short(error: Exception) -> str:
    """The message of a library's error as one line of at most 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return one_line(text if len(text) <= 200 else text[:200] + "…")
