"""A pass recorded on a processor as a GPU does it: operations, and nothing of the program around them."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from introspect.engine.capture import Run


class Tape(TorchDispatchMode):
    """A `Capture`: operations are repeated on the tensors that they had, numbers are those of the recording.

    What the program around them would decide anew, such as a length that it reads, stays as it was.
    """

    name = "tape"

    def __init__(self) -> None:
        super().__init__()
        self.recorded = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        self._operations.append((func, args, kwargs or {}, output))
        return output

    def __call__(self, run: Run) -> Run:
        self._operations: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        with self:
            result = run()
        operations = self._operations
        self.recorded += 1

        def repeat() -> torch.Tensor:
            made: dict[int, torch.Tensor] = {}

            def of_now(tensor: torch.Tensor) -> torch.Tensor:
                return made.get(id(tensor), tensor)

            for func, args, kwargs, output in operations:
                given, named = tree_map_only(torch.Tensor, of_now, (args, kwargs))
                again = func(*given, **named)
                old, new = (_tensors(each) for each in (output, again))
                made |= {id(one): other for one, other in zip(old, new, strict=True)}
            return made[id(result)]

        return torch.no_grad()(repeat)


def _tensors(output: Any) -> list[torch.Tensor]:
    found = output if isinstance(output, list | tuple) else [output]
    return [one for one in found if isinstance(one, torch.Tensor)]
