"""What a turn will take of the memory, and what is left: a request that cannot fit is refused beforehand."""

from __future__ import annotations

from dataclasses import dataclass

from introspect.checkpoint.device_memory import room_for_run, taken_memory
from introspect.checkpoint.forecast import activation_bytes, logits_bytes, mask_bytes
from introspect.engine.engine import Engine
from introspect.engine.kv_config import kv_sizes
from introspect.engine.out_of_memory import FORECAST
from introspect.errors import ConfigError
from introspect.events import JSON
from introspect.phase.config import MIB, PhaseConfig
from introspect.session.exchange import Failed, GenerationRequest

WHAT_TO_DO = (
    "lower memory.max_conversation_tokens or generation.max_new_tokens, or take a model.dtype of fewer bits"
)
"""What a user can do about a run that takes more memory than there is."""


@dataclass(frozen=True)
class MemoryWatch:
    """Compares what requests will take with what a device has left.

    `limit` is how much of it the run may take in all, in bytes; None for what there is.
    """

    engine: Engine
    limit: int | None = None

    def refused(self, request: GenerationRequest) -> Failed | None:
        """Why a request should not be tried; None where it fits, or where nobody knows."""
        room, needed = room_for_run(str(self.engine.device), self.limit), self.needed(request)
        if room is None or needed <= room:
            return None
        tokens = len(request.prompt.token_ids)
        return Failed(
            code=FORECAST,
            reason=f"a prompt of {tokens} tokens and a reply of up to {request.max_new_tokens} would take"
            f" {needed / MIB:.1f} MiB, and {max(0, room) / MIB:.1f} are left; {WHAT_TO_DO}",
        )

    def needed(self, request: GenerationRequest) -> int:
        """Bytes that a request takes at its peak beside what is held: K and V, activations, logits."""
        config, prompt = self.engine.model.config, request.prompt.token_ids
        size = next(self.engine.model.parameters()).element_size()
        length, slot_bytes = len(prompt) + request.max_new_tokens, kv_sizes(config).elements * size
        new = length - min(request.cache.match_prefix(prompt), len(prompt) - 1)
        kv = request.cache.bytes_to_hold(length, slot_bytes)
        # The bytes of new slots are copied to be digested, one layer after another.
        digested = 2 * new * slot_bytes // max(1, kv_sizes(config).layers)
        chunk = min(new, self.engine.prefill_chunk)
        passing = activation_bytes(config, chunk, size) + mask_bytes(config, chunk, length, size)
        return int(kv + max(digested, passing + self.engine.widened_bytes) + logits_bytes(config))


def memory_limit(phase: PhaseConfig, engine: Engine) -> int | None:
    """The bytes of `memory.limit`; None where it is not set, or nobody says how much the run takes.

    Raises ConfigError where the loaded model takes it already.
    """
    limit, taken = phase.memory.limit_bytes, taken_memory(str(engine.device))
    if limit is None or taken is None:
        return None
    if taken >= limit:
        raise ConfigError(
            f"memory.limit: {phase.memory.limit} MiB are taken once the model is loaded"
            f" ({taken / MIB:.0f} MiB); raise it, or leave it out to take what the device has"
        )
    return limit


def described_memory(phase: PhaseConfig, engine: Engine) -> JSON:
    """What a record says of the memory that its run has: bytes, None where nobody says.

    `limit` is what it may take in all, `source` who says so, `taken` what it took when it began.
    """
    device, limit = str(engine.device), phase.memory.limit_bytes
    taken, room = taken_memory(device), room_for_run(device, limit)
    whole = None if taken is None or room is None else taken + room
    return {
        "limit": whole if limit is None else limit,
        "source": "device" if limit is None else "memory.limit",
        "taken": taken,
    }
