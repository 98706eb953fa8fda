"""Serving the loop's requests with an engine: prefill what the cache lacks, then decode id by id."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Protocol

from introspect.engine.decoding import DecodingSequence
from introspect.engine.engine import Engine
from introspect.events import Event, Status, Token
from introspect.prompt.prompt import PromptFormat
from introspect.session.loop import Steps
from introspect.session.protocols import FaultPlanter
from introspect.session.session import GenerationRequest, Reply


class Driver(Protocol):
    """Answers a request; may yield token events while it works."""

    def serve(self, request: GenerationRequest) -> Generator[Token, None, Reply]: ...


class EngineDriver:
    """Decodes on this machine. `interrupted` is asked between tokens; true raises KeyboardInterrupt."""

    def __init__(
        self,
        engine: Engine,
        prompt_format: PromptFormat,
        interrupted: Callable[[], bool] = lambda: False,
        fault_planter: FaultPlanter | None = None,
    ) -> None:
        self.engine = engine
        self.prompt_format = prompt_format
        self.interrupted = interrupted
        self.fault_planter = fault_planter

    def serve(self, request: GenerationRequest) -> Generator[Token, None, Reply]:
        """Decode one reply. Raises KeyboardInterrupt between tokens, and wherever the engine does."""
        started = time.perf_counter()
        prompt_ids = request.prompt.token_ids
        if self.fault_planter is not None:
            prompt_ids = self.fault_planter.before_prefill(request.cache, prompt_ids)
        prefill = self.engine.prefill(request.cache, prompt_ids)
        if self.fault_planter is not None:
            self.fault_planter.after_prefill(request.cache, request.prompt.token_ids)
        prefill_seconds = time.perf_counter() - started
        sequence = DecodingSequence(
            cache=request.cache,
            sampler=request.sampler,
            logits=prefill.logits,
            stop_ids=request.stop_ids,
            max_new_tokens=request.max_new_tokens,
            end_length=self.prompt_format.end_length,
        )
        shown = 0
        for _ in self.engine.decode([sequence]):
            text = self.prompt_format.decode(
                self.prompt_format.content_ids(sequence.token_ids, sequence.finish_reason)
            )
            if not text.endswith("\ufffd"):
                yield Token(
                    experiment=request.experiment,
                    turn=request.turn,
                    text=text[shown:],
                    sampled=len(sequence.token_ids),
                    cached_tokens=request.cache.num_cached_tokens,
                )
                shown = len(text)
            if self.interrupted():
                raise KeyboardInterrupt
        return Reply(
            start=prefill.start,
            prefilled=prefill.token_ids,
            chunks=prefill.chunks,
            prefill_seconds=prefill_seconds,
            token_ids=tuple(sequence.token_ids),
            finish_reason=sequence.finish_reason or "length",
            logprobs=tuple(sequence.logprobs),
            top_logits=sequence.top_logits,
            logits_digest=sequence.logits_digest,
            state_digest=request.cache.state_digest(),
            decode_path=self.engine.decode_path,
            seconds=time.perf_counter() - started,
            fault=sequence.fault,
        )


def drive(steps: Steps, driver: Driver) -> Generator[Event, None, Status]:
    """Run a loop to its end with a driver: yields the events, returns the loop's status."""
    try:
        step = next(steps)
        while True:
            if isinstance(step, GenerationRequest):
                reply = yield from driver.serve(step)
                step = steps.send(reply)
            else:
                yield step
                step = next(steps)
    except StopIteration as end:
        ended: Status = end.value
        return ended
