"""What the parts of a model do, in sentences with this model's own numbers: by component, and by module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from introspect.model.roles import Role
from introspect.model.structure import Structure, features, is_linear

Sentences = list[str]
WEIGHTED_BY_ONE_MORE = {"GemmaRMSNorm", "Gemma2RMSNorm", "Gemma3RMSNorm"}


def attention(s: Structure) -> Sentences:
    grouping = (
        f"Each head has keys and values of its own ({s.kv_heads} KV heads)."
        if s.kv_heads == s.attention_heads
        else f"Its {s.attention_heads} query heads share {s.kv_heads} KV heads,"
        f" {s.attention_heads // s.kv_heads} to each, so the KV cache is that much smaller."
    )
    return [
        "Attention lets each token read from itself and the tokens before it; it alone moves information"
        " between positions.",
        f"It has {s.attention_heads} heads of {s.head_dim} numbers in each of {s.layers} layers.",
        "A head compares its query with every key, scales the products, makes weights that sum to 1"
        " of them by softmax, and adds up the values with these weights.",
        grouping,
        *(["Queries and keys are normalised before they meet."] if s.query_key_norm else []),
        f"The heads' results, {s.attention_heads * s.head_dim} numbers, are projected back to {s.hidden_size}"
        " and added to the residual stream.",
    ]


def mlp(s: Structure) -> Sentences:
    gated = (
        f"Two matrices widen a token's {s.hidden_size} numbers to {s.mlp_size}; the gate goes through"
        f" {s.activation} and multiplies the other; a third matrix brings the product back."
    )
    plain = (
        f"One matrix widens a token's {s.hidden_size} numbers to {s.mlp_size}, {s.activation} is applied, and"
        " a second matrix brings them back."
    )
    unknown = f"Its inner width is {s.mlp_size}, its activation function {s.activation}."
    return [
        "The MLP works on each token alone; it sees no other position.",
        unknown if s.gated_mlp is None else gated if s.gated_mlp else plain,
        f"Those of all {s.layers} layers hold {s.mlp_parameters} of {s.parameters} parameters,"
        f" {s.mlp_parameters / s.parameters:.1%}.",
    ]


def norm(s: Structure) -> Sentences:
    method = {
        "RMSNorm": "RMSNorm divides a token's numbers by their root mean square and multiplies each channel"
        " by a learned weight; it subtracts no mean.",
        "LayerNorm": "LayerNorm subtracts a token's mean, divides by its standard deviation, then multiplies"
        " each channel by a learned weight and adds a learned bias.",
    }.get(s.norm, "No module of this model is a norm.")
    eps = f"; {s.norm_eps:g} is added to what the root is taken of" if s.norm_eps is not None else ""
    return [
        "Normalisation gives the next part numbers of a steady size, however large the residual stream has"
        " grown.",
        method,
        f"The model has {s.norms} of them{eps}.",
    ]


def embedding(s: Structure) -> Sentences:
    tied = (
        "The LM head uses the same tensor." if s.tied_embeddings else "The LM head has a matrix of its own."
    )
    scale = s.embedding_scale
    return [
        f"The embedding is a table of {s.vocabulary} rows, one for each token of the vocabulary, of"
        f" {s.hidden_size} numbers.",
        "A token's row is the first content of its residual stream.",
        *([f"Rows are multiplied by {scale:.4g} when they are read."] if scale not in (None, 1.0) else []),
        f"It holds {s.vocabulary * s.hidden_size} parameters. {tied}",
    ]


def positions(s: Structure) -> Sentences:
    if s.positions == "rotary":
        body = [
            "Positions are rotary: pairs of numbers in each query and key are turned by an angle that grows"
            " with the position, so that a product of query and key depends on their distance.",
            "Nothing is learned for it"
            + (f"; the base of the angles is {s.rope_theta:.10g}." if s.rope_theta else "."),
            "No position is added to values or to the residual stream.",
        ]
    elif s.positions == "learned":
        body = [
            f"Positions are learned: a second table has a row of {s.hidden_size} numbers for each position,"
            " added to the token's embedding before the first layer."
        ]
    else:
        body = ["No module for positions was found; they may enter the attention scores directly."]
    return [*body, *([f"The context is {s.context_length} tokens long."] if s.context_length else [])]


def residual(s: Structure) -> Sentences:
    return [
        f"The residual stream is one list of {s.hidden_size} numbers for each token, from the embedding to"
        " the LM head.",
        f"Each of the {s.layers} layers adds to it what its attention and its MLP compute:"
        f" {2 * s.layers} additions in all.",
        "Each part reads the sum of all that was added before; nothing is overwritten, though a later part"
        " may cancel an earlier one.",
        "Its state after a layer is that layer's output.",
    ]


def lm_head(s: Structure) -> Sentences:
    own = (
        "Its matrix is the embedding's own tensor, so it adds no parameters."
        if s.tied_embeddings
        else f"Its matrix is its own and holds {s.vocabulary * s.hidden_size} parameters."
    )
    return [
        f"The LM head turns the last state of a token, {s.hidden_size} numbers after the final norm, into"
        f" {s.vocabulary} logits, one for each token of the vocabulary.",
        "A logit is the product of that state with the token's row; softmax makes probabilities of them.",
        own,
    ]


def layer(s: Structure) -> Sentences:
    return [
        f"A layer is one attention and one MLP with their norms; the model has {s.layers} in a row.",
        f"What they compute is added to the residual stream of {s.hidden_size} numbers for each token.",
        f"All {s.layers} together hold {s.attention_parameters} parameters in attention and"
        f" {s.mlp_parameters} in MLPs.",
    ]


COMPONENTS: dict[str, Callable[[Structure], Sentences]] = {
    "attention": attention,
    "mlp": mlp,
    "normalisation": norm,
    "embedding": embedding,
    "positions": positions,
    "residual stream": residual,
    "lm head": lm_head,
    "layer": layer,
}


def describe(s: Structure, role: Role, name: str, module: torch.nn.Module) -> Sentences:
    """Sentences about one module: where it is, what it does, with its own sizes."""
    place = f"{name} is {_place(s, role)}."
    if is_linear(module) and role.kind != "lm head":
        taken, given = features(module)
        bias = "and adds a bias" if getattr(module, "bias", None) is not None else "without a bias"
        return [place, _purpose(s, role.kind), f"It takes {taken} numbers a token and gives {given}, {bias}."]
    if role.kind in ("norm", "final norm"):
        return [place, *_norm(name, role, module)]
    if role.kind == "position embedding":
        return [place, *positions(s)]
    whole = {
        "decoder": [
            f"It holds the embedding, the {s.layers} layers and the last {s.norm}; the LM head is outside."
        ],
        "layer list": [
            f"It holds the {s.layers} layers, numbered from 0, through which each token passes in order."
        ],
        "other": ["Its role is not known; get_layer_info lists what is inside."],
    }
    return [place, *(whole[role.kind] if role.kind in whole else COMPONENTS[_component(role)](s))]


def _component(role: Role) -> str:
    return {"lm head": "lm head", "embedding": "embedding", "mlp": "mlp", "layer": "layer"}.get(
        role.kind, "attention"
    )


def _place(s: Structure, role: Role) -> str:
    if role.layer is None:
        return {"other": "a module", "norm": "a norm", "lm head": "the LM head"}.get(
            role.kind, f"the {role.kind}"
        )
    where = f"layer {role.layer} (0 to {s.layers - 1})"
    kind = {"mlp": "MLP", "other": "module"}.get(role.kind, role.kind)
    return where if role.kind == "layer" else f"{'a' if kind == 'norm' else 'the'} {kind} of {where}"


def _purpose(s: Structure, kind: str) -> str:
    heads, kv, size = s.attention_heads, s.kv_heads, s.head_dim
    return {
        "query projection": f"It makes the queries of {heads} heads, {size} numbers each.",
        "key projection": f"It makes the keys of {kv} KV heads, {size} numbers each; they are cached.",
        "value projection": f"It makes the values of {kv} KV heads, {size} numbers each; they are cached.",
        "fused projection": f"It makes the queries of {heads} heads and the keys and values of {kv} KV heads,"
        f" {size} numbers each, in one product.",
        "attention output projection": f"It mixes the results of {heads} heads into one addition to the"
        " residual stream.",
        "mlp input projection": f"It widens each token's numbers to the MLP's {s.mlp_size}.",
        "mlp gate projection": f"It makes the gate: {s.activation} of its output multiplies the other"
        " branch.",
        "mlp output projection": "It brings the MLP's numbers back to one addition to the residual stream.",
    }.get(kind, "It multiplies each token's numbers by one matrix.")


def _norm(name: str, role: Role, module: Any) -> Sentences:
    last = name.rpartition(".")[2]
    before = {"input_layernorm": "attention", "ln_1": "attention", "ln_2": "the MLP"}.get(last)
    if role.kind == "final norm":
        before = "the LM head"
    size = module.weight.numel()
    whose = {"q_norm": "each query", "k_norm": "each key"}.get(last, "each token")
    weight = "1 + a learned weight" if type(module).__name__ in WEIGHTED_BY_ONE_MORE else "a learned weight"
    how = (
        f"It divides the {size} numbers of {whose} by their root mean square and multiplies each by {weight}."
        if "RMS" in type(module).__name__
        else f"It subtracts the mean of the {size} numbers of {whose}, divides by their standard deviation,"
        " multiplies each by a learned weight and adds a bias."
    )
    return [how, *([f"What it gives goes into {before}."] if before else [])]
