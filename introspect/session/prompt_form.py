"""How fully the system prompt describes the tools, and whether what has to stand in it fits the context."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from introspect.errors import ConfigError
from introspect.events import JSON
from introspect.phase.config import PhaseConfig
from introspect.prompt.prompt import PromptFormat
from introspect.session.dialect import choose_dialect
from introspect.session.limits import LEAST_RESULT
from introspect.session.prompt_parts import PromptParts
from introspect.session.system_prompt import Detail
from introspect.tools.base import Tool
from introspect.tools.library import Document


@dataclass(frozen=True)
class PromptForm:
    """`reason` says why the system prompt has this form."""

    name: Detail
    reason: str

    def described(self) -> JSON:
        """The form as a record keeps it."""
        return {"name": self.name, "reason": self.reason}


def overlong_conversation(phase: PhaseConfig, system_tokens: int, context_length: int) -> str | None:
    """What is told where the context holds less than the conversation asked for; None elsewhere."""
    asked, reply = phase.memory.max_conversation_tokens, phase.generation.max_new_tokens
    room = context_length - system_tokens - reply
    if asked <= room:
        return None
    return (
        f"memory.max_conversation_tokens {asked} is more than the model's context of {context_length} holds:"
        f" {room} tokens fit beside the system prompt ({system_tokens}) and a reply ({reply}), and a prune is"
        " due beyond them"
    )


def choose_prompting(
    phase: PhaseConfig,
    tools: Mapping[str, Tool],
    documents: Mapping[str, Document],
    prompt_format: PromptFormat,
    context_length: int,
    recommended: Detail | None = None,
) -> tuple[PromptParts, PromptForm]:
    """What a phase's prompts are made of, its dialect chosen, and their form.

    Raises ConfigError as either choice does.
    """
    dialect = choose_dialect(phase, tools, prompt_format)
    parts = PromptParts(phase, tools, documents, prompt_format, dialect)
    return parts, choose_form(parts, context_length, recommended)


def choose_form(parts: PromptParts, context_length: int, recommended: Detail | None = None) -> PromptForm:
    """The form of a phase's system prompt, counted with all its tools, and the longest documents pinned.

    Raises ConfigError where the prompt and a reply do not fit the context, and where pinned documents leave
    no room for the conversation.
    """
    form = fitting_form(parts.phase, parts.longest, context_length, recommended)
    bare = parts.tokens(form.name)
    _refuse_overlong(parts.phase, bare, context_length)
    for pinned in filter(None, parts.pinned_sets()):
        taken = parts.tokens(form.name, pinned) - bare
        _refuse_unpinnable(parts, pinned, taken, bare, context_length)
    return form


def fitting_form(
    phase: PhaseConfig,
    tokens_of: Callable[[Detail], int],
    context_length: int,
    recommended: Detail | None = None,
) -> PromptForm:
    """The form that the phase asks for. `auto` is the one that the model's directory recommends, where it
    and a reply fit the context; else the fullest within half the context.

    `tokens_of` counts the prompt of a form with all tools.
    """
    asked = phase.system_prompt.detail
    if asked != "auto":
        return PromptForm(asked, "the phase asks for it")
    room = context_length - phase.generation.max_new_tokens
    if recommended is not None and tokens_of(recommended) < room:
        return PromptForm(recommended, "the model's own directory recommends it")
    full = tokens_of("full")
    if full <= context_length // 2:
        return PromptForm("full", f"{full} tokens, within half of the context of {context_length}")
    return PromptForm("brief", f"full would take {full} tokens, over half of the context of {context_length}")


def _refuse_overlong(phase: PhaseConfig, tokens: int, context_length: int) -> None:
    reply = phase.generation.max_new_tokens
    if context_length - tokens - reply < 1:
        raise ConfigError(
            f"the system prompt has {tokens} tokens and a reply up to {reply}, but the model's context is"
            f" {context_length}; set system_prompt.detail to brief or lower generation.max_new_tokens"
        )


def _refuse_unpinnable(
    parts: PromptParts, pinned: Sequence[Document], taken: int, bare: int, context_length: int
) -> None:
    """Raise ConfigError where documents, pinned, leave less than a task and the turns to keep may take."""
    phase, prompt_format = parts.phase, parts.prompt_format
    reply = phase.generation.max_new_tokens
    task = max(len(prompt_format.encode(experiment.task)) for experiment in phase.experiments)
    turns = phase.memory.keep_recent_turns * (reply + LEAST_RESULT)
    conversation = min(phase.memory.max_conversation_tokens, task + turns)
    room = max(0, context_length - bare - reply - conversation)
    if taken <= room:
        return
    sizes = {document.id: len(prompt_format.encode(document.text)) for document in pinned}
    largest = max(sizes, key=sizes.__getitem__)
    listed = ", ".join(f"'{name}' has {size}" for name, size in sizes.items())
    place = phase.document_places.get(largest, phase.name)
    raise ConfigError(
        f"{place}: documents_pinned: {listed} tokens, {taken} as pinned,"
        f" and {room} fit the model's context of {context_length} beside the system prompt ({bare}), a reply"
        f" ({reply}) and the conversation ({conversation}); pin less, or have documents read by tools"
    )
