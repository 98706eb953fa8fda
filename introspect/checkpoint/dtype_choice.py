"""Which dtype a model is run in, on which device, and why; and what a dtype costs there.

`auto` on a CPU never rounds weights that fit as they are: it takes bf16 for weights that are stored in it and
a processor that computes in it, or for which kernels can be compiled that widen it, else fp32, and bf16 in
place of that only where memory does not suffice.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal

from introspect.checkpoint.device_memory import free_memory
from introspect.checkpoint.forecast import forecast_memory
from introspect.checkpoint.weights import Weights
from introspect.engine.units import can_compile, has_units
from introspect.phase.config import ModelConfig

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Need = Literal["fits", "too-large", "unknown"]
"""Whether a run in fp32 fits into the memory that is left."""

LONG_CONVERSATION = 8192
"""Tokens of a conversation with its reply where nobody says how long they may become."""
_SYSTEM_TOKENS = 4096
"""Tokens that a system prompt may take beside it: the fullest shipped one takes about half of them."""
_CHUNK = 512
_HEADROOM = 1 << 30
"""Bytes beside weights and caches: what an audit's single pass may take, and the libraries."""

DECODE_UNCOMPILED = "0.5 to 8"
"""Seconds of a reply's token in 16 bit without units for it and without a compiler, over those in fp32.

Measured on two machines: half as many bytes are read, but the library's kernels may take far longer."""

_SPELT = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class Choice:
    """A dtype as torch names it, why it was taken, and warnings: code and message of each."""

    dtype: str
    why: str
    warnings: tuple[tuple[str, str], ...] = ()


def dtype_of(
    model: ModelConfig,
    device: str,
    config: PreTrainedConfig,
    weights: Weights | None,
    kv_elements: int | None,
    tokens: int,
) -> Choice:
    """The dtype of a model on a device, from its configuration and the headers of its weights.

    `kv_elements` are those of K and V of a token in all layers, `tokens` those of a conversation.
    """
    need: Need = "unknown"
    if model.dtype == "auto" and device == "cpu":
        memory = forecast_memory(
            config,
            weights.parameters if weights else 0,
            "float32",
            kv_tokens=tokens + _SYSTEM_TOKENS,
            chunk=_CHUNK,
            kv_elements=kv_elements,
        )
        free = free_memory(device)
        if free is not None:
            # An audit repeats a run in a cache of its own.
            need = "fits" if memory.total + memory.kv + _HEADROOM <= free else "too-large"
    stored = stored_dtype(config, weights)
    units = has_units("bfloat16", device)
    compiles = device == "cpu" and can_compile()
    return choose_dtype(model.dtype, device, stored, units=units, compiles=compiles, need=need)


def stored_dtype(config: PreTrainedConfig, weights: Weights | None) -> str | None:
    """The dtype that most elements of the weights have; of files that are not here, what config.json says."""
    counts: Counter[str] = Counter()
    for tensor in weights.tensors.values() if weights else ():
        counts[tensor.dtype] += prod(tensor.shape)
    if counts:
        return spelt(counts.most_common(1)[0][0])
    return spelt(getattr(config.get_text_config(), "dtype", None))


def choose_dtype(
    asked: str, device: str, stored: str | None, *, units: bool, compiles: bool = False, need: Need
) -> Choice:
    """The dtype of a run. `asked` is `auto` or a dtype, `stored` the dtype of the weights' files.

    `units` says whether the device has such for bf16, `compiles` whether there is a compiler for it; `need`
    is of use on a CPU alone.
    """
    if asked != "auto":
        return Choice(asked, "dtype asked for", tuple(_warnings(asked, device, stored, units, compiles)))
    dtype, why = _on_cpu(stored, units, compiles, need) if device == "cpu" else _on_gpu(device, units)
    warnings = list(_warnings(dtype, device, stored, units, compiles))
    if device == "cpu" and dtype == "bfloat16" and stored != dtype:
        warnings.append(
            ("dtype-rounds", f"its weights, {_stored(stored)}, are rounded to bfloat16, for {_TOO_LARGE}")
        )
    return Choice(dtype, why, tuple(warnings))


def placement(model: ModelConfig, device: str, choice: Choice) -> str:
    """The line that says which dtype a model has, on which device, and why."""
    where = "device asked for"
    if model.device == "auto":
        where = "torch finds no GPU here" if device == "cpu" else "the first device that torch finds"
    return f"{choice.dtype} on {device}: {where}, {choice.why}"


def spelt(dtype: object) -> str | None:
    """A dtype of a configuration, or of a file's header, as torch names it; another in its own words."""
    return None if dtype is None else _SPELT.get(str(dtype), str(dtype).removeprefix("torch."))


_TOO_LARGE = "float32 would take more memory than is left"


def _on_cpu(stored: str | None, units: bool, compiles: bool, need: Need) -> tuple[str, str]:
    if stored == "bfloat16" and units:
        return "bfloat16", "stored in it, and this processor has units for it"
    if stored == "bfloat16" and compiles:
        return "bfloat16", "stored in it, widened as it is read: this processor has no units for it"
    if need == "too-large":
        return "bfloat16", _TOO_LARGE
    if stored == "bfloat16":
        return "float32", "stored in bfloat16, for which torch finds no units and no compiler here"
    if stored == "float32":
        return "float32", "its weights are read in it"
    return "float32", f"{_stored(stored)}, which bfloat16 would round"


def _on_gpu(device: str, units: bool) -> tuple[str, str]:
    if units:
        return "bfloat16", f"{device} computes in it"
    return "float16", f"{device} has no bfloat16 of its own"


def _stored(dtype: str | None) -> str:
    return f"stored in {dtype}" if dtype else "stored in a dtype that its files do not name"


def _warnings(
    dtype: str, device: str, stored: str | None, units: bool, compiles: bool
) -> list[tuple[str, str]]:
    """What a dtype does badly on a device, or to weights that are stored in another."""
    warnings = []
    if dtype == "bfloat16" and device.startswith("cuda") and not units:
        warnings.append(
            ("slow-dtype", f"{device} has no bfloat16 of its own and emulates it slowly; use float16")
        )
    narrow = dtype == "float16" or (dtype == "bfloat16" and not units)
    if device == "cpu" and narrow and not compiles:
        warnings.append(
            (
                "slow-dtype",
                f"{dtype} on a processor without units for it, and torch finds no compiler here: a decoded"
                f" token took {DECODE_UNCOMPILED} times as long as in float32 where it was measured",
            )
        )
    if dtype == "float16" and stored in ("bfloat16", "float32"):
        warnings.append(
            ("dtype-range", f"stored in {stored}, whose range float16 lacks: activations may overflow")
        )
    return warnings
