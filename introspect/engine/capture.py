"""How a pass of fixed shapes is repeated: recorded by a GPU and replayed, or run again where there is none.

A recording has the kernels that were launched and nothing of the program around them: what a pass reads must
stand where it stood, and nothing may be decided by what was computed. `repeatable_only` finds the latter on
any device, before anything is recorded.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

Run = Callable[[], torch.Tensor]
"""A pass that reads and writes tensors that stay where they are, and returns one that is new each time."""
WARM_UP_PASSES = 3
"""Passes before one is recorded: libraries choose their kernels and take their workspaces in the first."""


class Capture(Protocol):
    """Makes passes repeatable. `name` tells in a record how they are repeated."""

    name: str

    def __call__(self, run: Run) -> Run:
        """What repeats `run`: the tensor that it returns is overwritten when it is repeated again."""
        ...


class EagerReplay:
    """Runs the pass again, operation by operation: the same computation where nothing can be recorded."""

    name = "eager replay"

    def __call__(self, run: Run) -> Run:
        return run


class CudaGraphs:
    """Records passes as CUDA graphs, which share the memory of what they compute on the way.

    They may share it since one is replayed after another on one stream, and what one returns is read before.
    """

    name = "CUDA graph"

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool: Any = None
        self._living: weakref.WeakSet[_Recorded] = weakref.WeakSet()

    def __call__(self, run: Run) -> Run:
        with torch.cuda.device(self._device):
            current = torch.cuda.current_stream()
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                for _ in range(WARM_UP_PASSES):
                    run()
            current.wait_stream(self._stream)
            if not self._living:
                # A pool that no graph uses any more cannot be captured into again.
                self._pool = torch.cuda.graph_pool_handle()
            graph = torch.cuda.CUDAGraph()
            # Another thread may let go of memory meanwhile, which a stricter mode takes for a part of this.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                output = run()
        recorded = _Recorded(graph, output)
        self._living.add(recorded)
        return recorded


class _Recorded:
    """A graph, and where it leaves what it computes."""

    def __init__(self, graph: Any, output: torch.Tensor) -> None:
        self._graph = graph
        self._output = output

    def __call__(self) -> torch.Tensor:
        self._graph.replay()
        return self._output


def capture_for(device: torch.device) -> Capture:
    """How passes are repeated on a device. Raises ValueError where they cannot be."""
    if device.type == "cuda":
        return CudaGraphs(device)
    if device.type == "cpu":
        return EagerReplay()
    raise ValueError(f"passes are recorded on CUDA devices, and the model is on {device}")


class NotRepeatable(Exception):
    """A pass decides by what it computes, so that a recording of it would be of this one case."""


@contextmanager
def repeatable_only() -> Iterator[None]:
    """In the block, operations raise NotRepeatable whose shapes or consequences depend on computed values."""
    with _NoReading(), _NoDependence():  # type: ignore[no-untyped-call]
        yield


class _NoReading(TorchFunctionMode):
    """Refuses what takes numbers out of a tensor without an operation, where that is on a processor."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _READING:
            raise NotRepeatable(f"what it does depends on what it computes ({func.__name__})")
        return func(*args, **(kwargs or {}))


class _NoDependence(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses operations whose output, or its shape, the processor has to know."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        depends = torch.Tag.data_dependent_output in func.tags
        if func in _INDEXING:
            # Chosen by a mask, entries are as many as it has ones; chosen by number they are as many as told.
            depends = any(index is not None and index.dtype in _MASKS for index in args[1])
        elif torch.Tag.dynamic_output_shape in func.tags:
            depends = True
        if depends:
            raise NotRepeatable(f"what it does depends on what it computes ({func.overloadpacket.__name__})")
        return func(*args, **(kwargs or {}))


_READING = {torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu, torch.Tensor.__array__}
_INDEXING = (
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
)
_MASKS = (torch.bool, torch.uint8)
