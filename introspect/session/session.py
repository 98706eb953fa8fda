"""The state of one run: the only mutable composite. The loop moves it; nothing else does."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from introspect.engine.finite import NonFinite
from introspect.engine.interrupts import Interrupts
from introspect.engine.kv_cache import KVCache
from introspect.engine.sampling import ForcedSampler, Sampler, reply_seed, sampler_for
from introspect.events import FinishReason
from introspect.phase.config import ExperimentConfig, PhaseConfig
from introspect.prompt.prompt import Prompt, PromptFormat
from introspect.session.protocols import Auditor, CachedTurn
from introspect.session.system_prompt import Detail, build_system_prompt, fitting_detail
from introspect.tools.base import Tool
from introspect.tools.context import Progress, ToolContext
from introspect.tools.library import Document
from introspect.tools.note_store import NoteStore
from introspect.transcript import Transcript


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """A reply that the loop wants: a driver makes the cache hold the prompt and decodes after it."""

    experiment: int
    turn: int
    prompt: Prompt
    cache: KVCache
    sampler: Sampler
    stop_ids: frozenset[int]
    max_new_tokens: int
    forced: bool


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a driver gives back. Fields are those of the `prefill` and `generation` events.

    `fault` tells why the reply could not go on: logits that are not finite.
    """

    start: int
    prefilled: tuple[int, ...]
    chunks: tuple[int, ...]
    prefill_seconds: float
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    logprobs: tuple[float, ...]
    top_logits: dict[str, list[tuple[int, float]]]
    logits_digest: str
    state_digest: tuple[str, ...]
    decode_path: str
    seconds: float
    fault: NonFinite | None = None


@dataclass
class Totals:
    """Running sums of a run, in tokens and counts."""

    turns: int = 0
    prunes: int = 0
    generated: int = 0
    prefilled: int = 0
    minimum: int = 0
    cached_peak: int = 0
    calls: int = 0
    calls_ok: int = 0
    malformed: int = 0
    audits: dict[str, int] = field(
        default_factory=lambda: {"e0": 0, "e1": 0, "e2": 0, "skipped": 0, "failed": 0}
    )


@dataclass
class Session:
    """A run in progress. `forced_replies` maps (experiment, turn) to ids that stand in for sampling.

    `claim_answered`, `calls_before` and `calls_ok_before` are of the experiment that is going on: whether it
    was told that nothing is done yet, and the totals that it began with.

    `clock` gives seconds from any fixed point; it decides on `limits.max_seconds` alone.
    """

    phase: PhaseConfig
    seed: int
    prompt_format: PromptFormat
    prompt_detail: Detail
    context_length: int
    stop_ids: frozenset[int]
    cache: KVCache
    all_tools: Mapping[str, Tool]
    context: ToolContext
    all_documents: Mapping[str, Document] = field(default_factory=dict)
    auditor: Auditor | None = None
    forced_replies: Mapping[tuple[int, int], tuple[int, ...]] | None = None
    clock: Callable[[], float] = time.monotonic

    transcript: Transcript = field(default_factory=Transcript)
    tools: Mapping[str, Tool] = field(default_factory=dict)
    system_prompt: str = ""
    experiment: int = -1
    turn: int = 0
    claim_answered: bool = False
    calls_before: int = 0
    calls_ok_before: int = 0
    turns_since_prune: int = 0
    totals: Totals = field(default_factory=Totals)
    expected_ids: tuple[int, ...] = ()
    last_turn: CachedTurn | None = None
    started: float = 0.0

    def begin_experiment(self, index: int, experiment: ExperimentConfig) -> None:
        """Clear the conversation and begin a task; notes and cached state stay."""
        self.experiment, self.turn, self.turns_since_prune, self.last_turn = index, 0, 0, None
        self.claim_answered = False
        self.calls_before, self.calls_ok_before = self.totals.calls, self.totals.calls_ok
        self.transcript = Transcript().append("task", experiment.task.strip())
        self.offer_tools(experiment)
        documents = {name: self.all_documents[name] for name in self.phase.documents_of(experiment)}
        self.context = replace(self.context, documents=documents, processed_text=None)

    def offer_tools(self, experiment: ExperimentConfig) -> None:
        """Offer the tools of an experiment and no others: the system prompt describes just these."""
        self.tools = {name: self.all_tools[name] for name in self.phase.tools_of(experiment)}
        self.system_prompt = build_system_prompt(self.phase, self.tools, self.prompt_detail)

    @property
    def calls(self) -> int:
        """Calls of this experiment, those that could not be read included."""
        return self.totals.calls - self.calls_before

    @property
    def no_tool_used(self) -> bool:
        """Whether no call of this experiment has succeeded so far."""
        return self.totals.calls_ok == self.calls_ok_before

    @property
    def system_tokens(self) -> int:
        return self.prompt_format.system_length(self.system_prompt)

    @property
    def conversation_budget(self) -> int:
        """Tokens that the conversation may take before a reply: the phase's, or what the context leaves."""
        room = self.context_length - self.system_tokens - self.phase.generation.max_new_tokens
        return min(self.phase.memory.max_conversation_tokens, room)

    def prompt(self, transcript: Transcript | None = None) -> Prompt:
        """What the model should see now, or would see with another transcript."""
        window = (transcript or self.transcript).window()
        return self.prompt_format.render(self.system_prompt, window)

    def messages(self) -> list[tuple[str, str]]:
        """Role and text of each message that the model sees now, the system message first."""
        return [("system", self.system_prompt), *((m.role, m.text) for m in self.transcript.window())]

    def conversation_tokens(self, transcript: Transcript | None = None) -> int:
        """Tokens of the rendered conversation: the prompt without its system message."""
        return len(self.prompt(transcript).token_ids) - self.system_tokens

    def has_next_reply(self) -> bool:
        """Whether there can be a reply after this one: always, but where replies are forced."""
        return self.forced_replies is None or (self.experiment, self.turn + 1) in self.forced_replies

    def next_request(self) -> GenerationRequest | None:
        """The request for the next reply; None where replies are forced and the record has no further one."""
        forced = None
        if self.forced_replies is not None:
            forced = self.forced_replies.get((self.experiment, self.turn))
            if forced is None:
                return None
        generation = self.phase.generation
        prompt = self.prompt()
        asked = len(forced) if forced is not None else generation.max_new_tokens
        seed = reply_seed(self.seed, self.experiment, self.turn)
        return GenerationRequest(
            experiment=self.experiment,
            turn=self.turn,
            prompt=prompt,
            cache=self.cache,
            sampler=ForcedSampler(forced)
            if forced is not None
            else sampler_for(generation.temperature, generation.top_p, seed),
            stop_ids=self.stop_ids,
            max_new_tokens=min(asked, self.context_length - len(prompt.token_ids)),
            forced=forced is not None,
        )

    def account(self, prompt: Prompt, reply: Reply) -> None:
        """Add a reply to the totals. `minimum` is what any exact cache must feed for this prompt."""
        ids, previous = prompt.token_ids, self.expected_ids
        common = next(
            (i for i, (a, b) in enumerate(zip(ids, previous, strict=False)) if a != b),
            min(len(ids), len(previous)),
        )
        totals = self.totals
        totals.turns += 1
        totals.minimum += max(1, len(ids) - common)
        totals.prefilled += len(reply.prefilled)
        totals.generated += len(reply.token_ids)
        self.expected_ids = (*ids, *reply.token_ids[:-1])
        totals.cached_peak = max(totals.cached_peak, len(self.expected_ids))
        self.turns_since_prune += 1


def open_session(
    phase: PhaseConfig,
    seed: int,
    model: Any,
    prompt_format: PromptFormat,
    context_length: int,
    notes: NoteStore,
    documents: Mapping[str, Document],
    tools: Mapping[str, Tool],
    interrupts: Interrupts | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Session:
    """A session of a phase, before its first experiment. `options` are further fields of Session.

    Raises ConfigError where the system prompt and a reply do not fit the model's context.
    """

    def system_tokens(text: str) -> int:
        return prompt_format.system_length(text)

    context = ToolContext(
        model=model,
        encode=prompt_format.encode,
        decode=prompt_format.decode,
        notes=notes,
        documents=documents,
        max_result_tokens=phase.max_result_tokens,
        progress=progress,
        interrupts=interrupts or Interrupts(),
    )
    eos = model.generation_config.eos_token_id if model.generation_config else model.config.eos_token_id
    session = Session(
        phase=phase,
        seed=seed,
        prompt_format=prompt_format,
        prompt_detail=fitting_detail(phase, tools, system_tokens, context_length),
        context_length=context_length,
        stop_ids=prompt_format.stop_ids(eos),
        cache=KVCache(model.config.get_text_config().num_hidden_layers),
        all_tools=tools,
        context=context,
        all_documents=documents,
        **options,
    )
    session.offer_tools(phase.experiments[0])
    if phase.limits.max_result_tokens is None:
        # A context shorter than the phase's conversation has less to give to one result.
        context.max_result_tokens = min(phase.max_result_tokens, max(64, session.conversation_budget // 4))
    return session
