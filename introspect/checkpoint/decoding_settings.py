"""What a model's generation_config.json asks of sampling, beside what a run does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from introspect.checkpoint.meta_model import short
from introspect.display import one_line
from introspect.errors import ModelError
from introspect.phase.config import GenerationConfig

FILE = "generation_config.json"
NEUTRAL: dict[str, tuple[object, ...]] = {
    "repetition_penalty": (1.0,),
    "encoder_repetition_penalty": (1.0,),
    "length_penalty": (1.0,),
    "exponential_decay_length_penalty": (),
    "no_repeat_ngram_size": (0,),
    "encoder_no_repeat_ngram_size": (0,),
    "top_k": (0, -1),
    "min_p": (0.0,),
    "top_h": (),
    "typical_p": (1.0,),
    "epsilon_cutoff": (0.0,),
    "eta_cutoff": (0.0,),
    "penalty_alpha": (0.0,),
    "guidance_scale": (1.0,),
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "diversity_penalty": (0.0,),
    "bad_words_ids": ([],),
    "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],),
    "sequence_bias": ({},),
    "token_healing": (False,),
    "renormalize_logits": (False,),
    "remove_invalid_values": (False,),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "stop_strings": ([],),
    "watermarking_config": (),
    "dola_layers": (),
    "prompt_lookup_num_tokens": (),
}
"""Settings of the library that change what is sampled and that a run does not know, with the values, beside
null, that change nothing."""


def read_settings(path: Path) -> dict[str, object]:
    """The settings in a model's directory; empty where it has none.

    Raises ModelError, without the model's name, for a file that the library cannot read or whose ends of
    text are no ids.
    """
    from transformers import GenerationConfig as LibrarySettings

    file = path / FILE
    if not file.is_file():
        return {}
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(settings, dict):
            raise ValueError("it is no object")
        LibrarySettings.from_pretrained(path)
    except Exception as error:  # whatever a broken file makes the library raise
        raise ModelError(f"its {FILE} cannot be read: {short(error)}; mend or remove it") from None
    ends = settings.get("eos_token_id")
    for end in ends if isinstance(ends, list) else [ends]:
        if end is not None and type(end) is not int:
            shown = one_line(repr(ends))[:60]
            raise ModelError(f"its {FILE}: eos_token_id is {shown}; ids are whole numbers")
    return settings


def unapplied(settings: Mapping[str, object], generation: GenerationConfig) -> str | None:
    """What a model's settings ask for and a run does not do, as a sentence; None for nothing."""
    asked = [
        f"{key} {_shown(settings[key])}"
        for key, neutral in NEUTRAL.items()
        if settings.get(key) is not None and settings[key] not in neutral
    ]
    greedy = settings.get("do_sample") is False
    for key in ("temperature", "top_p") if not greedy else ():
        value, used = settings.get(key), getattr(generation, key)
        if value is not None and value != used:
            asked.append(f"{key} {_shown(value)} (the phase has {used:g})")
    if not asked:
        return None
    return f"{FILE} asks for what the run does not apply: {', '.join(asked)}"


def ends_without_row(settings: Mapping[str, object], rows: int) -> list[int]:
    """Ends of text that are ids of no token of the model."""
    ends = settings.get("eos_token_id")
    listed = ends if isinstance(ends, list) else [ends]
    return [end for end in listed if type(end) is int and not 0 <= end < rows]


def _shown(value: object) -> str:
    text = one_line(json.dumps(value))
    return text if len(text) <= 40 else text[:40] + "…"
