"""Whether a model's files hold what its class needs: the library's own loading, done with headers alone.

The library draws what it misses at random and says so in a report that nobody need read. Here it loads
tensors that have a shape and no contents into a model on the meta device, so that renamings, conversions and
ties are its own, and what it misses is known before any weight is read.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from introspect.checkpoint.weights import PLAIN_DTYPES, LoadingReport, StoredTensor, Weights
from introspect.display import one_line
from introspect.engine.blocks import block_list_name

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAMED = 3
"""Tensors that a message names; the rest is counted."""

_COMPUTED = re.compile(r"(^|\.)(attn|attention)\.(masked_bias|causal_mask)$|(^|\.)rotary_emb\.inv_freq$")
"""Constants of causal masks and rotary positions that older versions of the library wrote to files."""


@dataclass(frozen=True)
class WeightFit:
    """What loading a model's files would leave undone, names sorted.

    `missing` are tensors of the model that no file fills, `mismatched` a sentence for each whose shape
    differs, `left_over` tensors of the files that fill nothing, `failed` conversions that cannot be made.
    """

    missing: tuple[str, ...]
    mismatched: tuple[str, ...]
    left_over: tuple[str, ...]
    failed: tuple[str, ...] = ()


def fit_weights(model: PreTrainedModel, tensors: Mapping[str, StoredTensor]) -> WeightFit | None:
    """How stored tensors fit a model on the meta device, which is spent by it.

    None where the library's loading cannot be done without contents: then only loading itself can tell.
    """
    import torch

    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import convert_and_load_state_dict_in_model
        from transformers.modeling_utils import LoadStateDictConfig

        plan = LoadStateDictConfig(
            device_map={"": "meta"},
            dtype=torch.float32,
            weight_mapping=get_model_conversion_mapping(model),
        )
        hollow = {name: torch.empty(t.shape, device="meta") for name, t in tensors.items()}
        info, _ = convert_and_load_state_dict_in_model(model, hollow, plan, None)
        model.tie_weights(missing_keys=info.missing_keys, recompute_mapping=False)
        model._adjust_missing_and_unexpected_keys(info)
    except Exception:  # another version of the library, or a conversion that looks at contents
        return None
    return fit_of(info.to_dict(), info.conversion_errors)


def worth_telling(left_over: Iterable[str]) -> list[str]:
    """Tensors that fill nothing, without those that a model computes itself today and once saved."""
    return [name for name in left_over if not _COMPUTED.search(name)]


def fit_of(info: LoadingReport, failed: Iterable[str] = ()) -> WeightFit:
    """What the library's loading report says."""
    mismatched = [
        f"{one_line(name)} has shape {tuple(stored)}, config.json asks for {tuple(expected)}"
        for name, stored, expected in sorted(info["mismatched_keys"], key=lambda key: str(key[0]))
    ]
    return WeightFit(
        tuple(sorted(map(str, info["missing_keys"]))),
        tuple(mismatched),
        tuple(sorted(map(str, info["unexpected_keys"]))),
        (*map(str, sorted(failed)), *map(str, info["error_msgs"])),
    )


def misfit(model: PreTrainedModel, fit: WeightFit, unread: frozenset[str] = frozenset()) -> str | None:
    """Why a model must not be run with weights that fit it so; None where it may.

    `unread` are names of tensors in files that the library passes over.
    """
    if fit.mismatched:
        more = f", and {len(fit.mismatched) - 1} more" if len(fit.mismatched) > 1 else ""
        return fit.mismatched[0] + more
    if fit.missing:
        count = "a tensor" if len(fit.missing) == 1 else f"{len(fit.missing)} tensors"
        hint = _why_missing(model, fit, unread)
        return (
            f"its files lack {count} that the model needs: {named(fit.missing)}; the library would draw"
            f" what is missing at random{hint} (missing-weights)"
        )
    if fit.failed:
        return f"its files cannot be turned into what the model needs: {named(fit.failed)}"
    beyond = _layers_beyond(model, fit.left_over)
    if beyond:
        layers = model.config.get_text_config().num_hidden_layers
        return (
            f"its files hold layer {beyond[0]}"
            + (f" to {beyond[-1]}" if len(beyond) > 1 else "")
            + f", counted from 0, and config.json has {layers} layers: that is not the model in the files;"
            " mend num_hidden_layers"
        )
    return None


def odd_dtypes(model: PreTrainedModel, tensors: Mapping[str, StoredTensor]) -> str | None:
    """Why weights stored in a dtype that is no plain number cannot be loaded; None where they are not needed.

    Masks and counts that former versions saved beside the weights are of such dtypes and fill nothing. The
    model is on the meta device and stays as it is.
    """
    odd = {name: t for name, t in tensors.items() if t.dtype not in PLAIN_DTYPES}
    if not odd:
        return None
    plain = {name: tensor for name, tensor in tensors.items() if name not in odd}
    without, whole = (fit_weights(copy.deepcopy(model), stored) for stored in (plain, tensors))
    if without is not None and whole is not None:
        parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        needed = (set(without.missing) - set(whole.missing)) & parameters
        if not needed and set(whole.mismatched) <= set(without.mismatched):
            return None
    names = sorted(odd)
    dtypes = sorted({one_line(tensor.dtype) for tensor in odd.values()})
    return (
        f"its weights are stored as {', '.join(dtypes)} ({named(names)}): quantized weights are not"
        " supported; use the model's original weights"
    )


def untied(model: PreTrainedModel, files: Weights) -> str | None:
    """What to warn of where the configuration ties a tensor that differs from the other in the files."""
    if not getattr(model.config.get_text_config(), "tie_word_embeddings", False):
        return None
    ties = getattr(model, "_tied_weights_keys", None)
    pairs = ties.items() if isinstance(ties, Mapping) else ()
    held = [(one, other) for one, other in pairs if {one, other} <= files.tensors.keys()]
    differing = [one for one, other in held if not files.equal(one, other)]
    if not differing:
        return None
    return (
        f"config.json ties {named(differing)} to the embedding, and its files hold another: theirs is taken"
    )


def named(names: Iterable[str]) -> str:
    """The first names of several, the rest counted: `a, b, c and 12 more`."""
    listed = [one_line(name) for name in names]
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    return ", ".join(listed[:NAMED]) + more


def _why_missing(model: PreTrainedModel, fit: WeightFit, unread: frozenset[str]) -> str:
    """A hint at what would mend it, where that can be told; empty elsewhere."""
    first = fit.missing[0]
    prefixes = {
        name.removesuffix(missing)
        for missing in fit.missing[: NAMED + 1]
        for name in fit.left_over
        if name.endswith("." + missing)
    }
    if len(prefixes) == 1:
        prefix = one_line(prefixes.pop())
        return f"; they stand in the files under the prefix '{prefix}': save the model without it"
    if set(fit.missing) & unread:
        return "; files that the index does not name hold some of them: download the model again"
    head = model.get_output_embeddings()
    is_head = head is not None and any(
        module is head for name, module in model.named_modules() if f"{name}.weight" == first
    )
    if is_head and len(fit.missing) == 1:
        return "; if the head is the embedding, set tie_word_embeddings to true in config.json"
    return "; download the model again, or mend config.json"


def _layers_beyond(model: PreTrainedModel, left_over: Iterable[str]) -> list[int]:
    """Numbers of layers of which the files hold tensors and which the model does not have."""
    blocks = block_list_name(model)
    if blocks is None:
        return []
    text = model.config.get_text_config()
    # Layers that predict further tokens are stored behind the others and used by nobody here.
    known = text.num_hidden_layers + (getattr(text, "num_nextn_predict_layers", None) or 0)
    pattern = re.compile(rf"(?:^|\.){re.escape(blocks.rpartition('.')[2])}\.(\d{{1,6}})\.")
    found = (pattern.search(name) for name in left_over)
    return sorted({int(match[1]) for match in found if match and int(match[1]) >= known})
