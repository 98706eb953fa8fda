"""Prompt formats whose templates write tools."""

from __future__ import annotations

from small_tokenizers import TOOL_LLAMA3_TEMPLATE, llama3_tokenizer, tool_chatml_tokenizer

from introspect.prompt.formats import prompt_format_for
from introspect.prompt.prompt import PromptFormat

FORMATS: dict[str, PromptFormat] = {
    "chatml": prompt_format_for(tool_chatml_tokenizer(), "chatml"),
    "llama3": prompt_format_for(llama3_tokenizer(TOOL_LLAMA3_TEMPLATE), "llama3"),
}
