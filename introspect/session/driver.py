"""Serving the loop's requests with an engine: prefill what the cache lacks, then decode id by id."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Protocol

from introspect.display import Progress, one_line
from introspect.engine.decoding import DecodingSequence
from introspect.engine.engine import Engine
from introspect.engine.out_of_memory import OUT_OF_MEMORY, is_out_of_memory, release_memory
from introspect.events import Event, Status, Token
from introspect.prompt.prompt import PromptFormat
from introspect.prompt.reply_stream import ReplyStream
from introspect.session.exchange import Answer, Failed, GenerationRequest, Reply, Steps
from introspect.session.memory import WHAT_TO_DO, MemoryWatch
from introspect.session.protocols import FaultPlanter

_MOST_ERROR_CHARACTERS = 200
"""Characters of an allocator's words that are quoted: the size that it was asked for is among the first."""


class Driver(Protocol):
    """Answers a request; may yield token events while it works."""

    def serve(self, request: GenerationRequest) -> Generator[Token, None, Answer]: ...


class EngineDriver:
    """Decodes on this machine. `interrupted` is asked between tokens; true raises KeyboardInterrupt.

    `progress` is told how far a prefill has come, `memory` is asked whether a request will fit.
    """

    def __init__(
        self,
        engine: Engine,
        prompt_format: PromptFormat,
        interrupted: Callable[[], bool] = lambda: False,
        fault_planter: FaultPlanter | None = None,
        progress: Progress | None = None,
        memory: MemoryWatch | None = None,
    ) -> None:
        self.engine = engine
        self.prompt_format = prompt_format
        self.interrupted = interrupted
        self.fault_planter = fault_planter
        self.progress = progress
        self.memory = memory

    def serve(self, request: GenerationRequest) -> Generator[Token, None, Answer]:
        """Decode one reply; Failed where there is not enough memory for it.

        What there is of the reply then is thrown away. Raises KeyboardInterrupt between tokens, and wherever
        the engine does.
        """
        refused = self.memory.refused(request) if self.memory is not None and request.forecast else None
        if refused is not None:
            return refused
        cache, prompt_ids = request.cache, request.prompt.token_ids
        kept = min(cache.match_prefix(prompt_ids), len(prompt_ids) - 1)
        try:
            return (yield from self._reply(request))
        except Exception as error:  # libraries wrap what an allocator raises
            if not is_out_of_memory(error):
                raise
            words = one_line(str(error))[:_MOST_ERROR_CHARACTERS]
        # What the record does not have must not be in the cache: the next prompt would build upon it. Layers
        # may be longer than each other, each is cut to what recorded passes have written.
        cache.truncate(min(kept, cache.num_cached_tokens, len(cache.token_ids)))
        release_memory()
        reason = (
            f"a prompt of {len(prompt_ids)} tokens and a reply of up to {request.max_new_tokens} take more"
            f" memory than there is; {WHAT_TO_DO}. In the allocator's words: {words}"
        )
        return Failed(code=OUT_OF_MEMORY, reason=reason)

    def _reply(self, request: GenerationRequest) -> Generator[Token, None, Reply]:
        cache, planter, prompt_ids = request.cache, self.fault_planter, request.prompt.token_ids
        if planter is not None:
            prompt_ids = planter.before_prefill(cache, prompt_ids)
        prefill = self.engine.prefill(cache, prompt_ids, self._prefilled)
        if planter is not None:
            planter.after_prefill(cache, request.prompt.token_ids)
        stream = self.prompt_format.reply_stream()
        sequence = DecodingSequence(
            cache=cache,
            sampler=request.sampler,
            logits=prefill.logits,
            stop_ids=request.stop_ids,
            max_new_tokens=request.max_new_tokens,
            end_length=stream.end_length,
        )
        for _ in self.engine.decode([sequence]):
            yield _token(request, sequence, stream)
            if self.interrupted():
                raise KeyboardInterrupt
        if sequence.fault is not None:
            yield _token(request, sequence, stream)
        decoded = sequence.decoded(self.engine.decode_path)
        began = time.perf_counter()
        digest = cache.state_digest()
        return Reply(
            prefill=prefill,
            decoded=decoded,
            state_digest=digest,
            digest_seconds=time.perf_counter() - began,
        )

    def _prefilled(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(f"prefill {done} of {total} tokens:", done, total)


def _token(request: GenerationRequest, sequence: DecodingSequence, stream: ReplyStream) -> Token:
    """What the last ids completed; all that is left of the text where the reply has ended."""
    return Token(
        experiment=request.experiment,
        turn=request.turn,
        text=stream.take(sequence.token_ids, sequence.finish_reason),
        sampled=len(sequence.token_ids),
        cached_tokens=sequence.cache.num_cached_tokens,
    )


def drive(steps: Steps[Status], driver: Driver) -> Generator[Event, None, Status]:
    """Run a loop to its end with a driver: yields the events, returns the loop's status."""
    try:
        step = next(steps)
        while True:
            if isinstance(step, GenerationRequest):
                answer = yield from driver.serve(step)
                step = steps.send(answer)
            else:
                yield step
                step = next(steps)
    except StopIteration as end:
        ended: Status = end.value
        return ended
