"""Training in several processes of one thread each, which average their gradients.

Threads wait for each other many times in a step, and on cores that other programs use too, each of these
waits is long. Processes wait once in a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch


def in_processes(count: int, work: Callable[..., None], *arguments: Any) -> None:
    """Call `work(rank, count, *arguments)` in `count` processes that can `average`; one runs right here."""
    if count == 1:
        work(0, 1, *arguments)
        return
    with TemporaryDirectory() as folder:
        meeting = str(Path(folder) / "meeting")
        torch.multiprocessing.spawn(_joined, (count, meeting, work, *arguments), nprocs=count)


def average(parameters: Iterable[torch.nn.Parameter], seconds: float) -> float:
    """Put the mean over processes into each gradient; returns the mean of `seconds`."""
    if not torch.distributed.is_initialized():
        return seconds
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients] + [torch.tensor([seconds])])
    torch.distributed.all_reduce(flat)
    flat /= torch.distributed.get_world_size()
    place = 0
    for gradient in gradients:
        gradient.copy_(flat[place : place + gradient.numel()].view_as(gradient))
        place += gradient.numel()
    return float(flat[-1])


def _joined(rank: int, count: int, meeting: str, work: Callable[..., None], *arguments: Any) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=count, timeout=timedelta(minutes=20)
    )
    work(rank, count, *arguments)
    torch.distributed.destroy_process_group()
