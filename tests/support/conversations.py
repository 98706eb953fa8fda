"""Conversations drawn as messages, and their prompts of bare bytes."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from tiny.tokenizer import train_tokenizer

from introspect.prompt.formats import ChatML
from introspect.transcript import Transcript

BYTES = ChatML(train_tokenizer([]))
contents = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
edges = st.sampled_from(["", "\n", "\n\n", " ", "  \n"])
spaced = st.builds(lambda a, text, b: a + text + b, edges, contents, edges)
conversations = st.lists(st.tuples(st.sampled_from(["user", "assistant"]), spaced), min_size=1, max_size=5)


def transcript_of(prompt_format: ChatML, conversation: list[tuple[str, str]]) -> Transcript:
    transcript = Transcript()
    for role, text in conversation:
        if role == "assistant":
            transcript = transcript.append("reply", text, reply_ids=prompt_format.encode(text))
        else:
            transcript = transcript.append("tool_result", text)
    return transcript


def without_control(tokenizer: Any, conversation: list[tuple[str, str]]) -> bool:
    added = [token.content for token in tokenizer.added_tokens_decoder.values()]
    return not any(token in text for token in added for _, text in conversation)
