"""A reply that repeats itself gives one sign of garbling, not two: sound small models loop."""

from __future__ import annotations

import pytest

from introspect.readers.garble import GARBLED, evidence_of, weight
from introspect.readers.splices import run_together

PROMPT = """You have these tools.
- get_layer_info(layer_name): what a layer holds
- process_text(text): activations of a whole text
The attention layers have many heads with outputs in them.
Every head reads what stands at earlier positions of it.
"""


@pytest.mark.parametrize("line", [line for line in PROMPT.split("\n") if len(line) >= 30])
@pytest.mark.parametrize("times", [6, 10, 40])
def test_a_loop_over_a_line_of_the_prompt_is_weak(line: str, times: int) -> None:
    evidence = evidence_of("\n".join([line] * times), [PROMPT])
    assert weight(evidence) < GARBLED, evidence


def test_a_seam_that_a_loop_repeats_counts_once() -> None:
    joined = "The attention layers have many headrom earlier positions of it."
    prompt = PROMPT.replace("reads what stands at", "reads from")
    one = [sign.weight for sign in run_together(f"So: {joined}", [prompt])]
    again = [sign.weight for sign in run_together(f"So: {joined}\n" * 5, [prompt])]
    assert one == again
