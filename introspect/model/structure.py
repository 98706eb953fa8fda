"""A model's structure, read from its configuration and its modules, whatever its family calls things.

The configuration gives what modules do not show (layers, heads, context); sizes that a weight shows are read
from the weight, so that fused projections, Conv1D and unnamed defaults come out right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from introspect.engine.blocks import block_list
from introspect.engine.kv_config import kv_sizes
from introspect.model.causal_lm import CausalLM
from introspect.model.context_length import context_length_of

FUSED_QKV = ("c_attn", "query_key_value", "qkv_proj", "Wqkv", "W_pack")
OUTPUT_PROJECTIONS = ("o_proj", "c_proj", "out_proj", "dense")
PartsOf = Callable[[torch.nn.Module], Sequence[torch.nn.Module | None]]


@dataclass(frozen=True)
class Structure:
    """What a decoder-only model is made of. Sizes in numbers, not bytes, except where the name says so.

    `gated_mlp` is None where the MLP has another form than two or three matrices. `attention_parameters` and
    `mlp_parameters` are those of all layers. `positions` is `rotary`, `learned` or `none found`; `rope_theta`
    is None where they are not rotary. Every count takes each tensor once, under however many names it stands.
    """

    model_type: str
    layers: int
    hidden_size: int
    attention_heads: int
    kv_heads: int
    head_dim: int
    mlp_size: int
    vocabulary: int
    parameters: int
    tensors: int
    tied_embeddings: bool
    modules: dict[str, int]
    context_length: int | None
    gated_mlp: bool | None
    activation: str
    attention_parameters: int
    mlp_parameters: int
    norm: str
    norm_eps: float | None
    norms: int
    positions: str
    rope_theta: float | None
    embedding_scale: float | None
    attention_bias: bool
    query_key_norm: bool
    dtypes: dict[str, int]
    weight_bytes: int

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes that K and V of one token take in all layers, in the dtype of most weights."""
        dtype = getattr(torch, max(self.dtypes, key=lambda name: self.dtypes[name]))
        return 2 * self.layers * self.kv_heads * self.head_dim * int(dtype.itemsize)


def read_structure(model: CausalLM) -> Structure:
    """The structure of a loaded model; works on the meta device too."""
    config = model.config.get_text_config()
    tensors = [tensor for tensor, _ in named_tensors(model)]
    dtypes: Counter[str] = Counter()
    for tensor in tensors:
        dtypes[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    heads = int(config.num_attention_heads)
    head_dim = kv_sizes(model.config).head_dim
    blocks = block_list(model)
    attention = attention_of(blocks[0]) if blocks is not None else None
    matrices = _mlp_matrices(blocks[0]) if blocks is not None else []
    mlp_size, gated = _mlp_shape(matrices, config)
    rotary = any("Rotary" in type(module).__name__ for module in model.modules())
    norms = [module for module in model.modules() if is_norm(module)]
    scale = getattr(embedding, "scalar_embed_scale", None)
    return Structure(
        model_type=str(model.config.model_type),
        layers=len(blocks) if blocks is not None else int(config.num_hidden_layers),
        hidden_size=int(config.hidden_size),
        attention_heads=heads,
        kv_heads=_kv_heads(attention, config, heads, head_dim),
        head_dim=head_dim,
        mlp_size=mlp_size,
        vocabulary=int(embedding.weight.shape[0]),
        parameters=sum(tensor.numel() for tensor in tensors),
        tensors=len(tensors),
        tied_embeddings=head is not None and head.weight is embedding.weight,
        modules=_module_counts(model),
        context_length=context_length_of(config),
        gated_mlp=gated,
        activation=_activation(config, blocks),
        attention_parameters=_parameters_of(lambda block: [attention_of(block)], blocks),
        mlp_parameters=_parameters_of(
            lambda block: [mlp_of(block)] if mlp_of(block) is not None else _mlp_matrices(block), blocks
        ),
        norm=("RMSNorm" if "RMS" in type(norms[0]).__name__ else "LayerNorm") if norms else "none",
        norm_eps=norm_eps(norms[0]) if norms else None,
        norms=len(norms),
        positions="rotary" if rotary else "learned" if _position_table(model) is not None else "none found",
        rope_theta=_rope_theta(config) if rotary else None,
        embedding_scale=None if scale is None else float(scale),
        attention_bias=attention is not None and any(m.bias is not None for m in linears(attention)[:1]),
        query_key_norm=attention is not None and any(is_norm(m) for m in attention.modules()),
        dtypes=dict(dtypes),
        weight_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
    )


def named_tensors(model: CausalLM) -> list[tuple[torch.Tensor, tuple[str, ...]]]:
    """Each tensor that holds weights, once, with every name under which it stands, in the model's order.

    Two parameters are one tensor where they are the same object or the same view of the same memory.
    """
    found: dict[Any, tuple[torch.Tensor, list[str]]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        place = parameter.data_ptr() if parameter.device.type != "meta" else 0
        key = (place, parameter.shape, parameter.stride(), parameter.dtype) if place else id(parameter)
        found.setdefault(key, (parameter, []))[1].append(name)
    return [(tensor, tuple(names)) for tensor, names in found.values()]


def attention_of(block: torch.nn.Module) -> torch.nn.Module | None:
    """The attention module of a layer."""
    return next((m for n, m in block.named_children() if is_attention(n, m)), None)


def mlp_of(block: torch.nn.Module) -> torch.nn.Module | None:
    """The MLP of a layer."""
    return next((m for n, m in block.named_children() if is_mlp(n, m)), None)


def is_attention(name: str, module: torch.nn.Module) -> bool:
    return not is_norm(module) and ("Attention" in type(module).__name__ or name in ("attn", "self_attn"))


def is_mlp(name: str, module: torch.nn.Module) -> bool:
    kind = type(module).__name__
    return name in ("mlp", "feed_forward") or "MLP" in kind or "FeedForward" in kind


def is_norm(module: torch.nn.Module) -> bool:
    return "Norm" in type(module).__name__ and getattr(module, "weight", None) is not None


def norm_eps(norm: torch.nn.Module) -> float | None:
    """What a norm adds under its root."""
    eps = _first(norm, "variance_epsilon", "eps")
    return None if eps is None else float(eps)


def is_linear(module: torch.nn.Module) -> bool:
    """Whether a module multiplies by one matrix: `Linear`, or the `Conv1D` of GPT-2."""
    weight = getattr(module, "weight", None)
    matrix = isinstance(weight, torch.Tensor) and weight.ndim == 2
    return matrix and not isinstance(module, torch.nn.Embedding)


def features(linear: Any) -> tuple[int, int]:
    """Numbers that a linear module takes and gives; the matrix of a `Conv1D` is stored transposed."""
    rows, columns = linear.weight.shape
    return (rows, columns) if type(linear).__name__ == "Conv1D" else (columns, rows)


def linears(module: torch.nn.Module) -> list[torch.nn.Module]:
    return [m for m in module.modules() if is_linear(m)]


def _kv_heads(attention: torch.nn.Module | None, config: Any, heads: int, head_dim: int) -> int:
    for name, child in attention.named_children() if attention is not None else ():
        if is_linear(child) and name == "k_proj":
            return features(child)[1] // head_dim
        if is_linear(child) and name in FUSED_QKV:
            return (features(child)[1] // head_dim - heads) // 2
    return int(_first(config, "num_key_value_heads", "num_kv_heads") or heads)


def _parameters_of(parts_of: PartsOf, blocks: torch.nn.ModuleList | None) -> int:
    """Parameters of some parts of all layers, each tensor once."""
    parts = (part for block in blocks or () for part in parts_of(block) if part is not None)
    return sum({id(p): p.numel() for module in parts for p in module.parameters()}.values())


def _mlp_matrices(block: torch.nn.Module) -> list[torch.nn.Module]:
    """The matrices of a layer's MLP, in order; they stand in the layer itself where it has no MLP module."""
    mlp = mlp_of(block)
    return linears(mlp) if mlp is not None else [m for m in block.children() if is_linear(m)]


def _activation(config: Any, blocks: torch.nn.ModuleList | None) -> str:
    """The configuration's word for the activation function, else the class that stands in the MLP."""
    named = _first(config, "hidden_activation", "hidden_act", "activation_function", "activation")
    mlp = mlp_of(blocks[0]) if blocks is not None else None
    leaves = [type(m).__name__ for m in mlp.children() if not list(m.parameters())] if mlp is not None else []
    return str(named or next((name for name in leaves if "Dropout" not in name), "unknown"))


def _mlp_shape(matrices: list[torch.nn.Module], config: Any) -> tuple[int, bool | None]:
    """Width of the MLP, and whether a gate scales it: what its last matrix takes, what its first gives."""
    if len(matrices) not in (2, 3):
        size = int(_first(config, "intermediate_size", "n_inner", "ffn_dim") or 4 * config.hidden_size)
        return size, None
    size = features(matrices[-1])[0]
    return size, len(matrices) == 3 or features(matrices[0])[1] == 2 * size


def _module_counts(model: CausalLM) -> dict[str, int]:
    """Modules with weights of their own, by class."""
    own = (m for m in model.modules() if next(m.parameters(recurse=False), None) is not None)
    return dict(sorted(Counter(type(m).__name__ for m in own).items()))


def _position_table(model: CausalLM) -> torch.nn.Module | None:
    tables = (m for m in model.modules() if isinstance(m, torch.nn.Embedding))
    return next((m for m in tables if m is not model.get_input_embeddings()), None)


def _rope_theta(config: Any) -> float | None:
    parameters = getattr(config, "rope_parameters", None) or {}
    if "rope_theta" not in parameters:
        parameters = next((p for p in parameters.values() if isinstance(p, dict)), {})
    theta = parameters.get("rope_theta", getattr(config, "rope_theta", None))
    return None if theta is None else float(theta)


def _first(owner: object, *names: str) -> Any:
    return next((v for name in names if (v := getattr(owner, name, None)) is not None), None)
