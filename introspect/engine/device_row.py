"""A row of logits that stays on the device: an id is chosen there, and a few numbers come in one copy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from introspect.engine.device_sampling import DeviceChoice, choose_on_device
from introspect.engine.row_digest import mixed
from introspect.engine.sampling import NucleusSampler, Sampler


@dataclass(frozen=True)
class RowFigures:
    """What is told of a row: the `token_id` that was chosen, None where the device did not; its digest.

    `sound` says whether a distribution can be made of it. `logit` is that of the id, `log_sum` the logarithm
    of the sum of the exponentials of all.
    """

    token_id: int | None
    sound: bool
    digest: int
    logit: float
    log_sum: float


class DeviceRow:
    """One row of logits, `[vocabulary]`, and what was asked about it."""

    def __init__(self, row: torch.Tensor) -> None:
        # The pass that is started next writes its row into the same place.
        self._row = row.clone()
        self.dtype = row.dtype
        self._host: torch.Tensor | None = None
        self._choice: DeviceChoice | None = None
        self._arrived: Callable[[], torch.Tensor] | None = None

    def ask(self, sampler: Sampler) -> torch.Tensor | None:
        """Have an id chosen, and the figures sent, without waiting for them.

        The id, int64, `[1]`, on the device; None where the sampler has to see the row.
        """
        self._choice = choose_on_device(sampler, self._row)
        self._arrived = arriving(_packed(self._row, self._choice))
        return self._choice.token_id if self._choice is not None else None

    def figures(self) -> RowFigures:
        """What was asked for; waits for it."""
        assert self._arrived is not None
        packed = self._arrived()
        token_id, settled, sound, digest = packed[:4].tolist()
        logit, log_sum = packed[4:].view(torch.float64).tolist()
        return RowFigures(token_id if settled else None, bool(sound), digest, logit, log_sum)

    def chosen_here(self, sampler: Sampler) -> int:
        """The id that the device left open; where a draw was taken for it, by that."""
        if self._choice is not None and isinstance(sampler, NucleusSampler):
            return sampler.choose_by(self.on_host(), self._choice.draw)
        return sampler.choose(self.on_host())

    def on_host(self) -> torch.Tensor:
        """The row on the CPU."""
        if self._host is None:
            self._host = on_host(self._row)
        return self._host


def _packed(row: torch.Tensor, choice: DeviceChoice | None) -> torch.Tensor:
    """Id, settled, sound, digest, logit and log-sum as bits of 64 each: int64, `[6]`."""
    token_id = torch.argmax(row, dim=0, keepdim=True) if choice is None else choice.token_id
    settled = torch.zeros_like(token_id) if choice is None else choice.settled.long()
    sound = torch.isfinite(row.max(dim=0, keepdim=True).values).long()
    numbers = torch.cat((row.gather(0, token_id), torch.logsumexp(row, dim=0, keepdim=True))).double()
    return torch.cat((token_id, settled, sound, mixed(row), numbers.view(torch.int64)))


def arriving(tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Start a copy to the CPU; what is returned waits for it, and for nothing that is started later."""
    if not tensor.is_cuda:
        return lambda: tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    event = torch.cuda.current_stream(tensor.device).record_event()

    def waited() -> torch.Tensor:
        event.synchronize()
        return host

    return waited


def on_host(row: torch.Tensor) -> torch.Tensor:
    """A row of logits, `[vocabulary]`, on the CPU; a GPU writes it there itself."""
    if not row.is_cuda:
        return row.cpu()
    host = torch.empty(row.shape, dtype=row.dtype, pin_memory=True)
    return host.copy_(row)
