"""`introspect diagnose`: plants each known fault in a real conversation and measures what it does.

The measure is that of the clean run's next reply, fed id by id: how far the distribution of each next id is
from the clean one (KL divergence in nats), and what the model writes when it goes on from the damaged state.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from introspect.cache_check.naming import UNDECIDED
from introspect.engine.cache import TokenCache
from introspect.engine.finite import examine_logits, largest_difference
from introspect.errors import ModelError
from introspect.faults.catalogue import FAULTS, Fault
from introspect.faults.conversation import RealConversation
from introspect.faults.scene import Damaged, Scene
from introspect.model.cache_audit import examine_cache
from introspect.model.causal_lm import CausalLM

REPLY_TOKENS = 120
"""Tokens of the clean run's next reply that are compared, at most."""
CLEAN = "none"
SEEDS = 20_251_110

HYPOTHESES = (
    ("the cache was not cleared", "stale-tokens"),
    ("positions were misaligned", "wrong-position"),
    ("a default system prompt was injected", "second-system-prompt"),
    ("measured cause: the prefix was handed out by reference", "prefix-aliased"),
)
"""What the founding bug report supposed, in its order, and what a measurement found."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one fault does. KL in nats per token; `top1` is the share of ids that stay the most likely.

    The figures are None where the state cannot be used at all: `text` then says why.
    """

    fault: str
    meaning: str
    detected: bool
    named: list[str]
    expected: list[str]
    kl_mean: float | None
    kl_max: float | None
    top1: float | None
    max_abs_logit: float | None
    text: str
    evidence: str


def diagnose(conversation: RealConversation, names: Sequence[str]) -> Iterator[Row]:
    """One row for the clean state, then one for each fault, as they are measured.

    Raises ModelError where the logits of the clean state are not finite.
    """
    model, talk = conversation.engine.model, conversation.talk
    clean = Damaged(conversation.clean_cache(), talk.ids, len(talk.ids))
    reply = _clean_reply(conversation, clean)
    expected = _follow(model, clean, reply)
    for name in (CLEAN, *names):
        fault = None if name == CLEAN else FAULTS[name]
        state = _clean_again(conversation) if fault is None else _planted(conversation, fault)
        yield _row(conversation, fault, state, reply, expected)


def _row(
    conversation: RealConversation,
    fault: Fault | None,
    state: Damaged,
    reply: list[int],
    expected: torch.Tensor,
) -> Row:
    found = examine_cache(conversation.engine.model, state.cache.fork(), state.intended)
    (kl_mean, kl_max, top1, max_abs_logit), text = _effect(conversation, state, reply, expected)
    return Row(
        fault=fault.name if fault else CLEAN,
        meaning=fault.meaning if fault else "Nothing: the prefix kept, the kept turns prefilled.",
        detected=any(finding.code != UNDECIDED for finding in found),
        named=list(dict.fromkeys(finding.code for finding in found)),
        expected=list(fault.codes) if fault else [],
        kl_mean=kl_mean,
        kl_max=kl_max,
        top1=top1,
        max_abs_logit=max_abs_logit,
        text=text,
        evidence=found[0].detail if found else "",
    )


def _effect(
    conversation: RealConversation, state: Damaged, reply: list[int], expected: torch.Tensor
) -> tuple[tuple[float | None, float | None, float | None, float | None], str]:
    """Mean and largest KL, share of equal top ids, largest logit difference; and what the model writes."""
    model = conversation.engine.model
    try:
        logits = _follow(model, state, reply)
        text = conversation.prompt_format.decode(_go_on(model, state, reply[0], conversation.stop_ids))
    except RuntimeError as error:
        return (None, None, None, None), f"(cannot go on: {' '.join(str(error).split())[:80]})"
    clean, other = torch.log_softmax(expected, dim=-1), torch.log_softmax(logits, dim=-1)
    # An id that is never chosen (a logit of minus infinity) adds nothing: 0 times whatever it is.
    terms = torch.where(clean.isneginf(), 0.0, clean.exp() * (clean - other))
    divergence = terms.sum(dim=-1)
    equal = float((expected.argmax(dim=-1) == logits.argmax(dim=-1)).double().mean())
    means, largest = float(divergence.mean()), float(divergence.max())
    figures = [means, largest, equal, largest_difference(expected, logits)]
    values = [figure if math.isfinite(figure) else None for figure in figures]
    return (values[0], values[1], values[2], values[3]), text


def _clean_again(conversation: RealConversation) -> Damaged:
    """The clean state by another schedule of passes, so that its row shows the noise and not zero."""
    engine, talk = conversation.engine, conversation.talk
    cache = engine.new_cache()
    engine.prefill(cache, talk.ids)
    return Damaged(cache, talk.ids, len(talk.ids))


def _planted(conversation: RealConversation, fault: Fault) -> Damaged:
    generator = torch.Generator().manual_seed(SEEDS)
    model, talk = conversation.engine.model, conversation.talk
    scene = Scene(
        model=model,
        clean=conversation.clean_cache(),
        conversation=talk,
        place=fault.places[0],
        depth=fault.depths[0],
        generator=generator,
    )
    return fault.planted(scene)


def _clean_reply(conversation: RealConversation, clean: Damaged) -> list[int]:
    cache = clean.cache.fork()
    logits = conversation.engine.prefill(cache, clean.intended).logits
    if (fault := examine_logits(logits, cache)) is not None:
        raise ModelError(f"nothing can be diagnosed: {fault.detail}")
    first = int(logits.argmax())
    return _go_on(conversation.engine.model, clean, first, conversation.stop_ids)


def _follow(model: CausalLM, state: Damaged, reply: Sequence[int]) -> torch.Tensor:
    """Logits after each id of a reply but the last, fed in a damaged state; `[token, vocabulary]`."""
    cache = state.cache.fork()
    rows = [_step(model, cache, state, token_id, i) for i, token_id in enumerate(reply[:-1])]
    return torch.stack(rows)


def _go_on(model: CausalLM, state: Damaged, first: int, stop_ids: frozenset[int]) -> list[int]:
    """The greedy reply that begins with `first`."""
    cache, ids = state.cache.fork(), [first]
    while len(ids) < REPLY_TOKENS and ids[-1] not in stop_ids:
        ids.append(int(_step(model, cache, state, ids[-1], len(ids) - 1).argmax()))
    return ids


@torch.no_grad()
def _step(model: CausalLM, cache: TokenCache, state: Damaged, token_id: int, fed: int) -> torch.Tensor:
    """Logits after one id, at the position and under the mask of a state after `fed` further ids."""
    device = next(model.parameters()).device
    width = cache.num_cached_tokens if state.mask_width is None else state.mask_width + fed
    output = model(
        input_ids=torch.tensor([[token_id]], device=device),
        position_ids=torch.tensor([[state.next_position + fed]], device=device),
        attention_mask=torch.ones((1, width + 1), dtype=torch.long, device=device),
        past_key_values=cache,
        use_cache=True,
    )
    logits: torch.Tensor = output.logits[0, -1].double().cpu()
    return logits
