"""A real conversation stopped just after a prune, with the next reply due: where faults are planted."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle
from typing import Any

from introspect.checkpoint.loading import LoadedModel
from introspect.engine.engine import Engine
from introspect.engine.kv_cache import KVCache
from introspect.errors import ModelError
from introspect.events import Prune
from introspect.faults.scene import Conversation
from introspect.phase.config import PhaseConfig
from introspect.prompt.framing import injected_system
from introspect.prompt.prompt import PromptFormat
from introspect.session.driver import EngineDriver
from introspect.session.exchange import Failed, GenerationRequest
from introspect.session.loop import run_phase
from introspect.session.session import Session, open_session
from introspect.tools.context import to_json
from introspect.tools.instruments.registry import tools_named
from introspect.tools.note_store import NoteStore


@dataclass(frozen=True, kw_only=True)
class RealConversation:
    """A conversation just after its first prune; `before_prune` is the cache as the turn before it left it.

    `talk` has the ids that the model should see now, those of the turn that left, and the system message that
    the model's own chat template injects when it is given none.
    """

    engine: Engine
    prompt_format: PromptFormat
    before_prune: KVCache
    talk: Conversation
    stop_ids: frozenset[int]

    def clean_cache(self) -> KVCache:
        """A cache that holds exactly the prompt, made as a run makes it: truncate, then prefill the rest."""
        cache = self.before_prune.fork()
        self.engine.prefill(cache, self.talk.ids)
        return cache


def open_conversation(loaded: LoadedModel, phase: PhaseConfig) -> RealConversation:
    """Hold a conversation with real tools in given turns, up to its first prune.

    Raises ConfigError where the system prompt and a reply do not fit the model's context, ModelError where
    the model's logits are not finite.
    """
    engine = Engine(loaded.model)
    prompt_format = loaded.prompt_format
    session = open_session(
        phase=phase,
        seed=0,
        model=loaded.model,
        prompt_format=prompt_format,
        context_length=loaded.context_length,
        notes=NoteStore(),
        documents={},
        tools=tools_named(phase.tools),
        forced_replies={
            (0, turn): (*prompt_format.encode(text), prompt_format.end_id)
            for turn, text in zip(range(1, phase.limits.max_turns + 1), cycle(_TURNS), strict=False)
        },
    )
    request = _request_after_prune(session, EngineDriver(engine, prompt_format))
    before, ids = session.cache.fork(), request.prompt.token_ids
    assert isinstance(before, KVCache), "faults are planted into the buffers of this class"
    prefix = session.system_tokens
    first_kept = session.transcript.turns()[0][0]
    dropped = _before_message(before.token_ids, prefix, first_kept.reply_ids)
    talk = Conversation(ids, prefix, dropped, _injected(loaded))
    return RealConversation(
        engine=engine, prompt_format=prompt_format, before_prune=before, talk=talk, stop_ids=session.stop_ids
    )


def _before_message(cached: list[int], prefix: int, reply: tuple[int, ...]) -> tuple[int, ...]:
    """The ids between the prefix and a reply, its header left out."""
    start = next(i for i in range(prefix, len(cached)) if tuple(cached[i : i + len(reply)]) == reply)
    return tuple(cached[prefix:start])


def _injected(loaded: LoadedModel) -> tuple[int, ...]:
    """The ids of the system message that the template writes for a conversation that has none."""
    prompt_format = loaded.prompt_format
    content = injected_system(loaded.tokenizer, prompt_format.framing)
    if content is None:
        return ()
    opening = bool(prompt_format.framing.opening)
    return prompt_format.render(content, []).token_ids[opening : prompt_format.system_length(content)]


def _request_after_prune(session: Session, driver: EngineDriver) -> GenerationRequest:
    steps = run_phase(session, session.phase.experiments[:1])
    pruned = False
    step = next(steps)
    while not (pruned and isinstance(step, GenerationRequest)):
        if isinstance(step, GenerationRequest):
            tokens = driver.serve(step)
            try:
                while True:
                    next(tokens)
            except StopIteration as end:
                answer = end.value
                if isinstance(answer, Failed):
                    raise ModelError(f"nothing can be diagnosed: {answer.reason}") from None
                if (fault := answer.decoded.fault) is not None:
                    raise ModelError(f"nothing can be diagnosed: {fault.detail}") from None
                step = steps.send(answer)
                continue
        pruned = pruned or isinstance(step, Prune)
        step = next(steps)
    return step


def _call(prose: str, function: str, **arguments: Any) -> str:
    call = {"reasoning": "Look.", "tool_call": {"function": function, "arguments": arguments}}
    return f"{prose}\n{to_json(call)}"


_TURNS = (
    _call("I begin.", "get_architecture_summary"),
    _call("The summary is read.", "get_layer_names", filter_pattern="*layers.0.mlp.*"),
    _call("Some names are listed.", "get_weight_statistics", layer_name="model.layers.0.mlp.up_proj"),
)
