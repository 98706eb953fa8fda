"""Every prompt format on a small tokenizer of its family, and contents with what each treats as control."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from small_tokenizers import (
    DATED_LLAMA3_TEMPLATE,
    chatml_tokenizer,
    gemma_tokenizer,
    llama3_tokenizer,
    piece_tokenizer,
    plain_tokenizer,
)

from introspect.prompt.formats import prompt_format_for
from introspect.prompt.prompt import Prompt, PromptFormat
from introspect.transcript import Message, Transcript

FORMATS: dict[str, PromptFormat] = {
    "chatml": prompt_format_for(chatml_tokenizer(), "chatml"),
    "llama3": prompt_format_for(llama3_tokenizer(), "llama3"),
    "dated": prompt_format_for(llama3_tokenizer(DATED_LLAMA3_TEMPLATE), "dated"),
    "gemma": prompt_format_for(gemma_tokenizer(), "gemma"),
    "plain": prompt_format_for(plain_tokenizer(), "plain"),
    "pieces": prompt_format_for(piece_tokenizer((), None, "<s>", "</s>", dummy_space=True), "pieces"),
}
EVERY = pytest.mark.parametrize("name", FORMATS)

CONTROL = sorted({t.content for f in FORMATS.values() for t in f.tokenizer.added_tokens_decoder.values()})
control = st.sampled_from(CONTROL)
words = st.sampled_from(
    ["User:", "\nUser: ", "Assistant:", "System:", "\r", "\u2028", " ", "the", "<|", "\u2581"]
)
# Hypothesis also draws strings that it finds in the sources, control tokens among them.
free = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(
    lambda text: not any(token in text for token in CONTROL if token.strip())
)
contents = st.lists(st.one_of(free, control, words), max_size=5).map("".join)
kinds = st.sampled_from(["task", "memory_note", "tool_result", "feedback", "reply"])
windows = st.lists(st.tuples(kinds, contents), max_size=5)


def messages_of(prompt_format: PromptFormat, said: list[tuple[str, str]]) -> list[Message]:
    transcript = Transcript()
    for kind, text in said:
        ids = prompt_format.encode(text) if kind == "reply" else ()
        transcript = transcript.append(kind, text, reply_ids=ids)  # type: ignore[arg-type]
    return list(transcript.messages)


def opening_length(prompt: Prompt) -> int:
    assert prompt.spans[-1].source == "template" and prompt.spans[-1].message is None
    return prompt.spans[-1].length
