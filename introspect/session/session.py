"""The state of one run: the only mutable composite. The loop moves it; nothing else does."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from introspect.display import Progress
from introspect.engine.cache import TokenCache
from introspect.engine.decoding import Decoded
from introspect.engine.interrupts import Interrupts
from introspect.engine.sampling import ForcedSampler, reply_seed
from introspect.engine.strategies import new_cache
from introspect.events import Status
from introspect.phase.config import ExperimentConfig, PhaseConfig
from introspect.prompt.prompt import Prompt, PromptFormat
from introspect.session.constraint import ReplyConstraint, reply_constraint, reply_sampler, withheld_tools
from introspect.session.dialect import Dialect, Instructions, choose_dialect, told_role
from introspect.session.exchange import GenerationRequest
from introspect.session.limits import Spent, last_reply_is_due, limit_reached, result_tokens
from introspect.session.prompt_form import PromptForm, choose_form
from introspect.session.prompt_parts import PromptParts
from introspect.session.protocols import Auditor, CachedTurn
from introspect.session.pruning import Rendering
from introspect.tally import ExperimentTally, Tally
from introspect.tools.base import Tool
from introspect.tools.calls.execution import Executor, execute
from introspect.tools.context import RESULT_HEADER, ToolContext
from introspect.tools.figures import measures
from introspect.tools.library import Document
from introspect.tools.note_store import NoteStore
from introspect.transcript import Transcript

Ending = tuple[Status, str]
"""How an experiment ended: its status, and the reason."""


@dataclass
class Session:
    """A run in progress. `forced_replies` maps (experiment, turn) to ids that stand in for sampling.

    `misses`, `claim_answered` and `last_reply_told` are of the experiment that is going on: replies in a row
    that asked for nothing, whether a premature claim was answered and the last reply announced. `status` is
    the worst that an experiment has ended with, `out_of_memory` says that none can follow. `expected_ids` are
    those that the cache is meant to hold, made from what was rendered and sampled: never from what was fed.

    `clock` gives seconds from any fixed point; `limits.max_seconds` alone asks it. `execute` runs tools.
    """

    phase: PhaseConfig
    seed: int
    prompt_format: PromptFormat
    dialect: Dialect
    prompt_form: PromptForm
    context_length: int
    stop_ids: frozenset[int]
    cache: TokenCache
    all_tools: Mapping[str, Tool]
    context: ToolContext
    all_documents: Mapping[str, Document] = field(default_factory=dict)
    auditor: Auditor | None = None
    forced_replies: Mapping[tuple[int, int], tuple[int, ...]] | None = None
    constraint: ReplyConstraint | None = None
    clock: Callable[[], float] = time.monotonic
    execute: Executor = execute

    transcript: Transcript = field(default_factory=Transcript)
    tools: Mapping[str, Tool] = field(default_factory=dict)
    instructions: Instructions = field(default_factory=lambda: Instructions("", 0))
    status: Status = "complete"
    out_of_memory: bool = False
    experiment: int = -1
    turn: int = 0
    misses: int = 0
    claim_answered: bool = False
    last_reply_told: bool = False
    turns_since_prune: int = 0
    tally: Tally = field(default_factory=Tally)
    expected_ids: tuple[int, ...] = ()
    last_turn: CachedTurn | None = None
    started: float = 0.0

    def begin_experiment(self, index: int, experiment: ExperimentConfig) -> None:
        """Clear the conversation and begin a task; notes and cached state stay."""
        self.experiment, self.turn, self.turns_since_prune, self.last_turn = index, 0, 0, None
        self.misses, self.claim_answered, self.last_reply_told = 0, False, False
        self.transcript = Transcript().append("task", experiment.task.strip())
        self.offer_tools(experiment)
        documents = {name: self.all_documents[name] for name in self.phase.documents_of(experiment)}
        measuring = tuple(filter(measures, self.tools))
        self.context = replace(self.context, documents=documents, processed_text=None, measuring=measuring)

    def offer_tools(self, experiment: ExperimentConfig) -> None:
        """Offer the tools of an experiment and no others: the system prompt describes just these."""
        parts = PromptParts(self.phase, self.all_tools, self.all_documents, self.prompt_format, self.dialect)
        self.tools = parts.offered(experiment)
        self.instructions = parts.instructions(experiment, self.prompt_form.name)

    @property
    def system_tokens(self) -> int:
        """Tokens that every prompt of this experiment begins with."""
        return self.instructions.tokens

    @property
    def figures(self) -> ExperimentTally:
        """The figures of this experiment so far."""
        return self.tally.experiment(self.experiment)

    @property
    def conversation_budget(self) -> int:
        """Tokens that the conversation may take before a reply: the phase's, or what the context leaves."""
        room = self.context_length - self.system_tokens - self.phase.generation.max_new_tokens
        return min(self.phase.memory.max_conversation_tokens, room)

    def rendering(self, transcript: Transcript | None = None) -> Rendering:
        """What the model should see now, or would see with another transcript."""
        transcript = transcript or self.transcript
        return Rendering(
            transcript=transcript,
            prompt=self.prompt_format.render(
                self.instructions.text, transcript.window(), self.instructions.tools
            ),
            system_tokens=self.system_tokens,
        )

    def messages(self) -> list[tuple[str, str]]:
        """Role and text of each message that the model sees now, the system message first."""
        native = self.instructions.tools is not None
        said = [(told_role(m) if native else m.role, m.text) for m in self.transcript.window()]
        return [("system", self.instructions.text), *said]

    def content_ids(self, reply: Decoded) -> tuple[int, ...]:
        """The ids of a reply without those that ended it."""
        return self.prompt_format.content_ids(reply.token_ids, reply.finish_reason)

    def has_next_reply(self) -> bool:
        """Whether there can be a reply after this one: always, but where replies are forced."""
        return self.forced_replies is None or (self.experiment, self.turn + 1) in self.forced_replies

    def next_request(self, prompt: Prompt, forecast: bool = True) -> GenerationRequest:
        """The request for the reply of this turn. KeyError where they are forced and none is left."""
        place, seed = (self.experiment, self.turn), reply_seed(self.seed, self.experiment, self.turn)
        forced = None if self.forced_replies is None else self.forced_replies[place]
        asked = self.phase.generation.max_new_tokens if forced is None else len(forced)
        withheld = withheld_tools(self.phase, self.transcript)
        free = reply_sampler(self.phase, self.experiment, seed, self.constraint, withheld)
        return GenerationRequest(
            experiment=self.experiment,
            turn=self.turn,
            prompt=prompt,
            cache=self.cache,
            sampler=free if forced is None else ForcedSampler(forced),
            stop_ids=self.stop_ids,
            max_new_tokens=min(asked, self.context_length - len(prompt.token_ids)),
            forced=forced is not None,
            forecast=forecast,
        )

    @property
    def spent(self) -> Spent:
        """What this experiment and the run have used of their limits."""
        return Spent(
            turns=self.turn,
            calls=self.figures.calls,
            tokens=self.tally.generated,
            seconds=self.clock() - self.started,
            concluded=self.last_reply_told or self.prompt_form.name != "full",
        )

    def limit_reached(self) -> Ending | None:
        """The limit of the phase that an experiment or the run is at, if any."""
        reason = limit_reached(self.phase.limits, self.spent)
        return ("limited", reason) if reason else None

    def last_reply_is_due(self) -> bool:
        """Whether the model is to be told that its next reply is the last: in the brief form nothing is."""
        due = last_reply_is_due(self.phase.limits, self.turn, self.figures.calls)
        return due and self.prompt_form.name == "full"

    def completion_is_premature(self) -> bool:
        """Whether a claim of completion is to be answered: the first one, while no call has succeeded.

        A forced record that ends with the claim comes from a run that took it, and has no reply to an answer.
        """
        if self.claim_answered or not self.figures.no_tool_used:
            return False
        return self.has_next_reply() or self.limit_reached() is not None


def open_session(
    *,
    phase: PhaseConfig,
    seed: int,
    model: Any,
    prompt_format: PromptFormat,
    context_length: int,
    notes: NoteStore,
    documents: Mapping[str, Document],
    tools: Mapping[str, Tool],
    dialect: Dialect | None = None,
    prompt_form: PromptForm | None = None,
    interrupts: Interrupts | None = None,
    progress: Progress | None = None,
    auditor: Auditor | None = None,
    forced_replies: Mapping[tuple[int, int], tuple[int, ...]] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Session:
    """A session of a phase, before its first experiment. `context_length` is in tokens.

    `dialect` and `prompt_form` are chosen where they are not given. Raises ConfigError where the system
    prompt and a reply do not fit the context, or replies are constrained and llguidance is not installed.
    """
    dialect = dialect or choose_dialect(phase, tools, prompt_format)
    context = ToolContext(
        model=model,
        encode=prompt_format.encode,
        decode=prompt_format.decode,
        notes=notes,
        documents=documents,
        result_header=RESULT_HEADER if dialect.name == "own" else "",
        progress=progress,
        interrupts=interrupts or Interrupts(),
    )
    eos = model.generation_config.eos_token_id if model.generation_config else model.config.eos_token_id
    session = Session(
        phase=phase,
        seed=seed,
        prompt_format=prompt_format,
        dialect=dialect,
        prompt_form=prompt_form
        or choose_form(PromptParts(phase, tools, documents, prompt_format, dialect), context_length),
        context_length=context_length,
        stop_ids=prompt_format.stop_ids(eos),
        cache=new_cache(model, phase.memory.strategy),
        all_tools=tools,
        context=context,
        all_documents=documents,
        auditor=auditor,
        forced_replies=forced_replies,
        clock=clock,
    )
    session.offer_tools(phase.experiments[0])
    if forced_replies is None:
        told = session.instructions.tools
        session.constraint = reply_constraint(phase, tools, model, prompt_format, session.stop_ids, told)
    context.max_result_tokens = result_tokens(phase, session.conversation_budget)
    return session
