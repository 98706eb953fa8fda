"""The auditor of a run: which levels are due, what they found, and what they cost."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, get_args

import torch

from introspect.audits.examiner import Examiner
from introspect.audits.intent import intent_of_turn, unrendered_prose
from introspect.audits.one_pass import (
    FORWARD_FAULT,
    against_one_pass,
    refused_one_pass,
    seconds_of_one_pass,
)
from introspect.audits.replay import ReplayPlan, RunReplay
from introspect.cache_check.examine import CacheFault
from introspect.engine.cache import TokenCache
from introspect.engine.engine import Engine
from introspect.engine.out_of_memory import is_out_of_memory, release_memory
from introspect.events import JSON, Audit, AuditLevel
from introspect.model.cache_audit import check_structure
from introspect.phase.config import AuditConfig, When
from introspect.prompt.families import Framing
from introspect.prompt.framing import measure_framing
from introspect.session.protocols import CachedTurn

SMALL_MODEL = 50_000_000
"""Parameters below which audits are made whatever they cost. Chosen, not calibrated: above the shipped model,
whose passes take milliseconds. Above it E2 and decoded replies are bound by LARGEST_SHARE."""
LARGEST_SHARE = 0.1
"""Of the run's time so far, for E2 and decoded replies in E1 of a model that is not small. The new passes of
a prompt are repeated at any price: together they cannot take longer than the run's own prefills did."""

LEVELS: tuple[AuditLevel, ...] = get_args(AuditLevel)
"""Cheapest first; each has been passed where the next one is made."""

_RANK: dict[When, int] = {"never": 0, "once": 0, "end": 1, "every_prune": 2, "every_turn": 3}


@dataclass
class RunAuditor:
    """Makes the audits that a phase asks for. `spent` is in seconds, of E1 and E2 together.

    With a `tokenizer`, E0 also compares the prompt with what the model's own chat template writes.
    """

    engine: Engine
    config: AuditConfig
    tokenizer: Any = None
    clock: Callable[[], float] = time.monotonic
    spent: float = 0.0
    began: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.clock()
        self._framing = measure_framing(self.tokenizer) if self.tokenizer is not None else Framing(None)
        parameters = list(self.engine.model.parameters())
        self._small = sum(p.numel() for p in parameters) < SMALL_MODEL
        self._dtype = self.engine.dtype
        self._device = torch.device(self.engine.device).type
        self._repeats: bool | None = True if self._device == "cpu" else None
        self._replay = RunReplay(self.engine)
        self._examiner = Examiner(self.engine, self.tokenizer)
        self._made_at_prune: set[str] = set()

    def after_turn(self, state: CachedTurn) -> list[Audit]:
        """E0 when due; E1 of the prompt's slots and E2 at a prune, and at every turn where that is asked."""
        due = [level for level in LEVELS if self._due(level, state.pruned)]
        made = self._made(due, state, state.prompt_tokens)
        if state.pruned:
            # One that was skipped stays due at the next prune.
            self._made_at_prune |= {verdict.level for verdict in made if verdict.skipped is None}
        return made

    def after_experiment(self, state: CachedTurn) -> list[Audit]:
        """E1 of every slot, decoded ones included as far as they are drawn; E0 and E2 where they are due."""
        due: list[AuditLevel] = []
        if self.config.e0 in ("end", "every_prune") or (self.config.e0 == "once" and state.final):
            due.append("e0")
        if self.config.e1 != "never" and (self.config.e1 != "once" or state.final):
            due.append("e1")
        if self.config.e2 == "end" or (self.config.e2 == "once" and state.final):
            due.append("e2")
        return self._made(due, state, len(state.token_ids))

    def _due(self, level: str, pruned: bool) -> bool:
        """Whether an audit is due after a turn, before which the window changed or not."""
        when: When = getattr(self.config, level)
        if when == "once":
            return pruned and level not in self._made_at_prune
        return _RANK[when] >= (2 if pruned else 3)

    def _made(self, due: Sequence[AuditLevel], state: CachedTurn, length: int) -> list[Audit]:
        """The audits that are due, up to the first that fails: what comes after it would only repeat it."""
        verdicts: list[Audit] = []
        with self.engine.interrupts.breakable:
            for level in due:
                if any(verdict.codes or verdict.level == level for verdict in verdicts):
                    break
                if level == "e0":
                    make = partial(self._e0, state)
                elif level == "e1":
                    make = partial(self._e1, state, length, "e2" in due)
                else:
                    make = partial(self._e2, state)
                verdicts.append(_within_memory(state, level, make))
        return verdicts

    def _e0(self, state: CachedTurn) -> Audit:
        began = time.perf_counter()
        found = check_structure(state.cache, state.token_ids)
        intent, unmade = intent_of_turn(self.tokenizer, state, self._framing)
        # What the text of the ids shows is the better name for ids that are not those meant.
        named = bool(intent) and intent[0].code != "unknown"
        found = intent if named else self._examiner.named(state, found) or intent
        codes = tuple(fault.code for fault in found)
        count = len(state.token_ids)
        detail = "; ".join(f"{fault.code}: {fault.detail}" for fault in found)
        detail = detail or unmade or f"{count} tokens as meant{unrendered_prose(self._framing, state.tools)}"
        figures = {"tokens": count, "layers": len(state.cache.layers), "bytes": state.cache.nbytes}
        seconds = time.perf_counter() - began
        skipped = None if codes else unmade
        return _verdict(state, "e0", detail, figures, codes=codes, seconds=seconds, skipped=skipped)

    def _e1(self, state: CachedTurn, length: int, e2_due: bool) -> Audit:
        began = time.perf_counter()
        plan = self._replay.plan(state.cache, length, self._left(state.cache, e2_due), _drawn_by(state))
        figures = self._conditions() | {
            "tokens": length,
            "passes": len(plan.places),
            "known_tokens": plan.known_tokens,
            "replies": plan.replies,
            "replies_drawn": plan.drawn,
        }
        difference = self._replay.check(state.cache, plan)
        if difference is not None and not self._repeats_itself(plan):
            return self._e2(state)
        seconds = time.perf_counter() - began
        self.spent += seconds
        if difference is None:
            return _verdict(state, "e1", plan.summary(), figures, seconds=seconds)
        figures |= {"layer": difference.layer, "slot": difference.slot, "max_abs": difference.size}
        detail = (
            f"{difference.tensor} of layer {difference.layer} differ from slot {difference.slot} on"
            f" by up to {difference.size:.3g}, in {difference.slots} of {length} slots"
        )
        found = self._examiner.named(state, [CacheFault(code="unknown", detail="")])
        names = "; ".join(fault.detail for fault in found if fault.detail)
        codes = tuple(dict.fromkeys(fault.code for fault in found))
        return _verdict(state, "e1", f"{detail}. {names}".rstrip(". "), figures, codes=codes, seconds=seconds)

    def _left(self, cache: TokenCache, e2_due: bool) -> float:
        """Seconds that decoded replies may take: no limit for a small model, else what E2 does not need."""
        if self._small:
            return math.inf
        left = LARGEST_SHARE * (self.clock() - self.began) - self.spent
        e2 = seconds_of_one_pass(cache) if e2_due else 0.0
        return max(0.0, left - e2 if e2 <= left else left)

    def _repeats_itself(self, plan: ReplayPlan) -> bool:
        """Whether this device gives the same bits twice; where it does not, E1 promises nothing."""
        if self._repeats is None:
            self._repeats = self._replay.repeats_itself(plan)
        return self._repeats

    def _e2(self, state: CachedTurn) -> Audit:
        cache: TokenCache = state.cache
        ids = list(cache.token_ids)
        figures = self._conditions() | {"tokens": len(ids)}
        estimate = seconds_of_one_pass(cache)
        if skipped := refused_one_pass(self.engine.model, len(ids)) or self._too_costly(estimate):
            return _verdict(state, "e2", skipped, figures, skipped=skipped)
        began = time.perf_counter()
        found = against_one_pass(self.engine, cache)
        seconds = time.perf_counter() - began
        self.spent += seconds
        figures |= {"max_abs_logit": found.size, "alarm": found.alarm}
        if found.noise is not None:
            figures["noise"] = found.noise
        detail = f"logits of one pass differ by {found.size:.2g}, alarm at {found.alarm:.2g}"
        if not found.alarmed:
            return _verdict(state, "e2", detail, figures, seconds=seconds)
        return _verdict(
            state, "e2", f"{detail}: {FORWARD_FAULT}", figures, codes=("unknown",), seconds=seconds
        )

    def _too_costly(self, estimate: float) -> str | None:
        if self._small:
            return None
        elapsed = self.clock() - self.began
        if self.spent + estimate <= LARGEST_SHARE * elapsed:
            return None
        return f"it would take {estimate:.1f} s, over {LARGEST_SHARE:.0%} of the run's time"

    def _conditions(self) -> dict[str, Any]:
        return {
            "dtype": self._dtype,
            "threads": torch.get_num_threads(),
            "attention": self.engine.model.config._attn_implementation,
        }


def _drawn_by(state: CachedTurn) -> random.Random:
    """What draws the replies that E1 repeats: the same at the same place of every run."""
    return random.Random(f"{state.experiment}/{state.turn}")


def _within_memory(state: CachedTurn, level: AuditLevel, make: Callable[[], Audit]) -> Audit:
    """The verdict of one check; that it is skipped where it takes more memory than there is."""
    began = time.perf_counter()
    try:
        return make()
    except Exception as error:  # libraries wrap what an allocator raises
        if not is_out_of_memory(error):
            raise
    release_memory()
    tokens = len(state.token_ids)
    skipped = f"{level.upper()} of {tokens} tokens takes more memory than there is"
    seconds = time.perf_counter() - began
    return _verdict(state, level, skipped, {"tokens": tokens}, seconds=seconds, skipped=skipped)


def _verdict(
    state: CachedTurn,
    level: AuditLevel,
    detail: str,
    figures: JSON,
    codes: tuple[str, ...] = (),
    seconds: float = 0.0,
    skipped: str | None = None,
) -> Audit:
    """The event of one check of a turn's cache."""
    return Audit(
        experiment=state.experiment,
        turn=state.turn,
        level=level,
        codes=codes,
        detail=detail,
        figures=figures,
        seconds=seconds,
        skipped=skipped,
    )
