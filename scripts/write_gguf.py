#!/usr/bin/env python
"""Write a model directory of transformers as a GGUF file for llama.cpp, its weights as they are.

    python scripts/write_gguf.py MODEL_DIRECTORY FILE [--dtype bfloat16|float32]

For measurements that feed ids: the file has no tokenizer. Llama, Qwen2 and Qwen3 with the usual rotation.
Matrices are written in the dtype, norms and biases in fp32, as llama.cpp's own converter does.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

FAMILIES = ("llama", "qwen2", "qwen3")
KINDS = {"bfloat16": "BF16", "float32": "F32"}


class NotWritable(ValueError):
    """A model that this writer has no form for; the message says why, in one line."""


def write_gguf(folder: Path, file: Path, dtype: str = "bfloat16") -> None:
    """Write the model in `folder`. The file appears under its name only when it is complete.

    Raises NotWritable for families and rotations that are not known here.
    """
    import gguf
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    why_not = _problem(config)
    if why_not:
        raise NotWritable(why_not)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    names = gguf.get_tensor_name_map(_architecture(config.model_type), config.num_hidden_layers)
    partial = file.with_name(file.name + ".partial")
    writer = gguf.GGUFWriter(partial, config.model_type)
    _add_metadata(writer, config)
    tied = model.lm_head.weight is model.get_input_embeddings().weight
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and tied:
            continue
        heads = _rotated_heads(name, config)
        if heads:
            tensor = in_pairs(tensor, heads)
        kind = gguf.GGMLQuantizationType[KINDS[dtype] if tensor.ndim > 1 else "F32"]
        written = gguf.quantize(tensor.float().numpy(), kind)
        writer.add_tensor(names.get_name(name, (".weight", ".bias")), written, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(file)


def in_pairs(weight: Any, heads: int) -> Any:
    """Rows as llama.cpp turns them for Llama: the two halves of each head alternate."""
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2).contiguous()


def _rotated_heads(name: str, config: Any) -> int:
    """Heads of a projection whose rows have to be reordered; 0 for every other tensor."""
    if config.model_type != "llama":
        return 0
    projections = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    return projections.get(name.split(".")[-2], 0)


def _problem(config: Any) -> str | None:
    if config.model_type not in FAMILIES:
        return f"no GGUF is written of {config.model_type}, only of {', '.join(FAMILIES)}"
    rotation = config.rope_parameters.get("rope_type", "default")
    if rotation != "default":
        return f"no GGUF is written of a model with the rotation '{rotation}'"
    return "no GGUF is written of biases of an MLP" if getattr(config, "mlp_bias", False) else None


def _architecture(model_type: str) -> Any:
    import gguf

    return next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == model_type)


def _add_metadata(writer: Any, config: Any) -> None:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_layer_norm_rms_eps(float(config.rms_norm_eps))
    writer.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("model", type=Path, metavar="DIR")
    parser.add_argument("file", type=Path)
    parser.add_argument("--dtype", choices=KINDS, default="bfloat16")
    options = parser.parse_args(arguments)
    try:
        write_gguf(options.model, options.file, options.dtype)
    except (OSError, NotWritable) as error:
        print(f"write_gguf: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
