"""From the name of a model to a model on a device: safetensors only, no remote code, refusals by name."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from introspect.config import ModelConfig
from introspect.errors import ModelError
from introspect.model.config_sizes import refuse_sizes
from introspect.model.forecast import tensor_shapes
from introspect.model.prompt import PromptFormat
from introspect.model.prompt_format import prompt_format_for
from introspect.paths import look, shown, tiny_model

TINY = "tiny"


@dataclass(frozen=True)
class ModelSource:
    """Where a model's files lie: `path` on disk; `revision` is the commit for one from the hub."""

    name: str
    path: Path
    revision: str | None


@dataclass(frozen=True)
class LoadedModel:
    """A model ready for use. `context_length` in tokens; `weight_hash` covers every weight file."""

    source: ModelSource
    model: Any
    tokenizer: Any
    prompt_format: PromptFormat
    context_length: int
    weight_hash: str


def find_model(config: ModelConfig, weights: bool = True) -> ModelSource:
    """Find a model's files, downloading from the hub what is missing. Raises ModelError."""
    if config.id == TINY:
        if not (tiny_model() / "model.safetensors").is_file():
            raise ModelError(
                f"{tiny_model()}: the tiny model is not there; train it with scripts/train_tiny.py"
            )
        return ModelSource(TINY, tiny_model(), None)
    path, kind = look(config.id, "model ")
    if kind == "directory":
        return ModelSource(config.id, path.resolve(), None)
    if kind or config.id.startswith((".", "/", "~")) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", config.id):
        raise ModelError(f"{shown(config.id)}: no such model directory; give a directory, a hub id or 'tiny'")
    return _from_hub(config, weights)


def load_tokenizer(source: ModelSource) -> tuple[Any, PromptFormat]:
    """The tokenizer and its prompt format. Raises ModelError for a format that is not supported."""
    from transformers import AutoTokenizer

    if (source.path / "config.json").is_file():
        refuse_sizes(source.path, source.name)  # the library looks there for what the tokenizer's files lack
    _mute_library()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.path, trust_remote_code=False)
    except Exception as error:  # whatever a broken tokenizer makes the library raise
        raise ModelError(f"{source.name}: its tokenizer cannot be read: {_one_line(error)}") from None
    return tokenizer, prompt_format_for(tokenizer, source.name)


def load_config(source: ModelSource) -> Any:
    """The model's configuration. Raises ModelError for what the exact cache does not cover."""
    config = read_config(source)
    refuse_uncovered_layers(config, source.name)
    return config


def read_config(source: ModelSource) -> Any:
    """The model's configuration, covered or not. Raises ModelError where it cannot be read."""
    from transformers import AutoConfig

    if not (source.path / "config.json").is_file():
        raise ModelError(f"{source.name}: no config.json there; give the directory of a model")
    refuse_sizes(source.path, source.name)
    _mute_library()
    try:
        return AutoConfig.from_pretrained(source.path, trust_remote_code=False)
    except Exception as error:
        raise ModelError(f"{source.name}: its config.json cannot be read: {_one_line(error)}") from None


def load_model(config: ModelConfig) -> LoadedModel:
    """Load a model and its tokenizer. Raises ModelError with what is wrong and what to do."""
    from transformers import AutoModelForCausalLM

    source = find_model(config)
    model_config = load_config(source)
    tokenizer, prompt_format = load_tokenizer(source)
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device, model_config)
    refuse_overflow(model_config, str(dtype), config.attention, source.name)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            source.path,
            config=model_config,
            dtype=dtype,
            attn_implementation=config.attention,
            use_safetensors=True,
            trust_remote_code=False,
        )
        model = model.to(device).eval()
    except Exception as error:
        why = _misfit(source.path, model_config) or _one_line(error)
        raise ModelError(f"{source.name}: its weights cannot be loaded: {why}") from None
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return LoadedModel(
        source,
        model,
        tokenizer,
        prompt_format,
        int(model_config.get_text_config().max_position_embeddings),
        weight_hash(source.path),
    )


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


def resolve_dtype(name: str, device: str, model_config: Any) -> Any:
    """`auto`: bf16 where the device has it, else fp16; a model stored in fp32 stays fp32 on the CPU."""
    import torch

    if name != "auto":
        return getattr(torch, name)
    stored = getattr(model_config.get_text_config(), "dtype", None)
    if device == "cpu":
        return torch.float32 if stored in (None, torch.float32, "float32") else torch.bfloat16
    if device.startswith("cuda") and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def refuse_overflow(model_config: Any, dtype: str, attention: str, name: str) -> None:
    """Eager attention in fp16 overflows on Qwen2 and Qwen2.5. Raises ModelError."""
    if "float16" in dtype and "bfloat16" not in dtype and attention == "eager":
        kind = model_config.model_type
        if kind.startswith("qwen2"):
            raise ModelError(
                f"{name}: fp16 with eager attention overflows on {kind}; use attention sdpa or bf16"
            )


def refuse_uncovered_layers(model_config: Any, name: str) -> None:
    """Raise ModelError for layer kinds that a cache of K and V for every token does not describe."""
    text = model_config.get_text_config()
    if getattr(model_config, "is_encoder_decoder", False):
        raise ModelError(f"{name}: an encoder-decoder model; only decoder-only models are supported")
    layer_types = getattr(text, "layer_types", None)
    kinds = sorted(set(layer_types or ()) - {"full_attention"})
    if layer_types is None and getattr(text, "sliding_window", None):
        kinds.append("sliding_attention")
    if getattr(text, "num_kv_shared_layers", 0):
        kinds.append("KV shared between layers")
    if kinds:
        raise ModelError(f"{name}: has layers that the exact cache does not cover: {', '.join(kinds)}")


def weight_hash(path: Path) -> str:
    """SHA-256 over the digests of the model's safetensors files, in order of their names.

    A file that the hub cache stores under its own SHA-256 is not read again.
    """
    total = hashlib.sha256()
    for file in sorted(path.glob("*.safetensors")):
        stored = file.resolve().name
        if not re.fullmatch(r"[0-9a-f]{64}", stored):
            with file.open("rb") as stream:
                stored = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{file.name}:{stored}\n".encode())
    return total.hexdigest()


def _mute_library() -> None:
    """Keep the library's own lines from the terminal: they quote a stranger's files as they stand."""
    from transformers.utils import logging

    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()


def _misfit(path: Path, model_config: Any) -> str | None:
    """The first tensor whose shape in the files is not what the configuration asks for."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            meant = AutoModelForCausalLM.from_config(model_config, trust_remote_code=False).state_dict()
        shapes = tensor_shapes(path)
    except Exception:  # what cannot be built has no shapes to compare
        return None
    for name, shape in shapes.items():
        if name in meant and tuple(meant[name].shape) != shape:
            return f"{name} has shape {shape}, config.json asks for {tuple(meant[name].shape)}"
    return None


def _from_hub(config: ModelConfig, weights: bool) -> ModelSource:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.txt", "*.jinja"] + (["*.safetensors"] if weights else [])
    try:
        path = Path(snapshot_download(config.id, revision=config.revision, allow_patterns=patterns))
    except Exception as error:  # the hub client raises many kinds; each is the user's to put right
        raise ModelError(
            f"{config.id}: not a directory here and not to be had from the hub at"
            f" {f'revision {config.revision}' if config.revision else 'its main revision'}"
            f" ({_one_line(error)}); check the name, the revision, the network or HF_HUB_OFFLINE,"
            " or use --model tiny"
        ) from None
    if weights and not list(path.glob("*.safetensors")):
        raise ModelError(f"{config.id}: has no safetensors weights; other formats are not loaded")
    return ModelSource(config.id, path, path.name)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "…"
