"""A decoder layer as one compiled function of one row of states: the model's own code, traced and fused.

What the modules of a layer compute for one id is traced once, on shapes, with K and V of the earlier slots
as inputs, and compiled as a whole. Nothing of a family is known here: a layer whose course depends on values,
or that asks more of its cache than to take a slot, is not traced and runs as it is. So does one in which
somebody has registered a hook, for as long as the hook is there.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch

from introspect.engine.compilation import text_of, traced
from introspect.engine.layer_call import EarlierSlots, LayerCall, Untraceable
from introspect.engine.out_of_memory import is_out_of_memory
from introspect.errors import first_line

LEAST_SLOTS = 2
"""Earlier slots from which on compiled code is right: a dimension of fewer is taken for none."""
ALIKE = 0.33
"""Share of the square root of the dtype's rounding step that the compiled layer may differ by from the layer
itself, root mean square over that of the values: 0.03 in bf16. Chosen: fused code rounds less often."""


@dataclass(frozen=True)
class LayerFunctions:
    """What the layers of a model share.

    `fuse` makes a function of a graph. `tracing` makes a block in which products and attention are those for
    one row as they are to be traced, with attention reading the slots given beside the new one. `made` has
    functions by the text of their graphs, and by what their layers look like.
    """

    fuse: Callable[[torch.fx.GraphModule], Callable[..., Any]]
    tracing: Callable[[EarlierSlots], AbstractContextManager[None]]
    made: dict[Any, Callable[..., Any]] = field(default_factory=dict)


class TracedLayer:
    """Stands in for the `forward` of a layer: the compiled function where it fits the call, else the layer's.

    The first call that can be traced is, and both are compared on it. `why_not` says why the layer runs as
    it is, None where it does not or nothing was tried yet. `number` is that of its layer in the cache.
    """

    def __init__(self, layer: torch.nn.Module, number: int, functions: LayerFunctions) -> None:
        self.layer = layer
        self.why_not: str | None = None
        self.is_traced = False
        self._forward = layer.forward
        self._number, self._functions = number, functions
        self._call: LayerCall | None = None
        self._function: Callable[..., Any] | None = None
        inside = list(layer.modules())[1:]
        self._hooks = [d for m in inside for d in (m._forward_hooks, m._forward_pre_hooks)]
        self._dictionaries = [m.__dict__ for m in inside]
        # Where each weight is held, so that one that is replaced later is the one that is read.
        self._weights = {
            f"{prefix}.{name}" if prefix else name: (held, name)
            for prefix, module in layer.named_modules()
            for held in (module._parameters, module._buffers)
            for name in held
            if held[name] is not None
        }

    def is_untouched(self) -> bool:
        """Whether no module inside has a hook, or a `forward` that somebody gave it."""
        return not any(self._hooks) and not any("forward" in own for own in self._dictionaries)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if self.why_not is None:
            call = LayerCall.of(arguments, named)
            cached = self._filled(call)
            if cached is not None and self._call is None:
                self._prepare(call, cached)
            if cached is not None and self._function is not None and call.like(self._call):
                states, key, value = self._run(call, cached)
                cached.update(key, value)
                return states
        return self._forward(*arguments, **named)

    def _filled(self, call: LayerCall) -> Any:
        """Its layer of the cache; None where this is not a pass over one id behind enough others."""
        cache = call.cache
        if cache is None or not call.tensors or call.tensors[0].shape[:2] != (1, 1):
            return None
        layer: Any = cache.layers[self._number]
        return layer if layer.is_initialized and layer.keys.shape[2] >= LEAST_SLOTS else None

    def _run(self, call: LayerCall, cached: Any) -> Any:
        assert self._function is not None
        return self._function(cached.keys, cached.values, *call.tensors, *self._held())

    def _held(self) -> list[torch.Tensor]:
        return [held[name] for held, name in self._weights.values()]

    def _prepare(self, call: LayerCall, cached: Any) -> None:
        """Trace and compile, and keep it where it computes what the layer does."""
        self._call = call
        try:
            self._function = self._compiled(call, cached)
            self._compare(call, cached)
            self.is_traced = True
        except Exception as error:  # whatever a tracer, a compiler or a family's code raises
            if is_out_of_memory(error):
                # No property of the layer: a run would go on by other kernels than its record names.
                self._call = self._function = None
                raise
            self._function, self.why_not = None, first_line(error)

    def _compiled(self, call: LayerCall, cached: Any) -> Callable[..., Any]:
        made, looks = self._functions.made, (self._looks(), call.form)
        if looks in made:
            return made[looks]
        count = len(call.tensors)

        def function(keys: torch.Tensor, values: torch.Tensor, *fixed: torch.Tensor) -> Any:
            stand_in = EarlierSlots(keys, values)
            arguments, named = call.on(fixed[:count], stand_in)
            weights = {f"layer.{n}": w for n, w in zip(self._weights, fixed[count:], strict=True)}
            with self._functions.tracing(stand_in):
                states = torch.func.functional_call(
                    _Bare(self.layer, self._forward), weights, arguments, named
                )
            if stand_in.new is None or not isinstance(states, torch.Tensor):
                raise Untraceable("it gives other results than its states and one slot of its cache")
            return states, *stand_in.new

        graph = traced(function, (*call.tensors, *self._held()), (cached.keys, cached.values))
        text = text_of(graph)
        if text not in made:
            made[text] = self._functions.fuse(graph)
        made[looks] = made[text]
        return made[text]

    def _compare(self, call: LayerCall, cached: Any) -> None:
        """Raises Untraceable where the compiled function gives anything else than the layer."""
        mine = self._run(call, cached)
        stand_in = EarlierSlots(cached.keys, cached.values, whole=True)
        arguments, named = call.on(call.tensors, stand_in)
        meant = (self._forward(*arguments, **named), *(stand_in.new or ()))
        for one, other in zip(mine, meant, strict=True):
            apart = (one.double() - other.double()).pow(2).mean().sqrt()
            allowed = ALIKE * torch.finfo(other.dtype).eps ** 0.5 * other.double().pow(2).mean().sqrt()
            if one.dtype != other.dtype or one.shape != other.shape or not bool(apart <= allowed):
                raise Untraceable("its compiled code computes something else")

    def _looks(self) -> tuple[Any, ...]:
        """All that the course of the layer can depend on but for the contents of its weights and its number.

        Layers that look the same are traced once.
        """
        modules = [
            (prefix, type(module), *_attributes(module)) for prefix, module in self.layer.named_modules()
        ]
        weights = [
            (name, w.shape, w.stride(), w.dtype) for name, w in zip(self._weights, self._held(), strict=True)
        ]
        return tuple(modules), tuple(weights)


class _Bare(torch.nn.Module):
    """A layer without its own hooks, which run around what stands in for its `forward`."""

    def __init__(self, layer: torch.nn.Module, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.layer = layer
        self._layer_forward = forward

    def forward(self, *arguments: Any, **named: Any) -> Any:
        return self._layer_forward(*arguments, **named)


def _attributes(module: torch.nn.Module) -> list[tuple[str, Any]]:
    """What a module was given beside its weights: plain values, and the identity of everything else."""
    return [
        (name, value if isinstance(value, (int, float, str, bool, type(None))) else id(value))
        for name, value in vars(module).items()
        if not name.startswith("_") and name not in ("layer_idx", "forward")
    ]
