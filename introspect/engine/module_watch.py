"""What of a model's modules a recording of a pass does not follow: hooks, and weights put elsewhere."""

from __future__ import annotations

from itertools import chain
from typing import Any

from torch.nn.modules import module as torch_module

_INERT = "transformers.utils.output_capturing"
"""The library's own hooks for hidden states, which stay once they were asked for and do nothing otherwise."""


class ModuleWatch:
    """Looks at the modules of a model before each pass, at a cost far below that of a pass."""

    def __init__(self, model: Any) -> None:
        self._model = model
        modules = list(model.modules())
        self._hooks = [
            torch_module._global_forward_hooks,
            torch_module._global_forward_pre_hooks,
            *chain.from_iterable((one._forward_pre_hooks, one._forward_hooks) for one in modules),
        ]
        self._attributes = [one.__dict__ for one in modules]
        self._submodules = [one._modules for one in modules if one._modules]
        self._tensors = [one for each in modules for one in (each._parameters, each._buffers) if one]

    def refusal(self) -> str | None:
        """Why a pass must run as a program, module by module; None where nothing would be left out."""
        if any(self._hooks):
            present = chain.from_iterable(one.values() for one in self._hooks)
            if any(getattr(hook, "__module__", None) != _INERT for hook in present):
                return "a module has a hook"
        if any("forward" in attributes for attributes in self._attributes):
            return "a module has a forward of its own"
        return "it is in training" if self._model.training else None

    def fingerprint(self) -> tuple[int, ...]:
        """Which modules and tensors there are, and where the tensors stand: what a recording was made of."""
        tensors = [one for held in self._tensors for one in held.values() if one is not None]
        modules = chain.from_iterable(held.values() for held in self._submodules)
        return (*map(id, modules), *map(id, tensors), *(tensor.data_ptr() for tensor in tensors))
