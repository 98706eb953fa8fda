"""Whoever makes the turns of a workload, and what each turn took."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from introspect.bench.processor import busy_seconds
from introspect.bench.workload import Conversation, Kind, Workload
from introspect.engine.decoding import DecodingSequence
from introspect.engine.engine import Engine
from introspect.engine.sampling import GreedySampler


@dataclass(frozen=True, kw_only=True)
class TurnTimes:
    """`first` seconds until the first token could be chosen, `decode` for the `decoded` tokens.

    `prompt` tokens stood before the reply; `processor` seconds were computed meanwhile, on all threads, and
    `others` seconds by other programs, None where the system does not say.
    """

    kind: Kind
    prompt: int
    decoded: int
    first: float
    decode: float
    processor: float
    others: float | None = None

    @property
    def wall(self) -> float:
        """Seconds of the whole turn."""
        return self.first + self.decode


class Contender(Protocol):
    """Makes greedy replies of a fixed length; it may keep what it computed for earlier prompts."""

    name: str

    def turn(self, prompt: Sequence[int], decoded: int) -> tuple[list[int], float, float]:
        """The ids of the reply, seconds to its first, and seconds for all of them."""
        ...

    def processor(self) -> float:
        """Seconds that its threads have computed, since they began."""
        ...


class EngineContender:
    """This program's engine: one cache, truncated to what the next prompt shares, and extended."""

    def __init__(self, name: str, engine: Engine) -> None:
        self.name = name
        self.engine = engine
        self.cache = engine.new_cache()

    def turn(self, prompt: Sequence[int], decoded: int) -> tuple[list[int], float, float]:
        began = time.perf_counter()
        logits = self.engine.prefill(self.cache, prompt).logits
        first = time.perf_counter() - began
        sequence = DecodingSequence(
            cache=self.cache,
            sampler=GreedySampler(),
            logits=logits,
            stop_ids=frozenset(),
            max_new_tokens=decoded,
            through_faults=True,
        )
        began = time.perf_counter()
        for _ in self.engine.decode([sequence]):
            pass
        return list(sequence.token_ids), first, time.perf_counter() - began

    def processor(self) -> float:
        return time.process_time()


def interleaved(
    contenders: Sequence[Contender],
    workload: Workload,
    vocabulary: int,
    seed: int = 0,
    turns: Mapping[str, int] | None = None,
) -> Iterator[tuple[str, TurnTimes]]:
    """Every contender's turns, one turn of each in its turn: what slows the machine down slows down all.

    Each has a conversation of its own, since replies of other kernels are other ids. `turns` are those of
    contenders that make fewer than the workload has.
    """
    fewer = turns or {}
    conversations = {
        one.name: Conversation(
            replace(workload, turns=min(workload.turns, fewer.get(one.name, workload.turns))),
            vocabulary,
            seed,
        )
        for one in contenders
    }
    for _ in range(workload.turns):
        for contender in contenders:
            turn = conversations[contender.name].next_turn()
            if turn is None:
                continue
            processor, busy = contender.processor(), busy_seconds()
            reply, first, decode = contender.turn(turn.prompt, workload.decoded)
            own, all_busy = contender.processor() - processor, busy_seconds()
            conversations[contender.name].answered(reply)
            yield (
                contender.name,
                TurnTimes(
                    kind=turn.kind,
                    prompt=len(turn.prompt),
                    decoded=len(reply),
                    first=first,
                    decode=decode,
                    processor=own,
                    others=None if busy is None or all_busy is None else max(0.0, all_busy - busy - own),
                ),
            )
