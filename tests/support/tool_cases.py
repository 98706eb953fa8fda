"""What tests of tools share: a context, arguments for every tool, small models of more families."""

from __future__ import annotations

from typing import Any

import torch
from small_models import FAMILIES, fill_weights, small_model
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
)

from introspect.phase.paths import tiny_model
from introspect.tools.context import ToolContext
from introspect.tools.instruments.registry import ALL_TOOLS
from introspect.tools.library import Document
from introspect.tools.note_store import NoteStore

TEXT = "The quick brown fox."
ARGUMENTS: dict[str, Any] = {
    "layer_name": "model.layers.0.self_attn", "head_idx": 0, "text": TEXT, "text_a": TEXT, "text_b": "A hen.",
    "layer_names": ["model.layers.1.mlp.up_proj"], "component": "model.layers.0.self_attn.head.1",
    "obs_type": "finding", "category": "x", "description": "y", "document": "waves", "note_id": 1,
    "layer1": "model.layers.0.mlp", "layer2": "model.layers.1.mlp", "component_type": "attention",
    "query": "how many heads", "tool": "process_text", "figure": "probability", "value": 0.5,
}  # fmt: skip
"""A value for every parameter that some tool requires; a tool with a new one needs a line here."""

SIZES: dict[str, Any] = {
    "vocab_size": 640,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
}
OTHERS: dict[str, tuple[Any, Any]] = {
    "gemma2": (
        Gemma2ForCausalLM,
        lambda: Gemma2Config(
            **SIZES,
            layer_types=["full_attention"] * 3,
            query_pre_attn_scalar=24,
            attn_logit_softcapping=2.0,
            final_logit_softcapping=3.0,
        ),
    ),
    "mistral": (MistralForCausalLM, lambda: MistralConfig(**SIZES, sliding_window=None)),
    "gpt2": (
        GPT2LMHeadModel,
        lambda: GPT2Config(
            vocab_size=640,
            n_embd=32,
            n_layer=3,
            n_head=4,
            n_positions=512,
            scale_attn_by_inverse_layer_idx=True,
            # Its own would lie outside this vocabulary.
            bos_token_id=0,
            eos_token_id=0,
        ),
    ),
}
EVERY_FAMILY = sorted([*FAMILIES, *OTHERS])
EVERY_MODEL = [*EVERY_FAMILY, "tiny"]


def family_model(family: str) -> Any:
    """A model of EVERY_MODEL in evaluation mode, fp32, 4 heads a layer: small and random, or the tiny one."""
    if family == "tiny":
        return AutoModelForCausalLM.from_pretrained(tiny_model(), dtype=torch.float32).eval()
    return small_model(family) if family in FAMILIES else random_weights(*OTHERS[family])


def random_weights(model_class: Any, config: Any, seed: int = 5) -> Any:
    """A model of a class with weights from a generator of its own."""
    model = model_class(config())
    fill_weights(model, seed)
    return model.eval()


def layer_count(model: Any) -> int:
    return int(model.config.num_hidden_layers)


def layer_prefix(model: Any) -> str:
    """What the names of a model's layers begin with."""
    return "transformer.h" if model.config.model_type == "gpt2" else "model.layers"


def attention_of(model: Any, layer: int) -> str:
    return f"{layer_prefix(model)}.{layer}.{'attn' if model.config.model_type == 'gpt2' else 'self_attn'}"


def context_for(model: Any, prompt_format: Any, budget: int = 1500) -> ToolContext:
    """A context with one document, one note, and a text that has been processed."""
    document = Document("waves", "On waves", "What waves do", tuple(f"line {i} of it" for i in range(1, 101)))
    context = ToolContext(
        model, prompt_format.encode, prompt_format.decode, NoteStore(), {"waves": document}, budget
    )
    context.processed_text = TEXT
    context.measuring = ("process_text",)
    context.notes.add("finding", "x", "an older note", 5, {}, [])
    return context


def arguments_of(name: str) -> dict[str, Any]:
    """Values for the required parameters of a tool."""
    return {p.name: ARGUMENTS[p.name] for p in ALL_TOOLS[name].parameters if p.required}


def call(context: ToolContext, name: str, **arguments: Any) -> Any:
    return ALL_TOOLS[name].call(context, arguments)


def furthest(measured: Any, reference: Any) -> float:
    """The largest difference, over the largest value of the reference."""
    measured, reference = (torch.as_tensor(one).double() for one in (measured, reference))
    assert measured.shape == reference.shape
    return float((measured - reference).abs().max() / reference.abs().max())
