"""Logits that are no numbers: seen in every row, told with where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from introspect.engine.cache import TokenCache

NON_FINITE: Literal["non-finite"] = "non-finite"
"""How a reply ends whose next logits are not finite; also the code of K or V that are not."""
CODE = "non-finite-logits"


@dataclass(frozen=True)
class NonFinite:
    """What is wrong with a row of logits: codes of an audit, and the evidence for people."""

    codes: tuple[str, ...]
    detail: str


def is_sound(logits: torch.Tensor) -> bool:
    """Whether a distribution can be made of `logits`, `[vocabulary]`.

    -Infinity is an id that is never chosen, and legal; NaN or +Infinity anywhere, or no finite entry, is not.
    """
    return bool(torch.isfinite(logits.max()))


def examine_logits(logits: torch.Tensor, cache: TokenCache) -> NonFinite | None:
    """What is wrong with the logits after the newest slot of `cache`; None where nothing is."""
    if is_sound(logits):
        return None
    counts = {
        "NaN": int(torch.isnan(logits).sum()),
        "+Inf": int(torch.isposinf(logits).sum()),
        "-Inf": int(torch.isneginf(logits).sum()),
    }
    seen = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    place = first_not_finite(cache)
    where = "K and V are finite, so it arises behind the last attention: MLP, final norm or LM head"
    if place is not None:
        name, layer, slot = place
        where = f"{name} of layer {layer} hold NaN or Inf from slot {slot} on"
    detail = (
        f"the logits after slot {len(cache.token_ids) - 1} are not finite ({seen} of {logits.numel()});"
        f" {where}; {_hint(cache)}"
    )
    return NonFinite((CODE,) if place is None else (CODE, NON_FINITE), detail)


def first_not_finite(cache: TokenCache) -> tuple[str, int, int] | None:
    """Tensor, layer and slot of the first K or V that is not finite, by layers from below."""
    for index, layer in enumerate(cache.layers):
        for name in ("keys", "values") if layer.is_initialized else ():
            tensor = getattr(layer, name)
            # Formats of eight bits have no test of their own.
            wide = tensor if tensor.element_size() > 1 else tensor.float()
            bad = ~torch.isfinite(wide).all(dim=-1).all(dim=1)[0]
            if bool(bad.any()):
                return name, index, int(bad.nonzero()[0])
    return None


def largest_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest distance of two entries at one place; infinite where one alone is no finite number.

    Equal entries are 0 apart whatever they are, and so are two NaN.
    """
    a, b = one.double(), other.double()
    same = (a == b) | (torch.isnan(a) & torch.isnan(b))
    apart = torch.where(same, 0.0, (a - b).abs())
    return float(torch.nan_to_num(apart, nan=torch.inf, posinf=torch.inf).max()) if apart.numel() else 0.0


def _hint(cache: TokenCache) -> str:
    dtype: Any = next((layer.keys.dtype for layer in cache.layers if layer.is_initialized), None)
    if dtype == torch.float16:
        return "float16 holds nothing above 65504: run with --dtype bfloat16 or float32"
    if dtype == torch.float32 or dtype == torch.float64:
        return "look for NaN or Inf in the weight files, and compare them with their source"
    return "run with --dtype float32; if it stays, look for NaN or Inf in the weight files"
