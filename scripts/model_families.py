"""Small random models of many families, as directories: shapes that differ in what a cache has to hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from small_tokenizers import TOKENIZERS
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

CONTEXT = 4096
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
}
_NARROW = {"head_dim": 8}
_EXPERTS = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
}
_LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 12,
    "num_key_value_heads": 4,
}
_GROUPS = {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "n_shared_experts": 1}
_SHORT_LONG = {"short_factor": [1.0] * 4, "long_factor": [2.0, 3.0, 5.0, 8.0]}
_MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": _NARROW,
    "mistral": _NARROW | {"sliding_window": None},
    "mistral sliding": _NARROW | {"sliding_window": 64},
    "mixtral": _EXPERTS | {"sliding_window": None},
    "qwen2": {},
    "qwen2_moe": _EXPERTS | {"shared_expert_intermediate_size": 24},
    "qwen3": _NARROW,
    "qwen3_moe": _EXPERTS | _NARROW,
    "gemma": _NARROW,
    "gemma2": _NARROW,
    "gemma2 sliding": _NARROW | {"sliding_window": 64},
    "gemma3_text": _NARROW,
    "gemma3_text sliding": _NARROW | {"sliding_window": 64},
    "phi": {},
    "phi3": {"sliding_window": None},
    "phi3 longrope": {
        "sliding_window": None,
        "original_max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": "longrope", "rope_theta": 10_000.0, **_SHORT_LONG},
    },
    "phimoe": _EXPERTS | {"sliding_window": None},
    "gpt2": {},
    "gpt_bigcode": {},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gpt_neox": {},
    "gptj": {"rotary_dim": 4},
    "codegen": {"rotary_dim": 4},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "bloom": {"seq_length": CONTEXT, "max_position_embeddings": None},
    "mpt": {"max_seq_len": CONTEXT, "max_position_embeddings": None},
    "falcon": {},
    "stablelm": {},
    "starcoder2": {"sliding_window": None},
    "olmo": {},
    "olmo2": {},
    "olmo3": {},
    "olmoe": _EXPERTS,
    "granite": {},
    "granitemoe": _EXPERTS,
    "cohere": {},
    "cohere2": _NARROW,
    "persimmon": {},
    "biogpt": {},
    "deepseek_v2": _EXPERTS | _LATENT | _GROUPS,
    "deepseek_v3": _EXPERTS | _LATENT | _GROUPS,
    "minicpm3": _LATENT,
    "glm": _NARROW,
    "glm4": _NARROW,
    "glm4_moe": _EXPERTS | _GROUPS,
    "smollm3": {},
    "helium": _NARROW,
    "nemotron": {},
    "exaone4": {},
    "ernie4_5": _NARROW,
    "arcee": {},
    "dots1": _EXPERTS | _GROUPS,
    "seed_oss": _NARROW,
    "hunyuan_v1_dense": _NARROW,
    "apertus": {},
    "diffllama": {},
    "gpt_oss": _EXPERTS | _NARROW,
    "xglm": {"ffn_dim": 48, "attention_heads": 4},
    "ctrl": {"dff": 48},
    "jetmoe": _EXPERTS | {"kv_channels": 8},
    "llama4_text": _EXPERTS | _NARROW | {"intermediate_size_mlp": 48},
    "openai-gpt": {},
    "bert": {},
    "roformer": {},
    "mamba": {},
    "mamba2": {"num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1},
    "rwkv": {"attention_hidden_size": 32},
    "jamba": _EXPERTS,
    "bamba": _MAMBA,
    "falcon_h1": _MAMBA | _NARROW | {"mamba_d_ssm": 64},
    "recurrent_gemma": {"lru_width": 32},
    "qwen3_next": _EXPERTS | _NARROW,
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "minimax": _EXPERTS | _NARROW,
}
"""By name, whose first word is the type of the model: what its configuration has beside SIZES, or lacks."""
TOKENIZER_OF = {"gemma": "gemma", "llama": "llama", "mistral": "llama", "gpt2": "gpt2", "opt": "gpt2"}
"""Families whose tokenizer is another than one for ChatML."""


def write_family(name: str, folder: Path) -> Path:
    """Write a small random model of a family with a tokenizer; returns the directory.

    Raises what the library raises where it builds no such model.
    """
    kind = name.partition(" ")[0]
    tokenizer = TOKENIZERS[TOKENIZER_OF.get(kind, "qwen2")]()
    ids = {"bos_token_id": 0, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    sizes = SIZES | FAMILIES[name]
    if sizes["max_position_embeddings"] is None:
        del sizes["max_position_embeddings"]
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), **ids, **sizes)
    model = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(sum(name.encode()))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
