"""The configuration in a GGUF file, by the library's own table of keys; what that lacks is refused.

The library passes over what its table does not name, such as a scaling of rotary positions, and the model
would then be another one than that in the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from introspect.checkpoint.config_sizes import refuse_values
from introspect.checkpoint.gguf_header import GgufFile, Value
from introspect.checkpoint.meta_model import short
from introspect.display import one_line
from introspect.errors import ModelError
from introspect.phase.shown_paths import shell_path

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

TAKEN = ("llama", "qwen2", "qwen3")
"""Architectures that the library reads whole and a cache of K and V describes; `llama` is Mistral too."""
WITHOUT_EFFECT = frozenset(["vocab_size", "attention.value_length", "rope.scaling.type", "attention.causal"])
"""Keys of an architecture that change nothing, those in `NEUTRAL` with the values there."""
NEUTRAL: dict[str, tuple[Value, ...]] = {"rope.scaling.type": ("none",), "attention.causal": (True,)}
HEAD_DIM = ("attention.key_length", "rope.dimension_count")
"""Keys that say the width of a head, all of whose elements are rotated."""
NEEDED = (
    "context_length",
    "block_count",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.layer_norm_rms_epsilon",
)
"""Keys for which the library would take another model's value where a file lacks them."""
ROPE_BASE = 10000.0
"""Of rotary positions, where a file names none (by the format's specification)."""
ROPE_FACTORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


def refuse_architecture(file: GgufFile) -> None:
    """Raise ModelError for a file of an architecture that is not read, or that is a part of a split one."""
    if (file.number("split.count") or 1) > 1:
        raise ModelError(
            f"{shell_path(file.path)}: one of {file.number('split.count')} parts of a split GGUF file; join"
            " them first (llama-gguf-split --merge)"
        )
    if file.architecture not in TAKEN:
        raise ModelError(
            f"{shell_path(file.path)}: a GGUF file of architecture '{one_line(file.architecture)[:40]}', and"
            f" those of {', '.join(TAKEN)} are read; give the directory of the original model"
        )


def config_of(file: GgufFile) -> PreTrainedConfig:
    """The library's configuration of the model in a file. Raises ModelError where it cannot be had."""
    from transformers import AutoConfig
    from transformers.modeling_gguf_pytorch_utils import GGUF_TO_TRANSFORMERS_MAPPING

    refuse_architecture(file)
    tables = GGUF_TO_TRANSFORMERS_MAPPING["config"]
    own = f"{file.architecture}."
    lacking = [own + key for key in NEEDED if own + key not in file.metadata]
    if lacking:
        raise ModelError(f"{shell_path(file.path)}: its header lacks {lacking[0]}; download it again")
    settings: dict[str, Value | None] = {
        "num_key_value_heads": file.metadata[f"{own}attention.head_count"],
        "rope_theta": ROPE_BASE,
        "model_type": file.architecture,
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "vocab_size": len(file.texts("tokenizer.ggml.tokens") or ()) or None,
    }
    for prefix in (file.architecture, "tokenizer"):
        for key, name in tables[prefix].items():
            value = file.metadata.get(f"{prefix}.{key}")
            if name is not None and value is not None:
                settings[name] = value
    if (width := file.metadata.get(f"{own}attention.key_length")) is not None:
        settings["head_dim"] = width
    refuse_values(settings, str(file.path), "its header")
    try:
        return AutoConfig.for_model(**{key: value for key, value in settings.items() if value is not None})
    except Exception as error:  # a header may ask for anything
        raise ModelError(f"{shell_path(file.path)}: its header describes no model: {short(error)}") from None


def passed_over(file: GgufFile, config: PreTrainedConfig) -> str | None:
    """What a file says of its model that its configuration does not, as a refusal; None for nothing."""
    from transformers.modeling_gguf_pytorch_utils import GGUF_TO_TRANSFORMERS_MAPPING

    known = {key for key, name in GGUF_TO_TRANSFORMERS_MAPPING["config"][file.architecture].items() if name}
    prefix = f"{file.architecture}."
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    for name in sorted(file.metadata):
        key = name.removeprefix(prefix)
        value = file.metadata[name]
        if key == name or (key in WITHOUT_EFFECT and value in NEUTRAL.get(key, (value,))):
            continue
        if key in HEAD_DIM:
            if value != width:
                return f"its header has {name} {one_line(str(value))[:40]}, and its heads are {width} wide"
        elif key not in known:
            shown = f"{one_line(name)[:60]} {one_line(str(value))[:40]}"
            return (
                f"its header asks for {shown}, which is not applied; give the directory of the original model"
            )
    factors = next((name for name in ROPE_FACTORS if name in file.tensors), None)
    if factors is not None:
        return (
            f"it changes its rotary factors ({factors}), which is not applied; give the directory of the"
            " original model"
        )
    return None
