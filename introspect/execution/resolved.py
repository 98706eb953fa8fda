"""What settings come to that a phase leaves open, as far as it is known before any weight is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from introspect.events import JSON
from introspect.phase.config import MIB, PhaseConfig
from introspect.session.limits import result_tokens

if TYPE_CHECKING:
    from introspect.checkpoint.judgement import Judgement


@dataclass(frozen=True)
class Resolved:
    """A setting that is `auto` or null, what it comes to and why. No `value`: none, or one told by a run."""

    key: str
    setting: str | None
    value: Any
    reason: str

    def to_json(self) -> JSON:
        """The row as `run --dry-run --json` has it."""
        return {
            "key": self.key,
            "setting": self.setting,
            "value": self.value,
            "reason": self.reason,
        }

    def shown(self) -> str:
        """The row for people: the setting, what it comes to, and why; of a list, how long it is."""
        value = f"{len(self.value)} of them" if isinstance(self.value, list) else self.value
        known = "" if value is None else f" -> {value}"
        return f"{self.setting or 'null'}{known} ({self.reason})"


def resolved_settings(phase: PhaseConfig, judged: Judgement, memory: JSON | None) -> list[Resolved]:
    """Every setting of a phase that is `auto` or null; `memory` is its `memory_report` on that model."""
    settings = phase.model_dump(mode="json")
    rows = [*_of_model(phase, judged), *_of_prompt(phase, memory), *_of_run(phase, judged, memory)]
    return [row for row in rows if _setting(settings, row.key) in ("auto", None)]


def _setting(settings: Any, key: str) -> Any:
    for part in key.split("."):
        settings = settings[int(part) if part.isdigit() else part]
    return settings


def _of_model(phase: PhaseConfig, judged: Judgement) -> Iterator[Resolved]:
    revision = judged.source.revision
    pinned = "the commit that is here" if revision else "files that lie here have no revisions"
    yield Resolved("model.revision", None, revision, pinned)
    where, _, why = judged.placement.partition(": ")[2].partition(", ")
    yield Resolved("model.dtype", "auto", judged.dtype, why)
    yield Resolved("model.device", "auto", judged.device, where)
    if judged.device == "cpu" and phase.model.attention == "sdpa":
        tried = "step where the weights, once they are loaded, can be decoded by it, else plain"
        yield Resolved("engine.decode_path", "auto", None, tried)
    else:
        why = "step is for processors" if judged.device != "cpu" else "step is for sdpa"
        yield Resolved("engine.decode_path", "auto", "plain", why)


def _of_prompt(phase: PhaseConfig, memory: JSON | None) -> Iterator[Resolved]:
    for key, part in (("dialect", "dialect"), ("system_prompt.detail", "prompt_form")):
        found = memory[part] if memory else None
        if found:
            yield Resolved(key, "auto", found["name"], found["reason"])
        else:
            yield Resolved(key, "auto", None, "not known without its prompt format")
    for i, experiment in enumerate(phase.experiments):
        yield Resolved(f"experiments.{i}.tools", None, list(phase.tools_of(experiment)), "the phase's")
        yield Resolved(
            f"experiments.{i}.documents", None, list(phase.documents_of(experiment)), "the phase's"
        )


def _of_run(phase: PhaseConfig, judged: Judgement, memory: JSON | None) -> Iterator[Resolved]:
    yield Resolved("requires", None, None, "no run is needed first")
    yield Resolved("generation.seed", None, None, "drawn when the run begins")
    free = memory["limit_bytes"] if memory else None
    yield Resolved(
        "memory.limit", None, None if free is None else free // MIB, "MiB that the device has free"
    )
    yield Resolved("limits.max_tokens", None, None, "no limit")
    yield Resolved("limits.max_seconds", None, None, "no limit")
    conversation = phase.memory.max_conversation_tokens
    if memory:
        room = memory["context_length"] - memory["system_tokens"] - phase.generation.max_new_tokens
        conversation = min(conversation, room)
    yield Resolved(
        "limits.max_result_tokens", None, result_tokens(phase, conversation), "a quarter of the conversation"
    )
