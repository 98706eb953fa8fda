"""Every fault that can be planted, by name, for tests, teaching and `diagnose`.

Detectors never import this: what they find must not depend on how it was planted.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from introspect.errors import ConfigError, did_you_mean
from introspect.faults import damage, feeding
from introspect.faults.scene import DEPTHS, PLACES, Damaged, Depth, Place, Planter, Scene
from introspect.phase.paths import shown

ANYWHERE: tuple[Place, ...] = PLACES
BEFORE_LAST: tuple[Place, ...] = ("first-prefix", "last-prefix", "first-kept")
ONE_PLACE: tuple[Place, ...] = ("first-kept",)
ONE_DEPTH: tuple[Depth, ...] = ("first",)


@dataclass(frozen=True)
class Fault:
    """A fault that can be planted.

    `codes` are the names that a detector may give it, the first one its own. `places` and `depths` are where
    it can be planted, the first its default. `by_ids`: the cache is a faithful memo of ids that were not
    meant, so that nothing but a comparison with the ids meant can show it.
    """

    name: str
    codes: tuple[str, ...]
    plant: Planter
    _: KW_ONLY
    places: tuple[Place, ...] = ONE_PLACE
    depths: tuple[Depth, ...] = ONE_DEPTH
    by_ids: bool = False

    @property
    def code(self) -> str:
        return self.codes[0]

    @property
    def meaning(self) -> str:
        """What happened, in one line."""
        return (self.plant.__doc__ or "").strip()

    def planted(self, scene: Scene) -> Damaged:
        """The damaged state; the scene's clean cache stays as it is."""
        return self.plant(scene)


_ALL = (
    Fault("second-system-prompt", ("second-system-prompt",), feeding.second_system_prompt, by_ids=True),
    Fault("prefix-mutated", ("prefix-mutated",), damage.prefix_mutated),
    Fault("prefix-scaled", ("prefix-mutated",), damage.prefix_scaled, depths=DEPTHS),
    Fault("prefix-aliased", ("prefix-aliased",), feeding.prefix_aliased),
    Fault("layer-aliased", ("prefix-aliased",), damage.layer_aliased),
    Fault("wrong-position", ("wrong-position",), feeding.wrong_position, places=ANYWHERE),
    Fault("wrong-position-restarted", ("wrong-position",), feeding.wrong_position_restarted),
    Fault("history-duplicated", ("history-duplicated",), feeding.history_duplicated, by_ids=True),
    Fault("mask-too-short", ("mask-too-short", "mask-hole"), feeding.mask_too_short, places=ANYWHERE),
    Fault("mask-hole", ("mask-hole", "mask-too-short"), feeding.mask_hole, places=ANYWHERE),
    Fault("stale-tokens", ("stale-tokens",), feeding.stale_tokens, by_ids=True),
    Fault("missing-newline", ("missing-newline",), feeding.missing_newline, places=ANYWHERE, by_ids=True),
    Fault("lossy-copy", ("lossy-copy",), damage.lossy_copy),
    Fault("lossy-float", ("lossy-copy",), damage.lossy_float),
    Fault("other-dtype", ("lossy-copy",), damage.other_dtype, depths=DEPTHS),
    Fault(
        "element-corrupted", ("element-corrupted",), damage.element_corrupted, places=ANYWHERE, depths=DEPTHS
    ),
    Fault("bit-flipped", ("element-corrupted",), damage.bit_flipped, places=ANYWHERE, depths=DEPTHS),
    Fault("slot-overwritten", ("slot-overwritten",), damage.slot_overwritten, places=ANYWHERE, depths=DEPTHS),
    Fault("slot-copied", ("slot-overwritten",), damage.slot_copied, places=ANYWHERE),
    Fault("slot-zeroed", ("slot-overwritten",), damage.slot_zeroed, places=ANYWHERE),
    Fault("non-finite", ("non-finite",), damage.non_finite, places=ANYWHERE, depths=DEPTHS),
    Fault("ragged-layers", ("ragged-layers",), damage.ragged_layers, depths=DEPTHS),
    Fault("tail-off-by-one", ("tail-off-by-one",), feeding.tail_missing),
    Fault("tail-doubled", ("tail-off-by-one",), feeding.tail_doubled, by_ids=True),
    Fault("tail-missing", ("tail-missing",), feeding.tail_lost),
    Fault("positions-kept", ("positions-kept",), feeding.positions_kept),
    Fault("approximate-prune", ("approximate-prune",), feeding.approximate_prune),
    Fault("retokenised", ("retokenised",), feeding.retokenised, places=BEFORE_LAST, by_ids=True),
    Fault("foreign-cache", ("foreign-cache",), damage.foreign_cache),
    Fault("layers-swapped", ("foreign-cache",), damage.layers_swapped),
    Fault("keys-as-values", ("foreign-cache",), damage.keys_as_values, depths=DEPTHS),
    Fault(
        "control-token-in-content",
        ("control-token-in-content",),
        feeding.control_token_in_content,
        places=BEFORE_LAST,
        by_ids=True,
    ),
    Fault("unknown", ("unknown",), feeding.stale_context),
)

FAULTS: dict[str, Fault] = {fault.name: fault for fault in _ALL}


def refuse_unknown_fault(name: str) -> None:
    """Raise ConfigError for a name that no fault has."""
    if name not in FAULTS:
        hint = did_you_mean(name, FAULTS)
        raise ConfigError(f"--fault: no fault is called '{shown(name)}'; {hint}")


"""Faults by name; every code that a detector can give is the name of one."""
