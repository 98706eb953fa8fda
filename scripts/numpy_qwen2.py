"""A Qwen2 model in numpy and fp64, from its weight file: an oracle that shares no line with torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Raw = Mapping[str, np.ndarray]
Edit = Callable[[str, np.ndarray], np.ndarray]
"""Of a part's name and what it gives, what it is to give instead."""


@dataclass
class Trace:
    """One text through the model.

    `outputs` by module name: `[token, channel]`; of a whole layer the residual stream after it. `maps` by
    layer: attention weights, `[head, query, key]`. `logits`: `[vocabulary]`, at the last position.
    """

    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    maps: list[np.ndarray] = field(default_factory=list)
    logits: np.ndarray = field(default_factory=lambda: np.zeros(0))


class NumpyQwen2:
    """`raw` are the tensors of the file by name, `config` is config.json."""

    def __init__(self, raw: Raw, config: Mapping[str, Any]) -> None:
        self.raw = {name: tensor.astype(np.float64) for name, tensor in raw.items()}
        self.config = config
        self.heads, self.kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.head_dim = config.get("head_dim") or config["hidden_size"] // self.heads

    def run(self, token_ids: Sequence[int], edit: Edit = lambda name, value: value) -> Trace:
        """A forward pass. `edit` may change what each part gives.

        It is asked by name: `layer.self_attn.heads`, `[token, head, channel]`, before the output projection;
        `layer.self_attn` and `layer.mlp`; and `layer` for what a whole layer adds to its input.
        """
        trace = Trace()
        stream = self.raw["model.embed_tokens.weight"][list(token_ids)]
        for number in range(self.config["num_hidden_layers"]):
            layer, given = f"model.layers.{number}", stream
            attended = edit(f"{layer}.self_attn", self._attention(layer, stream, edit, trace))
            stream = stream + attended
            gated = edit(f"{layer}.mlp", self._mlp(layer, stream))
            stream = given + edit(layer, stream + gated - given)
            trace.outputs |= {layer: stream, f"{layer}.self_attn": attended, f"{layer}.mlp": gated}
        trace.logits = self.read(stream[-1])
        return trace

    def read(self, stream: np.ndarray) -> np.ndarray:
        """The logits of a residual stream, `[channel]`: final norm and LM head."""
        head = self.raw.get("lm_head.weight", self.raw["model.embed_tokens.weight"])
        return np.asarray(head @ self._norm("model.norm", stream))

    def _attention(self, layer: str, stream: np.ndarray, edit: Edit, trace: Trace) -> np.ndarray:
        normed = self._norm(f"{layer}.input_layernorm", stream)
        shape = (len(stream), -1, self.head_dim)
        query, key, value = (
            self._linear(f"{layer}.self_attn.{part}_proj", normed).reshape(shape) for part in "qkv"
        )
        group = self.heads // self.kv_heads
        query, key = self._rotated(query), self._rotated(key).repeat(group, axis=1)
        scores = np.einsum("qhc,khc->hqk", query, key) / np.sqrt(self.head_dim)
        scores[:, np.triu(np.ones(scores.shape[1:], dtype=bool), 1)] = -np.inf
        weights = softmax(scores)
        trace.maps.append(weights)
        mixed = np.einsum("hqk,khc->qhc", weights, value.repeat(group, axis=1))
        mixed = edit(f"{layer}.self_attn.heads", mixed)
        return self._linear(f"{layer}.self_attn.o_proj", mixed.reshape(len(stream), -1))

    def _mlp(self, layer: str, stream: np.ndarray) -> np.ndarray:
        normed = self._norm(f"{layer}.post_attention_layernorm", stream)
        gate = self._linear(f"{layer}.mlp.gate_proj", normed)
        return self._linear(
            f"{layer}.mlp.down_proj",
            gate / (1 + np.exp(-gate)) * self._linear(f"{layer}.mlp.up_proj", normed),
        )

    def _rotated(self, heads: np.ndarray) -> np.ndarray:
        """Rotary positions, the two halves of a head as pairs (Su et al., RoFormer, 2021)."""
        base = self.config["rope_parameters"]["rope_theta"]
        angles = np.outer(np.arange(len(heads)), base ** -(np.arange(0, self.head_dim, 2) / self.head_dim))
        cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
        first, second = np.split(heads, 2, axis=-1)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)

    def _norm(self, name: str, stream: np.ndarray) -> np.ndarray:
        size = np.sqrt((stream**2).mean(axis=-1, keepdims=True) + self.config["rms_norm_eps"])
        return np.asarray(stream / size * self.raw[f"{name}.weight"])

    def _linear(self, name: str, values: np.ndarray) -> np.ndarray:
        return np.asarray(values @ self.raw[f"{name}.weight"].T + self.raw.get(f"{name}.bias", 0.0))


def softmax(scores: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def divergence(first: np.ndarray, second: np.ndarray) -> float:
    """KL(first || second) in nats, of two rows of logits."""
    p, q = softmax(first), softmax(second)
    return float((p * (np.log(p) - np.log(q))).sum())
