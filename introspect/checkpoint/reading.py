"""A model's configuration and tokenizer from its files, and the device and dtype that it is meant for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from introspect.checkpoint.config_sizes import refuse_sizes
from introspect.checkpoint.gguf_config import config_of
from introspect.checkpoint.gguf_header import read_header
from introspect.checkpoint.gguf_tokenizer import tokenizer_of
from introspect.checkpoint.library_output import quiet_library
from introspect.checkpoint.meta_model import short
from introspect.checkpoint.weight_fit import named
from introspect.display import one_line
from introspect.engine.kv_config import hiding_layers
from introspect.errors import ModelError
from introspect.model.context_length import usable_context
from introspect.phase.paths import expanded
from introspect.phase.shown_paths import shell_path
from introspect.prompt.formats import prompt_format_for
from introspect.prompt.prompt import PromptFormat
from introspect.templates.trial import refuse_costly

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model", "tekken.json")
"""Files that the library makes a tokenizer from; without any of them it makes one that knows nothing."""


@dataclass(frozen=True)
class ModelSource:
    """Where a model's files lie: `path` on disk, a directory or a GGUF file.

    `revision` is the commit for one from the hub.
    """

    name: str
    path: Path
    revision: str | None

    @property
    def shown(self) -> str:
        """The model as messages have it: its name, or where it lies as it was given."""
        return self.name if self.revision or self.name == "tiny" else shell_path(expanded(self.name))

    def without_name(self, message: str) -> str:
        """A message on this model, without what it begins with."""
        return message.removeprefix(f"{self.shown}: ").removeprefix(f"{shell_path(self.path)}: ")


@quiet_library()
def load_tokenizer(source: ModelSource) -> tuple[PreTrainedTokenizerBase, PromptFormat]:
    """The tokenizer and its prompt format. Raises ModelError for a format that is not supported."""
    from transformers import AutoTokenizer

    if source.path.is_file():
        return _with_format(tokenizer_of(read_header(source.path)), source.shown)
    if (source.path / "config.json").is_file():
        refuse_sizes(source.path, source.shown)  # the library looks there for what the tokenizer's files lack
    if not any((source.path / file).is_file() for file in VOCABULARIES):
        raise ModelError(f"{source.shown}: holds no tokenizer (tokenizer.json); download the model again")
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.path, trust_remote_code=False)
    except Exception as error:  # whatever a broken tokenizer makes the library raise
        raise ModelError(f"{source.shown}: its tokenizer cannot be read: {short(error)}") from None
    return _with_format(tokenizer, source.shown)


def _with_format(tokenizer: Any, name: str) -> tuple[PreTrainedTokenizerBase, PromptFormat]:
    refuse_costly(tokenizer.chat_template, tokenizer.special_tokens_map, name)
    return tokenizer, prompt_format_for(tokenizer, name)


@quiet_library()
def read_config(source: ModelSource) -> PreTrainedConfig:
    """The model's configuration, covered or not. Raises ModelError where it cannot be read."""
    from transformers import AutoConfig

    if source.path.is_file():
        return config_of(read_header(source.path))
    if not (source.path / "config.json").is_file():
        raise ModelError(f"{source.shown}: no config.json there; {_what_to_give(source.path)}")
    refuse_sizes(source.path, source.shown)
    try:
        return AutoConfig.from_pretrained(source.path, trust_remote_code=False)
    except Exception as error:
        if "custom code" in str(error):
            raise ModelError(
                f"{source.shown}: is a model by code of its own (auto_map), and no code from a model's"
                " repository is ever run; use a model of a family that transformers has"
            ) from None
        raise ModelError(f"{source.shown}: its config.json cannot be read: {short(error)}") from None


def _what_to_give(path: Path) -> str:
    """The end of a message on a directory that is no model's."""
    files = sorted(file.name for file in path.glob("*.gguf"))
    if not files:
        return "give the directory of a model"
    example = shell_path(path / files[0])
    return f"it holds GGUF files ({named(files)}): give one of them, such as --model {example}"


def resolve_device(name: str) -> str:
    """`auto` is the first of cuda, mps and cpu that is there. Raises ModelError for one that is not."""
    import torch

    mps = torch.backends.mps.is_available()
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"device {name}: no CUDA device is available; use --device cpu")
    if name.startswith("cuda:") and int(name[5:]) >= torch.cuda.device_count():
        raise ModelError(f"device {name}: there are {torch.cuda.device_count()} CUDA devices, counted from 0")
    if name == "mps" and not mps:
        raise ModelError("device mps: not available here; use --device cpu")
    return name


def refuse_overflow(model_config: PreTrainedConfig, dtype: str, attention: str, name: str) -> None:
    """Eager attention in fp16 overflows on Qwen2 and Qwen2.5. Raises ModelError."""
    if "float16" in dtype and "bfloat16" not in dtype and attention == "eager":
        kind = model_config.model_type
        if kind.startswith("qwen2"):
            raise ModelError(
                f"{name}: fp16 with eager attention overflows on {kind}; use attention sdpa or bf16"
            )


def refuse_quantized(config: PreTrainedConfig) -> None:
    """Raise ModelError, with the method's name, for weights that are quantized."""
    for owner in (config, config.get_text_config()):
        for key in ("quantization_config", "compression_config", "quantization"):
            found = getattr(owner, key, None)
            if found is None:
                continue
            found = found if isinstance(found, Mapping) else getattr(found, "__dict__", {})
            in_bits = any(str(name).startswith("load_in_") for name in found)
            method = found.get("quant_method") or ("bitsandbytes" if in_bits else found.get("format", key))
            shown = one_line(str(getattr(method, "value", method)))[:40]
            raise ModelError(
                f"its weights are quantized ({shown}), which is not supported; use the original model's"
            )


def refuse_uncovered_layers(model_config: PreTrainedConfig, name: str) -> None:
    """Raise ModelError for layer kinds that a cache of K and V for every token does not describe.

    A window that is no shorter than the context hides nothing and is full attention.
    """
    text = model_config.get_text_config()
    if getattr(model_config, "is_encoder_decoder", False):
        raise ModelError(f"{name}: an encoder-decoder model; only decoder-only models are supported")
    if getattr(text, "use_bidirectional_attention", False):
        raise ModelError(f"{name}: its tokens attend to later ones; only causal models are supported")
    if kinds := hiding_layers(text, usable_context(model_config) or 0):
        raise ModelError(f"{name}: has layers that the exact cache does not cover: {', '.join(kinds)}")


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """A digest of the tokenizer's whole definition."""
    return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()[:32]
