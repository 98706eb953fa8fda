"""Planters of faults that arise when ids are fed: other ids than meant, other positions, other masks.

A fault of ids leaves a cache that is a faithful memo of the wrong ids: it shows only beside the ids meant.
"""

from __future__ import annotations

import torch

from introspect.engine.kv_cache import KVCache
from introspect.faults.scene import Damaged, Scene, evicted, fed, feed, own_copy, state_of
from introspect.model.causal_lm import CausalLM

SHIFT = 42
"""Positions that `wrong-position` is off by."""


def second_system_prompt(scene: Scene) -> Damaged:
    """A default system prompt, with the header of the real one, is rendered behind it."""
    ids, prefix = scene.conversation.ids, scene.conversation.prefix
    injected = scene.conversation.default_system or (*ids[:2], *scene.random_ids(9), ids[prefix - 1])
    return state_of(scene, fed(scene.model, [*ids[:prefix], *injected, *ids[prefix:]]))


def prefix_aliased(scene: Scene) -> Damaged:
    """The stored prefix was handed out, a turn grew it, and its recorded length is used after the prune."""
    talk = scene.conversation
    cache = fed(scene.model, talk.ids[: talk.prefix])
    feed(scene.model, cache, talk.dropped)
    feed(scene.model, cache, talk.ids[talk.prefix :], start=talk.prefix)
    return state_of(scene, cache, len(talk.ids), len(talk.ids))


def wrong_position(scene: Scene) -> Damaged:
    """The ids from the place on are fed at positions that are too far on."""
    slot, ids = max(1, scene.slot), scene.conversation.ids
    cache = own_copy(scene.clean, slot)
    feed(scene.model, cache, ids[slot:], start=slot + SHIFT)
    return state_of(scene, cache, len(ids) + SHIFT)


def wrong_position_restarted(scene: Scene) -> Damaged:
    """The kept turns are fed at positions that begin at 0 again."""
    talk = scene.conversation
    cache = own_copy(scene.clean, talk.prefix)
    feed(scene.model, cache, talk.ids[talk.prefix :], start=0)
    return state_of(scene, cache, len(talk.ids) - talk.prefix)


def history_duplicated(scene: Scene) -> Damaged:
    """The whole conversation is rendered again and appended to a cache that already holds it."""
    talk = scene.conversation
    cache = own_copy(scene.clean)
    feed(scene.model, cache, talk.ids[talk.prefix :])
    return state_of(scene, cache, cache.num_cached_tokens)


def mask_too_short(scene: Scene) -> Damaged:
    """The ids from the place on are fed under a mask that ends with it: the rest is padded with nothing."""
    slot, ids = max(1, scene.slot), scene.conversation.ids
    cache = own_copy(scene.clean, slot)
    feed(scene.model, cache, ids[slot:], mask=torch.ones(slot, dtype=torch.long))
    return state_of(scene, cache, len(ids), slot)


def mask_hole(scene: Scene) -> Damaged:
    """The slot of the place is hidden from everything that is fed after it."""
    ids, hidden = scene.conversation.ids, scene.slot
    cache = own_copy(scene.clean, hidden + 1)
    mask = torch.ones(len(ids), dtype=torch.long)
    mask[hidden] = 0
    if hidden + 1 == len(ids):
        cache = own_copy(scene.clean, hidden)
        feed(scene.model, cache, ids[hidden:], mask=mask)
    else:
        feed(scene.model, cache, ids[hidden + 1 :], mask=mask)
    return state_of(scene, cache, len(ids), len(ids))


def stale_tokens(scene: Scene) -> Damaged:
    """The dropped turn is still in the cache, before the turns kept."""
    talk = scene.conversation
    return state_of(
        scene, fed(scene.model, [*talk.ids[: talk.prefix], *talk.dropped, *talk.ids[talk.prefix :]])
    )


def missing_newline(scene: Scene) -> Damaged:
    """One id after the place is not fed, as where a header lacks its newline."""
    ids = scene.conversation.ids
    slot = min(scene.slot + 1, len(ids) - 3)
    while ids[slot + 1] == ids[slot]:
        slot -= 1
    return state_of(scene, fed(scene.model, [*ids[:slot], *ids[slot + 1 :]]))


def tail_missing(scene: Scene) -> Damaged:
    """The last id was sampled and never fed."""
    return state_of(scene, own_copy(scene.clean, len(scene.conversation.ids) - 1))


def tail_doubled(scene: Scene) -> Damaged:
    """The last id was fed twice."""
    cache = own_copy(scene.clean)
    feed(scene.model, cache, scene.conversation.ids[-1:])
    return state_of(scene, cache)


def tail_lost(scene: Scene) -> Damaged:
    """The newest ids were never fed."""
    return state_of(scene, own_copy(scene.clean, len(scene.conversation.ids) - 5))


def positions_kept(scene: Scene) -> Damaged:
    """The dropped turn was cut out of the cache; the turns kept stand where they stood before."""
    return state_of(scene, _cut(scene), len(scene.conversation.ids))


def approximate_prune(scene: Scene) -> Damaged:
    """The dropped turn was cut out of the cache and the keys behind it were turned to their new positions."""
    cache, talk = _cut(scene), scene.conversation
    back = len(talk.dropped)
    # The model's own frequencies: the detectors have tables of their own, which a planter must not share.
    angle = back * _inverse_frequencies(scene.model).double().to(cache.layers[0].keys.device)
    cos, sin = angle.cos(), angle.sin()
    for layer in cache.layers:
        keys = layer.keys[:, :, talk.prefix :]
        half = keys.shape[-1] // 2
        a, b = keys.double()[..., :half], keys.double()[..., half:]
        turned = torch.cat((a * cos + b * sin, b * cos - a * sin), dim=-1)
        layer.keys[:, :, talk.prefix :] = turned.to(keys.dtype)
    return state_of(scene, cache)


def retokenised(scene: Scene) -> Damaged:
    """Two ids after the place were decoded and encoded again, and came back as three others."""
    ids, slot = scene.conversation.ids, min(scene.slot + 1, len(scene.conversation.ids) - 3)
    return state_of(scene, fed(scene.model, [*ids[:slot], *scene.random_ids(3), *ids[slot + 2 :]]))


def control_token_in_content(scene: Scene) -> Damaged:
    """Four ids that spell out a control token in a text became that token: the one that opens the prompt."""
    ids, slot = scene.conversation.ids, min(scene.slot + 2, len(scene.conversation.ids) - 5)
    return state_of(scene, fed(scene.model, [*ids[:slot], ids[0], *ids[slot + 4 :]]))


def stale_context(scene: Scene) -> Damaged:
    """The turns kept were computed behind another system prompt; the right one was put before them later."""
    talk = scene.conversation
    cache = fed(scene.model, [*scene.random_ids(talk.prefix), *talk.ids[talk.prefix :]])
    for mine, clean in zip(cache.layers, scene.clean.layers, strict=True):
        mine.keys[:, :, : talk.prefix] = clean.keys[:, :, : talk.prefix]
        mine.values[:, :, : talk.prefix] = clean.values[:, :, : talk.prefix]
    return state_of(scene, cache)


def _inverse_frequencies(model: CausalLM) -> torch.Tensor:
    """Radians per position of each rotary pair, `[head_dim / 2]`; of layer 0 where layers differ."""
    rotary, config = model.base_model.rotary_emb, model.config.get_text_config()
    name = "inv_freq" if hasattr(rotary, "inv_freq") else f"{config.layer_types[0]}_inv_freq"
    return rotary.get_buffer(name)  # type: ignore[no-any-return]


def _cut(scene: Scene) -> KVCache:
    talk = scene.conversation
    before = fed(scene.model, [*talk.ids[: talk.prefix], *talk.dropped, *talk.ids[talk.prefix :]])
    return evicted(before, talk.prefix, talk.prefix + len(talk.dropped))
