"""A run led along its record: the loop runs again, and each of its events is compared with the recorded one.

Replies, verdicts and results of tools come from the record as long as it has them; what the loop makes of
them, prompts and prunes above all, it makes anew. So the record proves that this program with this model
would have written it, and the session is what it was when the record broke off. Then the passes that wrote
the cache are repeated, each whole, which gives the same bits, and the run goes on by itself.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from dataclasses import fields, replace

import torch

from introspect.audits.resumed import ResumedAuditor
from introspect.engine.cache_replay import replay_passes
from introspect.engine.decoding import Decoded
from introspect.engine.engine import PrefillResult
from introspect.engine.finite import CODE, NON_FINITE, NonFinite
from introspect.engine.ledger_cache import LedgerCache
from introspect.engine.out_of_memory import FORECAST, OUT_OF_MEMORY
from introspect.errors import RecordDiverged
from introspect.events import (
    Audit,
    Event,
    ExperimentEnd,
    Generation,
    Prefill,
    Status,
    Token,
    ToolResult,
    Warning,
)
from introspect.runlog.loop_events import difference, place_of
from introspect.session.driver import EngineDriver
from introspect.session.exchange import Answer, Failed, GenerationRequest, Reply
from introspect.session.session import Session
from introspect.tally import common_prefix
from introspect.tools.base import Tool
from introspect.tools.calls.actions import CallRequest
from introspect.tools.calls.execution import ToolOutcome, execute
from introspect.tools.context import ToolContext
from introspect.tools.note_store import WRITERS
from introspect.tools.plain_data import plain

_TIME_LIMIT = "limits.max_seconds"
REMEMBERED = "process_text"
"""The tool whose text later calls of an experiment are about."""


class Retrace:
    """The driver of a run that goes on after `record`, the events that its loop has given so far.

    While the record lasts, session and auditor get from it what they would have had made. `used` is what the
    run has taken, in seconds, `first` gives what is told when it goes on. `went_on` says that it does.
    """

    def __init__(
        self,
        record: Iterable[Event],
        session: Session,
        driver: EngineDriver,
        auditor: ResumedAuditor,
        used: float,
        first: Callable[[], Iterable[Event]],
    ) -> None:
        self.rest = deque(record)
        self.session = session
        self.driver = driver
        self.auditor = auditor
        self.used = used
        self.first = first
        self.went_on = False
        self.state_digest: tuple[str, ...] = ()
        self._ledger = LedgerCache()
        self._asked = 0
        self._clock = session.clock
        session.cache, session.clock, session.execute = self._ledger, self._time, self._execute
        auditor.recalled = self._verdict
        auditor.live = lambda: session.cache
        if not self.rest:
            self._go_on()

    def unrecorded(self, stream: Generator[Event, None, Status]) -> Generator[Event, None, Status]:
        """The events that the record does not have, what is told first of a run that goes on before them.

        Raises RecordDiverged where the loop gives another event than the record has.
        """
        told = False
        while True:
            try:
                event = next(stream)
            except StopIteration as end:
                if self.rest:
                    missed = place_of(self.rest[0])
                    raise RecordDiverged(f"the run ends here, and the record has {missed}") from None
                if not told:
                    yield from self.first()
                ended: Status = end.value
                return ended
            if self._is_recorded(event):
                continue
            if not told:
                yield from self.first()
                told = True
            yield event

    def serve(self, request: GenerationRequest) -> Generator[Token, None, Answer]:
        """The reply of the record; one that is made now where the record has none."""
        answer = None if self.went_on else self._recorded_answer(request)
        if answer is not None:
            return answer
        self._go_on()
        return (yield from self.driver.serve(replace(request, cache=self.session.cache)))

    def _is_recorded(self, event: Event) -> bool:
        """Whether the record has this event, the next one. Raises RecordDiverged where it has another."""
        if not self.rest or isinstance(event, Token):
            return False
        recorded = self.rest.popleft()
        self._asked = max(0, self._asked - 1)
        why = difference(event, recorded)
        if why is not None:
            raise RecordDiverged(f"{place_of(recorded)}: {why}")
        if not self.rest:
            self._go_on()
        return True

    def _go_on(self) -> None:
        """Write the cache again, and let everybody work who stood aside."""
        if self.went_on:
            return
        self.went_on = True
        session, ledger = self.session, self._ledger
        cache = replay_passes(self.driver.engine, ledger.schedule)
        digest = cache.state_digest() if cache.token_ids else ()
        if self.state_digest and digest != self.state_digest:
            raise RecordDiverged(
                "the passes of the record give other K and V here than in the run, so that it cannot go on"
                " bit for bit; the processor or a library is another"
            )
        session.cache, session.clock, session.execute = cache, self._clock, execute
        session.started = session.clock() - self.used
        if session.last_turn is not None:
            session.last_turn = replace(session.last_turn, cache=cache)
        self.auditor.go_on(cache, self.used)

    def _recorded_answer(self, request: GenerationRequest) -> Answer | None:
        """What the record has in answer to a request; None where it breaks off before."""
        first, second = (*self.rest, None, None)[:2]
        if isinstance(first, Warning) and first.code in (OUT_OF_MEMORY, FORECAST):
            if first.code == OUT_OF_MEMORY:
                ids, self.state_digest = request.prompt.token_ids, ()
                self._ledger.truncate(min(self._ledger.match_prefix(ids), len(ids) - 1))
            return Failed(code=first.code, reason=first.message)
        if isinstance(first, Prefill) and isinstance(second, Generation):
            return self._reply(request, first, second)
        if first is None or (isinstance(first, Prefill) and second is None):
            return None
        raise RecordDiverged(
            f"a reply is due in turn {request.turn} of experiment {request.experiment + 1}, and the record"
            f" has {place_of(first)}"
        )

    def _reply(self, request: GenerationRequest, prefill: Prefill, generation: Generation) -> Reply:
        prompt = request.prompt.token_ids
        recorded = (*self._ledger.token_ids[: prefill.start], *prefill.token_ids)
        if recorded != tuple(prompt):
            place = common_prefix(recorded, prompt)
            raise RecordDiverged(f"{place_of(prefill)}: its prompt is another from token {place} on")
        self._ledger.take(prefill)
        self._ledger.take(generation)
        self.state_digest = generation.state_digest
        return Reply(
            prefill=PrefillResult(
                start=prefill.start,
                token_ids=prefill.token_ids,
                chunks=prefill.chunks,
                logits=torch.empty(0),
                seconds=prefill.seconds,
            ),
            decoded=Decoded(
                token_ids=generation.token_ids,
                finish_reason=generation.finish_reason,
                logprobs=generation.logprobs,
                top_logits=generation.top_logits,
                logits_digest=generation.logits_digest,
                path=generation.decode_path,
                seconds=generation.seconds,
                fault=self._fault(generation),
            ),
            state_digest=generation.state_digest,
            digest_seconds=generation.digest_seconds,
        )

    def _fault(self, generation: Generation) -> NonFinite | None:
        if generation.finish_reason != NON_FINITE:
            return None
        told = self.rest[2] if len(self.rest) > 2 else None
        if isinstance(told, Audit):
            return NonFinite(told.codes, told.detail)
        return NonFinite((CODE,), "the logits were not finite; the run broke off before it told where")

    def _verdict(self) -> Audit | None:
        """The next verdict of the record for the auditor, which asks for all of a turn before one is told."""
        if self.went_on:
            return None
        if self._asked == len(self.rest):
            self._go_on()
            return None
        verdict = self.rest[self._asked]
        if not isinstance(verdict, Audit):
            raise RecordDiverged(f"{place_of(verdict)}: an audit is due before it")
        self._asked += 1
        return verdict

    def _execute(self, tools: Mapping[str, Tool], context: ToolContext, request: CallRequest) -> ToolOutcome:
        """What the record has of a call; what tools leave behind in the session is done again."""
        recorded = self.rest[0]
        if not isinstance(recorded, ToolResult) or recorded.function != request.function:
            raise RecordDiverged(f"{place_of(recorded)}: the result of {request.function} is due before it")
        if recorded.ok and request.function in WRITERS:
            again = plain(tools[request.function].call(context, request.arguments))
            if again != recorded.result:
                raise RecordDiverged(f"{place_of(recorded)}: the note is saved as {again} now")
        if recorded.ok and request.function == REMEMBERED:
            context.processed_text = tools[request.function].validated(request.arguments)["text"]
        return ToolOutcome(**{part.name: getattr(recorded, part.name) for part in fields(ToolOutcome)})

    def _time(self) -> float:
        """Seconds for a limit of time: none, but where the record says that the limit ended it."""
        return recorded_time(self.rest, self.session.forced_replies is not None)


def recorded_time(rest: Collection[Event], forced: bool) -> float:
    """Seconds as a limit of time sees them before the `rest` of a record: infinite where it was reached."""
    upcoming = next((event for event in rest if not isinstance(event, Audit)), None)
    if isinstance(upcoming, ExperimentEnd):
        return math.inf if upcoming.reason.startswith(_TIME_LIMIT) else 0.0
    # Audits come right after a reply or at the end of an experiment, and only there time is asked for.
    return math.inf if upcoming is None and rest and not forced else 0.0
