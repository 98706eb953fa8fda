"""Settings that cannot work together, and those that are merely unwise beside one another.

They are looked at where a phase is loaded and not where a record is read: what an older version ran stays
readable.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from introspect.phase.config import READING_TOOLS, PhaseConfig
from introspect.phase.paths import shown
from introspect.phase.problems import Misfit

_SHORTEST_CALL = 32
"""Tokens of a reply below which a call with one argument does not fit. Chosen: what the shortest take."""


def refuse_misfits(phase: PhaseConfig) -> None:
    """Raise Misfit, with both settings and their values, for the first two that cannot work together."""
    memory, limits = phase.memory, phase.limits
    if memory.keep_recent_turns > memory.max_turns:
        raise Misfit(
            ("memory.keep_recent_turns", "memory.max_turns"),
            f"memory.keep_recent_turns {memory.keep_recent_turns} of memory.max_turns {memory.max_turns}:"
            " when a prune is due there are fewer turns than it keeps; keep fewer, or prune later",
        )
    if limits.max_result_tokens is not None and limits.max_result_tokens > memory.max_conversation_tokens:
        raise Misfit(
            ("limits.max_result_tokens", "memory.max_conversation_tokens"),
            f"limits.max_result_tokens {limits.max_result_tokens} is more than"
            f" memory.max_conversation_tokens {memory.max_conversation_tokens}: such a result would never be"
            " kept; lower it, or let the conversation be longer",
        )
    if phase.documents_pinned and not any(map(phase.documents_of, phase.experiments)):
        raise Misfit(
            ("documents_pinned", "documents"),
            "documents_pinned true pins nothing, for documents is empty or no experiment offers one; name a"
            " document, or set documents_pinned to false",
        )
    _refuse_decode_path(phase)
    for key, names in _lists(phase):
        for i, name in enumerate(names):
            if name in names[:i]:
                raise Misfit((f"{key}.{i}",), f"{key}: '{shown(name)}' stands there twice; name it once")


def unwise(phase: PhaseConfig) -> list[str]:
    """What a run of a phase does that its settings may not mean, a line each."""
    return list(_unwise(phase))


def _unwise(phase: PhaseConfig) -> Iterator[str]:
    reply, limits = phase.generation.max_new_tokens, phase.limits
    conversation = phase.memory.max_conversation_tokens
    if reply > conversation:
        yield (
            f"generation.max_new_tokens {reply} is more than memory.max_conversation_tokens {conversation}:"
            " one long reply alone is more than a prune keeps to"
        )
    if limits.max_tokens is not None and limits.max_tokens < reply:
        yield (
            f"limits.max_tokens {limits.max_tokens} is less than generation.max_new_tokens {reply}: the run"
            " may end with its first reply"
        )
    if reply < _SHORTEST_CALL:
        yield f"generation.max_new_tokens {reply}: a tool call hardly fits, and a reply is cut there"
    if not phase.documents and (reading := [name for name in phase.tools if name in READING_TOOLS]):
        yield f"tools: {', '.join(reading)} are not offered, for the phase has no documents"
    offered = {name for experiment in phase.experiments for name in phase.documents_of(experiment)}
    if left := [name for name in phase.document_ids if name not in offered]:
        yield f"documents: {', '.join(map(shown, left))}: no experiment offers this"


def _refuse_decode_path(phase: PhaseConfig) -> None:
    path, device, attention = phase.engine.decode_path, phase.model.device, phase.model.attention
    if path not in ("step", "graph"):
        return
    if attention != "sdpa":
        raise Misfit(
            ("engine.decode_path", "model.attention"),
            f"engine.decode_path {path} is for sdpa, and model.attention is {attention}; set decode_path to"
            " auto or plain, or attention to sdpa",
        )
    kind = device.partition(":")[0]
    if kind == "mps" or (path == "step" and kind == "cuda"):
        where = "processors" if path == "step" else "processors and CUDA"
        raise Misfit(
            ("engine.decode_path", "model.device"),
            f"engine.decode_path {path} is for {where}, and model.device is {device}; set decode_path to"
            " auto or plain, or another device",
        )


def _lists(phase: PhaseConfig) -> Iterator[tuple[str, Sequence[str]]]:
    yield "tools", phase.tools
    yield "documents", phase.document_ids
    for e, experiment in enumerate(phase.experiments):
        yield f"experiments.{e}.tools", experiment.tools or ()
        yield f"experiments.{e}.documents", experiment.documents or ()
