"""The schedule of passes: which forward passes wrote the slots of a cache, and what bytes they left there.

Rounding depends on how ids were split into passes and on the path that a pass took, so both belong to what a
replay has to repeat. Pure values: the cache carries a schedule, E1 and `audit` replay one, a record's events
give one. No pass is ever cut: where its last slots were truncated it stands whole, since only the whole pass
gives the same bits again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from introspect.events import Generation, Prefill

PREFILL = "prefill"
"""The path of a pass over a chunk of a prompt."""
PLAIN = "plain"
"""The decode path of one forward pass for each id, through the model's own attention."""
STEP = "step"
"""The decode path that computes products and attention for one row (see `step`)."""
GRAPH = "graph"
"""The decode path that repeats one recorded pass of fixed shapes (see `graph`)."""
_RECORDED_PATHS = {"forward-1": PLAIN}
"""Names of decode paths in records of schema 1."""
SLOT_BYTES = 8
"""Bytes of the digest of one slot in one layer: of the 2,000 slots and 36 layers of a long run, two different
contents share a digest with a probability below 1e-9; fewer bytes would save no time."""


@dataclass(frozen=True, kw_only=True)
class ForwardPass:
    """A pass that fed `token_ids` at slots `start`, `start + 1`, ... by a path, in `seconds`.

    `digests` has a string of bytes for each layer, `[layer]`: the digests of its slots in a row, SLOT_BYTES
    each. It is empty until they are taken, and as long as what was left of the pass then.
    """

    start: int
    token_ids: tuple[int, ...]
    path: str = PREFILL
    seconds: float = 0.0
    digests: tuple[bytes, ...] = ()

    @property
    def end(self) -> int:
        """The slot after the last one that it wrote."""
        return self.start + len(self.token_ids)

    def kept_digests(self, end: int) -> tuple[bytes, ...]:
        """The digests of its slots before slot `end`, `[layer]`."""
        return tuple(layer[: (end - self.start) * SLOT_BYTES] for layer in self.digests)

    def repeats(self, other: ForwardPass) -> bool:
        """Whether both are the same computation: the same ids at the same slots by the same path."""
        return (self.start, self.path, self.token_ids) == (other.start, other.path, other.token_ids)


class Schedule:
    """The passes that wrote the first `length` slots, in order; what a later one wrote stands."""

    def __init__(self, passes: Sequence[ForwardPass] = (), length: int = 0) -> None:
        self.passes = list(passes)
        self.length = length

    def copy(self) -> Schedule:
        """A schedule of its own with the same passes."""
        return Schedule(self.passes, self.length)

    def append(self, forward_pass: ForwardPass) -> None:
        """Add a pass, the newest."""
        self.passes.append(forward_pass)
        self.length = forward_pass.end

    def take(self, event: Prefill | Generation) -> None:
        """Add the passes that an event of a record tells of; those of a prompt stand behind what it kept."""
        if isinstance(event, Prefill):
            self.truncate(event.start)
        for forward_pass in prefill_passes(event) if isinstance(event, Prefill) else decode_passes(event):
            self.append(forward_pass)

    def token_ids(self) -> tuple[int, ...]:
        """The ids that stand at the slots, in order."""
        return tuple(i for one, end in self.spans() for i in one.token_ids[: end - one.start])

    def truncate(self, length: int) -> None:
        """Forget the slots from `length` on, and the passes that have none left."""
        self.length = min(self.length, length)
        while self.passes and self.passes[-1].start >= length:
            self.passes.pop()

    def before(self, length: int) -> Schedule:
        """The schedule of the first `length` slots."""
        return Schedule([p for p in self.passes if p.start < length], min(length, self.length))

    def spans(self) -> Iterator[tuple[ForwardPass, int]]:
        """Each pass with the slot before which its part of what is left ends."""
        for one, following in pairwise(self.passes):
            yield one, following.start
        if self.passes:
            yield self.passes[-1], self.length

    def undigested(self) -> int:
        """The slot from which on digests are missing; `length` where none is."""
        for forward_pass, end in self.spans():
            kept = end - forward_pass.start
            if not forward_pass.digests or len(forward_pass.digests[0]) < kept * SLOT_BYTES:
                return forward_pass.start
        return self.length

    def note_digests(self, start: int, digests: Sequence[bytes]) -> None:
        """Give the passes from slot `start` on the digests of their slots: `[layer]`, slot after slot."""
        for place, (forward_pass, end) in enumerate(list(self.spans())):
            if forward_pass.start >= start:
                here = slice((forward_pass.start - start) * SLOT_BYTES, (end - start) * SLOT_BYTES)
                self.passes[place] = replace(forward_pass, digests=tuple(layer[here] for layer in digests))

    def slot_digests(self) -> tuple[bytes, ...]:
        """The digests of every slot that has one, `[layer]`, slot after slot."""
        kept = [forward_pass.kept_digests(end) for forward_pass, end in self.spans()]
        return tuple(b"".join(layers) for layers in zip(*kept, strict=False))


def state_digest(slot_digests: Sequence[bytes]) -> tuple[str, ...]:
    """A digest of a whole state, `[layer]`, 16 hexadecimal digits each, from those of its slots."""
    return tuple(hashlib.blake2b(layer, digest_size=8).hexdigest() for layer in slot_digests)


def decode_path_of(generation: Generation) -> str:
    """The path by which a recorded reply was decoded."""
    return _RECORDED_PATHS.get(generation.decode_path, generation.decode_path)


def prefill_passes(prefill: Prefill) -> list[ForwardPass]:
    """The passes of a recorded prefill, one for each chunk."""
    ends = list(accumulate(prefill.chunks, initial=0))
    return [
        ForwardPass(start=prefill.start + begin, token_ids=tuple(prefill.token_ids[begin:end]))
        for begin, end in pairwise(ends)
    ]


def decode_passes(generation: Generation) -> list[ForwardPass]:
    """The passes of a recorded reply, one for each id but the last."""
    path, start = decode_path_of(generation), generation.prompt_tokens
    return [
        ForwardPass(start=start + place, token_ids=(token_id,), path=path)
        for place, token_id in enumerate(generation.token_ids[:-1])
    ]
