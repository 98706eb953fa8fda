"""Which tests notice a change of which module, for the mutation test: few and quick ones."""

from __future__ import annotations

CACHE = ("test_engine", "test_kv_cache", "test_cache_replay")
FORMATS = (
    "test_format_oracle",
    "test_formats",
    "test_plain_format",
    "test_prompt_format",
    "test_template_framing",
)
CELLS = tuple(
    f"test_faults::test_every_fault_is_found_and_named[{cell}-torch.float32]"
    for cell in (
        "prefix-mutated-first-kept-first",
        "prefix-aliased-first-kept-first",
        "wrong-position-last-prefix-first",
        "wrong-position-restarted-first-kept-first",
        "history-duplicated-first-kept-first",
        "stale-tokens-first-kept-first",
        "missing-newline-last-prefix-first",
        "other-dtype-first-kept-last",
        "slot-copied-first-kept-first",
        "slot-zeroed-last-first",
        "non-finite-first-kept-last",
        "ragged-layers-first-kept-last",
        "tail-doubled-first-kept-first",
        "retokenised-last-prefix-first",
        "control-token-in-content-first-kept-first",
        "layers-swapped-first-kept-first",
        "keys-as-values-first-kept-last",
        "mask-too-short-first-kept-first",
        "mask-hole-first-kept-first",
        "lossy-copy-first-kept-first",
        "bit-flipped-last-prefix-middle",
        "slot-overwritten-first-kept-last",
    )
)
"""Faults whose cells take a second or less."""
PLAN = "test_schedule::test_"
REPLAY = tuple(
    f"{PLAN}{name}"
    for name in (
        "replies_are_drawn_as_far_as_the_time_goes",
        "what_was_repeated_is_not_repeated_again",
        "a_byte_changed_anywhere_between_two_prunes_is_found",
    )
)
AUDITOR = (
    "test_auditor",
    "test_loop::test_audits_are_made_when_they_are_asked_for",
    "test_loop::test_a_planted_fault_stops_the_run_as_corrupt",
    "test_loop::test_a_fault_planted_in_a_run_is_named[stale-tokens]",
    "test_loop::test_a_fault_planted_in_a_run_is_named[second-system-prompt]",
    "test_one_pass::test_once_is_the_first_prune_of_a_run_and_its_end",
    "test_one_pass::test_a_model_that_is_not_small_pays_within_its_share",
)
TURN = (
    "test_loop::test_a_prompt_that_fills_the_context_leaves_no_room_for_a_reply",
    "test_loop::test_a_window_is_pruned_from_the_second_turn_on",
    "test_loop::test_a_phase_runs_to_its_end",
    "test_loop::test_nothing_is_fed_twice",
    "test_loop::test_after_a_prune_the_window_is_task_note_and_recent_turns",
    "test_loop::test_a_prune_tells_what_the_cache_held_and_what_the_prompt_holds_now",
    "test_loop::test_misses",
    "test_loop::test_every_loop_is_bounded",
    "test_loop::test_a_planted_fault_stops_the_run_as_corrupt",
)


def check(*names: str) -> tuple[str, ...]:
    """Tests of the check of anyone's cache, by the end of their names."""
    return tuple(f"test_check_cache::test_{name}" for name in names)


LENGTHS = check(
    "a_model_of_one_layer_has_no_deeper_one_to_ask",
    "lengths_are_named",
    "evidence_tells_token_and_position",
    "sound_caches_of_any_length",
)
UNPLANNED = check(
    "damage_that_nobody_planned_is_never_met_with_silence",
    *(
        f"eight_rounding_steps_are_found[{cell}]"
        for cell in (
            "{'family': 'qwen2'}-torch.bfloat16-keys-2-2",
            "{'family': 'llama'}-torch.bfloat16-values-0-2",
            "{'family': 'qwen2', 'key_bias': 100.0, 'loud': 50.0}-torch.bfloat16-keys-0-1",
        )
    ),
)
SOUND = check("another_backend_of_attention_is_no_damage", "the_level_layer0_looks_at_layer_0_alone")
RANGES = "test_rounding::test_ranges_to_recompute_hold_the_blocks_of_their_rows_and_no_other"
WRONG_IDS = check(
    "a_wrong_id_is_not_called_another_spelling_of_the_text",
    "slots_beyond_the_positions_of_the_configuration_are_judged",
)
MASKS = check(
    "a_mask_that_hides_the_first_slots_is_a_hole[qwen2-3-dtype0]",
    "slots_that_a_pass_did_not_look_at_are_a_hole",
    "rows_of_layer_1_that_no_mask_gives_are_no_mask",
)
RECORD = (
    "test_audit",
    "test_non_finite::test_the_record_of_such_a_run_fails_its_audit_by_name",
    "test_non_finite::test_an_old_record_of_sampled_nan_is_named_and_nan_equals_nan",
)
REFUSED = check(
    "models_that_cannot_be_judged_are_refused_with_the_reason",
    "caches_that_cannot_be_judged_are_refused_with_the_reason",
    "a_batch_is_refused_by_name_and_its_rows_are_judged",
    "a_static_cache_is_read_up_to_what_was_written",
)
GROUPS: dict[str, dict[str, tuple[str, ...]]] = {
    "core": {
        **{f"engine/{name}": CACHE for name in ("cache_layers", "kv_cache", "cache_replay", "schedule")},
        "engine/engine": (*CACHE, "test_sampling"),
        "engine/sampling": ("test_sampling", "test_engine"),
        **{f"prompt/{name}": FORMATS for name in ("content_encoder", "plain_format", "prompt", "formats")},
        "prompt/framing": FORMATS,
    },
    "check": {
        "cache_check/damage": (*LENGTHS, *SOUND, *UNPLANNED, *CELLS),
        "cache_check/evidence": (*LENGTHS, *WRONG_IDS, *CELLS),
        "cache_check/examine": (*LENGTHS, *WRONG_IDS, *SOUND, *UNPLANNED, *CELLS),
        "cache_check/masks": (*MASKS, *CELLS),
        "cache_check/naming": ("test_naming", *LENGTHS, *CELLS),
        "cache_check/passes": (RANGES, *LENGTHS, *SOUND, *UNPLANNED, *CELLS),
        "cache_check/recompute": ("test_rounding", *LENGTHS, *MASKS, *CELLS),
        "cache_check/rounding": ("test_rounding", "test_signs", *UNPLANNED, *CELLS),
        "cache_check/search": (*LENGTHS, *SOUND, *UNPLANNED, *CELLS),
        "cache_check/signs": ("test_signs", *LENGTHS, *WRONG_IDS, *CELLS),
        "cache_check/view": (*REFUSED, *LENGTHS),
        "audits/auditor": AUDITOR,
        "audits/examiner": AUDITOR,
        "audits/intent": ("test_intent_audit",),
        "audits/record": RECORD,
        "audits/recorded": ("test_audit",),
        "audits/replay": REPLAY,
        "session/pruning": ("test_pruning",),
        "session/turn": TURN,
        "tools/calls/parsing": ("test_parsing", "test_thoughts"),
    },
}
"""The modules of each group, and the tests that notice a change of them, the quickest first: files, or single
tests of a file."""
