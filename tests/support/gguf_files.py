"""GGUF files of small models, written with llama.cpp's own package; names and order are spelt out here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
CONTROL, NORMAL = 3, 1


def gguf_name(name: str) -> str:
    """llama.cpp's name of a tensor of a Llama, Qwen2 or Qwen3."""
    stem, _, end = name.rpartition(".")
    if stem.startswith("model.layers."):
        _, _, layer, part = stem.split(".", 3)
        return f"blk.{layer}.{NAMES[part]}.{end}"
    return f"{NAMES[stem]}.{end}"


def in_pairs(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of a head as llama.cpp has them for Llama: the halves that a rotation turns stand side by side."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape)


def write_gguf(
    folder: Path,
    file: Path,
    kind: str = "F32",
    *,
    metadata: Mapping[str, Any] | None = None,
    without: tuple[str, ...] = (),
    tensors: Mapping[str, torch.Tensor] | None = None,
) -> Path:
    """Write a model's directory as a GGUF file; its matrices are of the GGML type `kind`, the rest is F32.

    `metadata` beat what is written of the model, `without` are keys and tensors left out, `tensors` are put
    beside the model's.
    """
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config, tokenizer = model.config, AutoTokenizer.from_pretrained(folder)
    writer = gguf.GGUFWriter(file, config.model_type)
    held = _metadata(config, tokenizer) | dict(metadata or {})
    for key, value in held.items():
        if key not in without and value is not None:
            _add(writer, key, value)
    quantised = gguf.GGMLQuantizationType[kind]
    state = {
        name: t
        for name, t in model.state_dict().items()
        if name != "lm_head.weight" or not config.tie_word_embeddings
    }
    for name, tensor in state.items():
        if config.model_type == "llama" and ("q_proj" in name or "k_proj" in name):
            tensor = in_pairs(
                tensor, config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            )
        if gguf_name(name) not in without:
            own = quantised if tensor.ndim > 1 else gguf.GGMLQuantizationType.F32
            writer.add_tensor(gguf_name(name), gguf.quantize(tensor.numpy(), own), raw_dtype=own)
    for name, tensor in (tensors or {}).items():
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _metadata(config: Any, tokenizer: Any) -> dict[str, Any]:
    kind = config.model_type
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    vocabulary = tokenizer.get_vocab()
    tokens = [f"[PAD{number}]" for number in range(config.vocab_size)]
    for token, number in vocabulary.items():
        if number < len(tokens):
            tokens[number] = token
    special = {number for number, token in tokenizer.added_tokens_decoder.items()}
    return {
        f"{kind}.context_length": config.max_position_embeddings,
        f"{kind}.block_count": config.num_hidden_layers,
        f"{kind}.embedding_length": config.hidden_size,
        f"{kind}.feed_forward_length": config.intermediate_size,
        f"{kind}.attention.head_count": config.num_attention_heads,
        f"{kind}.attention.head_count_kv": config.num_key_value_heads,
        f"{kind}.attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        f"{kind}.rope.freq_base": float(config.rope_parameters["rope_theta"]),
        f"{kind}.attention.key_length": getattr(config, "head_dim", None),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [
            CONTROL if number in special else NORMAL for number in range(len(tokens))
        ],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]],
        "tokenizer.ggml.bos_token_id": tokenizer.bos_token_id,
        "tokenizer.ggml.eos_token_id": tokenizer.eos_token_id,
        "tokenizer.ggml.padding_token_id": tokenizer.pad_token_id,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": tokenizer.chat_template,
    }


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_string(key, value)
