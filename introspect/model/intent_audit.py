"""Are the tokens that were fed the intended conversation? The model's own chat template is the oracle.

The template gets the system message explicitly and renders the transcript independently of the path under
test. Its text is compared, message by message, with the text of the ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

START, END = "<|im_start|>", "<|im_end|>"
_SHOWN = 40
"""Characters of either text that a finding quotes."""


def check_intent(
    tokenizer: Any, prompt_ids: Sequence[int], messages: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Codes, with both texts side by side, where a prompt is not what the template writes of `messages`."""
    meant = tokenizer.apply_chat_template(
        [{"role": role, "content": text} for role, text in messages],
        tokenize=False,
        add_generation_prompt=True,
        return_dict=False,
    )
    fed = tokenizer.decode(list(prompt_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    if fed == meant:
        return _control_tokens_in_content(tokenizer, prompt_ids, messages)
    return [_named(fed.split(START), meant.split(START))]


def _named(fed: list[str], meant: list[str]) -> tuple[str, str]:
    """The first message that differs, and what kind of difference it is."""
    at = next(
        (i for i, (a, b) in enumerate(zip(fed, meant, strict=False)) if a != b), min(len(fed), len(meant))
    )
    has = fed[at] if at < len(fed) else ""
    wants = meant[at] if at < len(meant) else ""
    where = f"message {at}: fed {has[:_SHOWN]!r}, meant {wants[:_SHOWN]!r}"
    if _repeats(fed, meant):
        return "history-duplicated", where
    if sum(part.startswith("system\n") for part in fed) > 1:
        return "second-system-prompt", where
    if has in (wants.replace("\n", "", 1), wants.removesuffix("\n")):
        return "missing-newline", where
    return "stale-tokens" if len(fed) > len(meant) else "unknown", where


def _repeats(fed: list[str], meant: list[str]) -> bool:
    """Whether a row of at least two messages that is meant once was fed twice."""
    pairs = list(pairwise(fed[1:]))
    return len(fed) > len(meant) and any(pairs.count(pair) > 1 for pair in pairwise(meant[1:]))


def _control_tokens_in_content(
    tokenizer: Any, prompt_ids: Sequence[int], messages: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Control tokens beyond those that the format itself writes: text that was tokenised as control."""
    start = tokenizer.convert_tokens_to_ids(START)
    starts = sum(token_id == start for token_id in prompt_ids)
    if starts == len(messages) + 1:
        return []
    return [("control-token-in-content", f"{starts} messages are opened, {len(messages) + 1} are meant")]
