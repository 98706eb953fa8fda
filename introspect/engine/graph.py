"""The decode path `graph`: one id through the model's modules by fixed shapes, recorded once and replayed.

On a GPU a pass over one id takes as long as its thousand kernels take to be launched; a CUDA graph launches
all of them at once. It reads the id and its slot from the device, writes K and V where the cache keeps them,
and attends to a bucket of slots (see `graph_cache`). There is one for each bucket and each set of buffers:
where the cache has grown into others, or a weight stands elsewhere, a new one is made.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from introspect.engine.cache import TokenCache
from introspect.engine.cache_layers import BufferLayer
from introspect.engine.capture import Capture, NotRepeatable, Run, capture_for, repeatable_only
from introspect.engine.graph_cache import BUCKET, attention_of_bucket, bucket_cache, mask_of
from introspect.engine.kv_config import hiding_layers, size_in
from introspect.engine.module_watch import ModuleWatch
from introspect.engine.schedule import PLAIN
from introspect.errors import PathRefused

_REPLACED = "sdpa"
_ATTENTION = "introspect_bucket"


@dataclass(frozen=True, eq=False)
class _Recording:
    """A pass over a bucket that can be repeated, and what it was recorded with; it keeps no buffer alive."""

    bucket: int
    buffers: tuple[weakref.ref[torch.Tensor], ...]
    fingerprint: tuple[int, ...]
    repeat: Run

    def is_of(self, bucket: int, buffers: Sequence[torch.Tensor]) -> bool:
        return self.bucket == bucket and all(
            mine() is one for mine, one in zip(self.buffers, buffers, strict=True)
        )


@dataclass(frozen=True, eq=False)
class Ahead:
    """A pass that was started with an id that only the device knew; no cache shows what it wrote."""

    recording: _Recording
    slot: int
    version: int
    row: torch.Tensor


class Graph:
    """Decodes one id by a recorded pass. `kernels` tells in a record how it is repeated; buckets are of
    `step` slots, twice as many, and so on.

    Raises ValueError where the model's attention is another than sdpa over every slot, where its modules have
    hooks, or its device records nothing.
    """

    def __init__(self, model: Any, capture: Capture | None = None, step: int = BUCKET) -> None:
        first = next(model.parameters())
        self.model = model
        self.device, self._dtype = first.device, first.dtype
        self._config = model.config.get_text_config()
        if self._config._attn_implementation != _REPLACED:
            raise ValueError(f"its attention is {self._config._attn_implementation}")
        if kinds := hiding_layers(self._config, size_in(self._config, "max_position_embeddings")):
            raise ValueError(f"it has layers that do not attend to every slot: {', '.join(kinds)}")
        self._capture = capture or capture_for(first.device)
        self._step = step
        self.kernels = f"{self._capture.name}, buckets of {step}"
        self._watch = ModuleWatch(model)
        if reason := self._watch.refusal():
            raise ValueError(reason)
        self._fingerprint = self._watch.fingerprint()
        self._recordings: list[_Recording] = []
        self._last: tuple[_Recording, int, int] | None = None
        self._ahead: Ahead | None = None
        # Where a recorded pass finds the id that it is fed, and its slot.
        self._inputs = torch.zeros(2, dtype=torch.long, device=self.device)
        AttentionInterface.register(_ATTENTION, attention_of_bucket(AttentionInterface()[_REPLACED]))
        AttentionMaskInterface.register(_ATTENTION, AttentionMaskInterface()[_REPLACED])

    @property
    def recordings(self) -> int:
        """Passes that are recorded now."""
        return len(self._recordings)

    def refusal(self, cache: TokenCache) -> str | None:
        """Why the next id must be decoded by the modules themselves; None where a recording will do."""
        if self._config._attn_implementation != _REPLACED:
            return f"its attention is {self._config._attn_implementation}"
        layers = cache.layers
        if not all(type(layer) is BufferLayer and layer.shows_its_buffer for layer in layers):
            return "the cache is empty, or keeps K and V elsewhere than in buffers of its own"
        if set(cache.lengths()) != {len(cache.token_ids)} or list(cache.positions(1)) != cache.lengths()[:1]:
            return "the cache does not have one slot for each of its ids"
        return self._watch.refusal()

    def forward(self, cache: TokenCache, token_id: int) -> torch.Tensor:
        """The logits after one more id, `[vocabulary]`, on the device; K and V stand in the cache.

        They are overwritten by the next pass. The cache must not be refused (see `refusal`). Raises
        PathRefused where modules were put in that a recording does not follow; the cache is as it was.
        """
        slot = len(cache.token_ids)
        self._ahead = None
        bucket, buffers = self._reserved(cache)
        self._inputs.copy_(torch.tensor([token_id, slot]))
        recording = next((one for one in self._recordings if one.is_of(bucket, buffers)), None)
        if recording is None or self._last != (recording, slot, buffers[0]._version):
            # What others wrote and was truncated may be no number, which no mask hides: 0 times NaN is NaN.
            for tensor in buffers:
                tensor[:, :, slot:bucket] = 0
        if recording is None:
            self._is_outdated()
            recording = self._recorded(bucket, buffers)
        row = recording.repeat()
        # What takes the processor's time is done while the device computes: it has to be asked for the row.
        if self._is_outdated():
            recording = self._recorded(bucket, buffers)
            row = recording.repeat()
        for layer in cache.layers:
            layer.show(slot + 1)
        self._last = recording, slot + 1, buffers[0]._version
        return row

    @torch.no_grad()
    def start_ahead(self, cache: TokenCache, token_id: torch.Tensor) -> Ahead | None:
        """Start the pass of an id, int64, `[1]`, on the device, behind the slots that the cache shows.

        None where the pass before was another than that of the slot before, or a recording had to be made. As
        long as it is not taken (see `take_ahead`) it has left nothing that anybody sees.
        """
        slot = len(cache.token_ids)
        if self._last is None or self._last[1] != slot or slot >= self._last[0].bucket:
            return None
        recording, _, version = self._last
        bucket, buffers = self._reserved(cache)
        if not recording.is_of(bucket, buffers) or buffers[0]._version != version:
            return None
        self._last = None
        self._inputs[:1].copy_(token_id)
        self._inputs[1:].fill_(slot)
        row = recording.repeat()
        self._ahead = Ahead(recording, slot, buffers[0]._version, row)
        return self._ahead

    def take_ahead(self, cache: TokenCache, ahead: Ahead) -> torch.Tensor | None:
        """Have the cache show what a pass wrote that was started ahead, and its logits, as of `forward`.

        None where something was done meanwhile with the cache, the graph or the model's modules; then the id
        has to be fed. What is changed in place, as a weight may be, is seen by the next pass only.
        """
        current, self._ahead = self._ahead, None
        if current is not ahead or ahead.slot != len(cache.token_ids) or self.refusal(cache):
            return None
        bucket, buffers = self._reserved(cache)
        moved = not ahead.recording.is_of(bucket, buffers) or buffers[0]._version != ahead.version
        if moved or self._watch.fingerprint() != self._fingerprint:
            return None
        for layer in cache.layers:
            layer.show(ahead.slot + 1)
        self._last = ahead.recording, ahead.slot + 1, ahead.version
        return ahead.row

    def _reserved(self, cache: TokenCache) -> tuple[int, list[torch.Tensor]]:
        """The shortest bucket that has the next slot, and the buffers, which are as long at least."""
        bucket = (len(cache.token_ids) // self._step + 1) * self._step
        return bucket, [tensor for layer in cache.layers for tensor in layer.reserve(bucket)]

    def _is_outdated(self) -> bool:
        """Whether the model is another than it was recorded as; then no recording is kept.

        Raises PathRefused where it has become one that a recording does not follow.
        """
        fingerprint = self._watch.fingerprint()
        if fingerprint == self._fingerprint:
            return False
        self._watch = ModuleWatch(self.model)
        self._fingerprint = self._watch.fingerprint()
        self._recordings.clear()
        if reason := self._watch.refusal():
            raise PathRefused(f"{PLAIN} has to take this pass: {reason}")
        return True

    def _recorded(self, bucket: int, buffers: Sequence[torch.Tensor]) -> _Recording:
        """A new recording; those whose buffers are gone are let go."""
        self._recordings = [one for one in self._recordings if all(ref() is not None for ref in one.buffers)]
        references = tuple(map(weakref.ref, buffers))

        def run() -> torch.Tensor:
            return self.run([_living(one) for one in references], bucket)

        recording = _Recording(bucket, references, self._fingerprint, self._capture(run))
        self._recordings.append(recording)
        return recording

    @torch.no_grad()
    def run(self, buffers: Sequence[torch.Tensor], bucket: int) -> torch.Tensor:
        """The pass itself, over the id and the slot that were put in place: logits, `[vocabulary]`."""
        slot = self._inputs[1:]
        # What is to be added to a layer's output would be read in this block, from a buffer of the layer that
        # is rewritten between passes, so that recordings have it.
        with self._attending():
            output = self.model(
                input_ids=self._inputs[:1].view(1, 1),
                position_ids=slot.view(1, 1),
                attention_mask=mask_of(slot, bucket, self._dtype),
                past_key_values=bucket_cache(buffers, slot, bucket),
                use_cache=True,
                logits_to_keep=1,
            )
        row: torch.Tensor = output.logits[0, -1]
        return row if row.dtype == torch.float64 else row.float()

    @contextmanager
    def _attending(self) -> Iterator[None]:
        self._config._attn_implementation = _ATTENTION
        try:
            yield
        finally:
            self._config._attn_implementation = _REPLACED

    def try_out(self, cache: TokenCache) -> None:
        """Run a pass that the cache keeps nothing of. Raises ValueError where it cannot be repeated."""
        bucket, buffers = self._reserved(cache)
        self._inputs.copy_(torch.tensor([0, len(cache.token_ids)]))
        try:
            with repeatable_only():
                self.run(buffers, bucket)
        except NotRepeatable as error:
            raise ValueError(str(error)) from None


def _living(reference: weakref.ref[torch.Tensor]) -> torch.Tensor:
    tensor = reference()
    assert tensor is not None
    return tensor
