"""Questions about the architecture, answered from the structure by the words that stand in them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from introspect.errors import ToolError
from introspect.model.structure import Structure, read_structure
from introspect.tools.context import ToolContext, left_out

MOST_ANSWERS = 3
WEAK = {
    "size",
    "big",
    "large",
    "long",
    "model",
    "token",
    "weight",
    "memory",
    "dimension",
    "attention",
}
"""Words that name a topic only where nothing else in the query does."""


@dataclass(frozen=True)
class Topic:
    """What can be asked: the phrases that name it, in singular, and what is answered."""

    name: str
    phrases: tuple[str, ...]
    answer: Callable[[Structure], dict[str, Any]]


TOPICS = (
    Topic(
        "layers",
        ("layer", "block", "depth", "deep"),
        lambda s: {"layers": s.layers, "first": 0, "last": s.layers - 1},
    ),
    Topic(
        "hidden size",
        ("hidden size", "hidden", "width", "residual stream", "residual", "dimension", "d model", "channel"),
        lambda s: {"hidden_size": s.hidden_size},
    ),
    Topic(
        "attention heads",
        ("attention head", "query head", "head", "attention"),
        lambda s: {"attention_heads": s.attention_heads, "kv_heads": s.kv_heads, "head_dim": s.head_dim},
    ),
    Topic(
        "KV heads",
        ("kv head", "key value head", "key head", "value head", "grouped query", "gqa", "multi query", "kv"),
        lambda s: {
            "kv_heads": s.kv_heads,
            "attention_heads": s.attention_heads,
            "query_heads_per_kv_head": s.attention_heads // s.kv_heads,
        },
    ),
    Topic("head size", ("head dim", "head dimension", "head size"), lambda s: {"head_dim": s.head_dim}),
    Topic(
        "KV cache",
        ("kv cache", "cache", "memory per token"),
        lambda s: {
            "kv_bytes_per_token": s.kv_bytes_per_token,
            "made_of": f"2 (K and V) x {s.layers} layers x {s.kv_heads} KV heads x {s.head_dim} numbers",
        },
    ),
    Topic(
        "MLP",
        ("mlp", "feed forward", "ffn", "intermediate", "intermediate size", "neuron"),
        lambda s: {"mlp_size": s.mlp_size, "gated": s.gated_mlp, "activation": s.activation},
    ),
    Topic(
        "activation function",
        ("activation function", "nonlinearity", "silu", "gelu"),
        lambda s: {"activation": s.activation},
    ),
    Topic(
        "vocabulary",
        ("vocabulary", "vocab", "token", "vocabulary size", "vocab size"),
        lambda s: {"vocabulary": s.vocabulary},
    ),
    Topic(
        "parameters",
        ("parameter", "weight", "size", "big", "large", "tensor", "parameter count"),
        lambda s: {"parameters": s.parameters, "tensors": s.tensors, "each_tensor_counted": "once"},
    ),
    Topic(
        "number format",
        ("dtype", "precision", "bit", "byte", "number format", "memory", "gib", "bfloat16", "float32"),
        lambda s: {"parameters_by_dtype": s.dtypes, "weight_bytes": s.weight_bytes},
    ),
    Topic(
        "tied embeddings",
        ("tied", "tie", "tied embedding", "shared", "sharing", "tied weight", "shared weight"),
        lambda s: {"tied_embeddings": s.tied_embeddings, "list_them": "get_shared_weights"},
    ),
    Topic(
        "embedding",
        ("embedding",),
        lambda s: {"rows": s.vocabulary, "hidden_size": s.hidden_size, "tied_to_lm_head": s.tied_embeddings},
    ),
    Topic(
        "LM head",
        ("lm head", "output head", "language model head", "unembedding", "logit"),
        lambda s: {"takes": s.hidden_size, "gives": s.vocabulary, "tied_to_embedding": s.tied_embeddings},
    ),
    Topic(
        "normalisation",
        ("norm", "normalisation", "normalization", "rmsnorm", "layernorm", "layer norm", "rms norm"),
        lambda s: {"kind": s.norm, "count": s.norms, "eps": s.norm_eps, "queries_and_keys": s.query_key_norm},
    ),
    Topic(
        "positions",
        ("position", "positional", "position embedding", "rope", "rotary", "theta"),
        lambda s: {"positions": s.positions, "rope_theta": s.rope_theta},
    ),
    Topic(
        "context length",
        ("context", "context length", "sequence length", "longest", "long"),
        lambda s: {"context_length": s.context_length},
    ),
    Topic("bias", ("bias", "biase"), lambda s: {"bias_in_first_attention_projection": s.attention_bias}),
    Topic(
        "model family",
        ("model type", "family", "kind of model", "model"),
        lambda s: {"model_type": s.model_type},
    ),
    Topic("module classes", ("module", "class", "linear", "component"), lambda s: {"modules": s.modules}),
)


def query_architecture(context: ToolContext, query: str) -> dict[str, Any]:
    """Answer a question about the architecture, such as "how many heads".

    Args:
        query: words that name what you want to know
    """
    topics = matching_topics(query)
    if not topics:
        raise ToolError(f"no word of the query names a topic; ask about: {', '.join(t.name for t in TOPICS)}")
    structure = read_structure(context.model)
    answers = [{"topic": topic.name, **topic.answer(structure)} for topic in topics]

    def page(shown: int) -> dict[str, Any]:
        result: dict[str, Any] = {"matched_by": "keywords", "answers": answers[:shown]}
        left = [topic.name for topic in topics[shown:]]
        return result | left_out(len(left), f"ask about one at a time: {', '.join(left)}")

    return context.fit_page(page, min(MOST_ANSWERS, len(answers)))


def matching_topics(query: str) -> list[Topic]:
    """The topics that a query names, in its order; a longer phrase takes its words from shorter ones."""
    words = [_singular(word) for word in re.findall(r"[a-z0-9]+", query.casefold()[:1000])]
    phrases = {tuple(phrase.split()): topic for topic in TOPICS for phrase in topic.phrases}
    longest = max(len(phrase) for phrase in phrases)
    strong: dict[str, Topic] = {}
    weak: dict[str, Topic] = {}
    place = 0
    while place < len(words):
        for length in range(longest, 0, -1):
            topic = phrases.get(tuple(words[place : place + length]))
            if topic is not None and place + length <= len(words):
                (weak if words[place] in WEAK and length == 1 else strong).setdefault(topic.name, topic)
                place += length
                break
        else:
            place += 1
    return list((strong or weak).values())


def _singular(word: str) -> str:
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is", "as")) else word
