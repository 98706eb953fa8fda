"""E1 over a run: what was repeated before is checked by its bytes, what is new is repeated on top of it.

Decoding ids again takes as long as decoding them did. A model that is not small has a sample of its decoded
replies repeated, as many as the time allows; of the others it is checked that their bytes are still what
they were when the reply ended, and the verdict says how many.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from introspect.engine.cache import TokenCache
from introspect.engine.cache_replay import (
    Difference,
    Form,
    Replayed,
    changed_since,
    first_difference,
    forms,
    looked_at,
    replay_passes,
    unchanged_passes,
)
from introspect.engine.engine import Engine
from introspect.engine.schedule import PREFILL, ForwardPass, Schedule


@dataclass(frozen=True, kw_only=True)
class ReplayPlan:
    """What is to be repeated of a schedule: the places of passes, those of `replies` among them.

    `known` are the first passes, as they were looked at before. `replies` counts those whose decoded slots
    were never repeated, `drawn` those that are now; `partly` the drawn ones of which not every id is.
    """

    schedule: Schedule
    known: list[Replayed]
    places: frozenset[int]
    replies: int
    drawn: int
    partly: int

    @property
    def known_tokens(self) -> int:
        """Slots that are checked by their bytes alone."""
        return self.known[-1].end if self.known else 0

    def tokens_compared(self) -> tuple[int, int]:
        """Slots that are compared with a replay now, and others of which an earlier one gave the digests."""
        now = earlier = 0
        for place, (forward_pass, end) in enumerate(self.schedule.spans()):
            if place in self.places:
                now += end - forward_pass.start
            elif place < len(self.known) and self.known[place].repeated:
                earlier += end - forward_pass.start
        return now, earlier

    def summary(self) -> str:
        """What is equal to a replay, and what of the replies is not compared with one, in words."""
        now, earlier = self.tokens_compared()
        length, compared = self.schedule.length, now + earlier
        passes = "1 pass" if len(self.places) == 1 else f"{len(self.places)} passes"
        tokens = f"{length} tokens" if compared == length else f"{compared} of {length} tokens"
        text = f"{tokens} bit-equal to a replay of {passes}"
        if earlier:
            parts = [f"{now} to a replay of {passes}"] if now else []
            text = f"{tokens} bit-equal: {', '.join([*parts, f'{earlier} by digest to earlier replays'])}"
        if self.drawn < self.replies or self.partly:
            cut = f", {self.partly} in part" if self.partly else ""
            text += f"; decoded replies drawn and repeated: {self.drawn} of {self.replies}{cut}"
        return text


class RunReplay:
    """Remembers what E1 has seen of the cache of one run."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._seen: list[Replayed] = []
        self._forms: list[Form] | None = None

    def plan(self, cache: TokenCache, length: int, seconds: float, rng: random.Random) -> ReplayPlan:
        """What E1 of the first `length` slots repeats: what is new of the prompts, and drawn replies.

        Replies are drawn by `rng` and repeated from their first id on, until they would take `seconds` more.
        """
        schedule = cache.schedule.before(length)
        known = unchanged_passes(self._seen, schedule)
        repeated = {place for place, seen in enumerate(known) if seen.repeated}
        new = [place for place in range(len(schedule.passes)) if place not in repeated]
        places = {place for place in new if schedule.passes[place].path == PREFILL}
        replies = _replies(schedule, [place for place in new if place not in places])
        drawn = partly = 0
        for reply in rng.sample(replies, len(replies)):
            fitting = []
            for place in reply:
                seconds -= schedule.passes[place].seconds
                if seconds < 0:
                    break
                fitting.append(place)
            places.update(fitting)
            drawn += bool(fitting)
            partly += 0 < len(fitting) < len(reply)
            if seconds < 0:
                break
        return ReplayPlan(
            schedule=schedule,
            known=known,
            places=frozenset(places),
            replies=len(replies),
            drawn=drawn,
            partly=partly,
        )

    def check(self, cache: TokenCache, plan: ReplayPlan) -> Difference | None:
        """Where the cache differs from what a replay gives; None where it does not.

        Raises UnknownPath where a pass took a path that the engine does not have.
        """
        length, unchanged = plan.schedule.length, plan.known
        if self._has_its_form(cache) and not changed_since(cache, _not_repeated(plan)):
            taken = frozenset(range(len(plan.schedule.passes))) - plan.places
            twin = replay_passes(self.engine, plan.schedule, cache, taken.__contains__)
            difference = first_difference(cache, twin, length)
        else:
            # What is wrong may have been wrong below everything that was ever repeated on top of it.
            self._seen, unchanged = [], []
            difference = first_difference(cache, replay_passes(self.engine, plan.schedule), length)
        if difference is None:
            repeated = plan.places | {place for place, seen in enumerate(plan.known) if seen.repeated}
            self._seen = looked_at(cache, plan.schedule, repeated, unchanged)
        return difference

    def recall(self, cache: TokenCache, looked_at_before: Schedule) -> None:
        """Take a cache that repeated passes wrote for the one that E1 saw when it held another schedule."""
        seen = [Replayed(forward_pass, end, True) for forward_pass, end in looked_at_before.spans()]
        self._seen = [
            replace(
                known,
                forward_pass=replace(
                    known.forward_pass, digests=cache.slot_digests(known.forward_pass.start, known.end)
                ),
            )
            for known in unchanged_passes(seen, cache.schedule)
        ]

    def repeats_itself(self, plan: ReplayPlan) -> bool:
        """Whether this device gives the same bits twice for the passes of a plan."""
        one, other = (replay_passes(self.engine, plan.schedule) for _ in range(2))
        return first_difference(one, other, plan.schedule.length) is None

    def _has_its_form(self, cache: TokenCache) -> bool:
        """Whether each layer has what the model writes, in every slot: digests are of bytes alone."""
        if self._forms is None:
            one = self.engine.new_cache()
            self.engine.forward(one, [0])
            self._forms = forms(one, 1)
        return forms(cache, len(cache.token_ids)) == self._forms


def _not_repeated(plan: ReplayPlan) -> Iterator[tuple[ForwardPass, int]]:
    """The passes that are taken over, as they were looked at, or as they were when their reply ended."""
    for seen in plan.known:
        yield seen.forward_pass, seen.end
    for place, span in enumerate(plan.schedule.spans()):
        if place >= len(plan.known) and place not in plan.places:
            yield span


def _replies(schedule: Schedule, places: Sequence[int]) -> list[list[int]]:
    """Places of decode passes, those of one reply together: each begins where the one before ends."""
    replies: list[list[int]] = []
    for place in places:
        if replies and place == replies[-1][-1] + 1:
            replies[-1].append(place)
        else:
            replies.append([place])
    return replies
