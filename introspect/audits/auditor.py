"""The auditor of a run: which levels are due, what they found, and what they cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from introspect.audits.intent import check_intent, told_apart
from introspect.audits.one_pass import (
    FORWARD_FAULT,
    against_one_pass,
    refused_one_pass,
    seconds_of_one_pass,
)
from introspect.cache_check.examine import Finding
from introspect.engine.cache_replay import first_difference, passes_before, replay_passes
from introspect.engine.engine import Engine
from introspect.engine.kv_cache import ForwardPass, KVCache
from introspect.errors import UnsupportedCache
from introspect.events import Audit
from introspect.model.cache_audit import Findings, check_structure, examine_cache
from introspect.phase.config import AuditConfig, When
from introspect.prompt.families import Framing
from introspect.prompt.framing import measure_framing
from introspect.session.protocols import CachedTurn

SMALL_MODEL = 50_000_000
"""Parameters below which audits are made whatever they cost."""
LARGEST_SHARE = 0.1
"""Of the run's time, for the costly audits of a model that is not small."""

LEVELS = ("e0", "e1", "e2")
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
        """E1 of every slot, decoded ones included; E0 and E2 where they are asked for at the end alone."""
        due = []
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

    def _made(self, due: Sequence[str], state: CachedTurn, length: int) -> list[Audit]:
        """The audits that are due, up to the first that fails: what comes after it would only repeat it."""
        verdicts: list[Audit] = []
        with self.engine.interrupts.breakable:
            for level in due:
                if any(verdict.codes or verdict.level == level for verdict in verdicts):
                    break
                if level == "e0":
                    verdicts.append(self._e0(state))
                elif level == "e1":
                    verdicts.append(self._e1(state, length))
                else:
                    verdicts.append(self._e2(state))
        return verdicts

    def _e0(self, state: CachedTurn) -> Audit:
        began = time.perf_counter()
        found = check_structure(state.cache, state.token_ids)
        intent: Findings = []
        if self.tokenizer is not None:
            decoded = len(state.token_ids) - state.prompt_tokens
            fed = state.cache.token_ids[: len(state.cache.token_ids) - decoded]
            intent = check_intent(self.tokenizer, fed, state.messages, self._framing)
        # What the text of the ids shows is the better name for ids that are not those meant.
        named = bool(intent) and intent[0][0] != "unknown"
        found = intent if named else self._examined(state, found) or intent
        codes = tuple(code for code, _ in found)
        count = len(state.token_ids)
        detail = "; ".join(f"{code}: {seen}" for code, seen in found)
        detail = detail or f"{count} tokens as meant{told_apart(self._framing)}"
        figures = {"tokens": count, "layers": len(state.cache.layers), "bytes": state.cache.nbytes}
        seconds = time.perf_counter() - began
        return Audit(state.experiment, state.turn, "e0", codes, detail, figures, seconds)

    def _e1(self, state: CachedTurn, length: int) -> Audit:
        passes = passes_before(state.cache, length)
        place = (state.experiment, state.turn, "e1")
        figures = self._conditions() | {"tokens": length, "passes": len(passes)}
        if skipped := self._too_costly(sum(forward_pass.seconds for forward_pass in passes)):
            return Audit(*place, (), skipped, figures, 0.0, skipped)
        began = time.perf_counter()
        replay = replay_passes(self.engine, passes, length)
        difference = first_difference(state.cache, replay, length)
        if difference is not None and not self._repeats_itself(replay, passes, length):
            return self._e2(state)
        seconds = time.perf_counter() - began
        self.spent += seconds
        if difference is None:
            detail = f"{length} tokens bit-equal to a replay of {len(passes)} passes"
            return Audit(*place, (), detail, figures, seconds)
        figures |= {"layer": difference.layer, "slot": difference.slot, "max_abs": difference.size}
        detail = (
            f"{difference.tensor} of layer {difference.layer} differ from slot {difference.slot} on"
            f" by up to {difference.size:.3g}, in {difference.slots} of {length} slots"
        )
        found = self._examined(state, [("unknown", "")])
        told = "; ".join(seen for _, seen in found if seen)
        codes = tuple(dict.fromkeys(code for code, _ in found))
        return Audit(*place, codes, f"{detail}. {told}".rstrip(". "), figures, seconds)

    def _examined(self, state: CachedTurn, found: Findings) -> Findings:
        """What is wrong by the name that an examination gives it; `found` where it has none."""
        if not found:
            return found
        try:
            # Ids decoded on top of a damaged prompt are wrong too, in ways that would only hide its name.
            decoded = len(state.token_ids) - state.prompt_tokens
            prompt = state.cache.fork()
            for layer in prompt.layers:
                layer.truncate(max(0, layer.get_seq_length() - decoded))
            findings = examine_cache(self.engine.model, prompt, state.token_ids[: state.prompt_tokens])
            findings = findings or examine_cache(self.engine.model, state.cache, state.token_ids)
        except UnsupportedCache:
            return found
        return [(finding.code, self._told(finding)) for finding in findings] or found

    def _told(self, finding: Finding) -> str:
        """A finding with what the slot holds and what it should hold, as text, side by side."""
        if self.tokenizer is None or finding.token is None or finding.expected_token is None:
            return finding.detail
        has, meant = (self.tokenizer.decode([i]) for i in (finding.token, finding.expected_token))
        return f"{finding.detail} (slot {finding.slot} holds {has!r}, meant is {meant!r})"

    def _repeats_itself(self, replay: KVCache, passes: list[ForwardPass], length: int) -> bool:
        """Whether this device gives the same bits twice; where it does not, E1 promises nothing."""
        if self._repeats is None:
            again = replay_passes(self.engine, passes, length)
            self._repeats = first_difference(replay, again, length) is None
        return self._repeats

    def _e2(self, state: CachedTurn) -> Audit:
        cache: KVCache = state.cache
        ids = list(cache.token_ids)
        place = (state.experiment, state.turn, "e2")
        figures = self._conditions() | {"tokens": len(ids)}
        estimate = seconds_of_one_pass(cache)
        if skipped := refused_one_pass(self.engine.model, len(ids)) or self._too_costly(estimate):
            return Audit(*place, (), skipped, figures, 0.0, skipped)
        began = time.perf_counter()
        try:
            found = against_one_pass(self.engine, cache)
        except torch.OutOfMemoryError:
            skipped = f"one pass over {len(ids)} tokens takes more memory than there is"
            return Audit(*place, (), skipped, figures, time.perf_counter() - began, skipped)
        seconds = time.perf_counter() - began
        self.spent += seconds
        figures |= {"max_abs_logit": found.size, "alarm": found.alarm}
        if found.noise is not None:
            figures["noise"] = found.noise
        detail = f"logits of one pass differ by {found.size:.2g}, alarm at {found.alarm:.2g}"
        if not found.alarmed:
            return Audit(*place, (), detail, figures, seconds)
        return Audit(*place, ("unknown",), f"{detail}: {FORWARD_FAULT}", figures, seconds)

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
