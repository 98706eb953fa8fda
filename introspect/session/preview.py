"""What the model will read before its first reply to each task: rendered and counted, without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from introspect.events import JSON
from introspect.phase.config import ExperimentConfig, PhaseConfig
from introspect.prompt.prompt import PromptFormat
from introspect.session.dialect import Dialect, instructions_of
from introspect.session.prompt_form import PromptForm, pinned_documents
from introspect.tools.base import Tool
from introspect.tools.library import Document
from introspect.transcript import Transcript


def preview_prompts(
    phase: PhaseConfig,
    tools: Mapping[str, Tool],
    documents: Mapping[str, Document],
    dialect: Dialect,
    form: PromptForm,
    prompt_format: PromptFormat,
) -> list[JSON]:
    """The first prompt of each experiment as text, control tokens spelt out, and its parts in tokens.

    `system_prompt` is what every prompt of the experiment begins with, tools that a template describes
    included; `documents` are what each pinned one adds to it; `first_message` is the rest, up to the opened
    reply.
    """
    return [
        _preview(phase, experiment, tools, documents, dialect, form, prompt_format)
        for experiment in phase.experiments
    ]


def _preview(
    phase: PhaseConfig,
    experiment: ExperimentConfig,
    tools: Mapping[str, Tool],
    documents: Mapping[str, Document],
    dialect: Dialect,
    form: PromptForm,
    prompt_format: PromptFormat,
) -> JSON:
    offered = {name: tools[name] for name in phase.tools_of(experiment)}
    pinned = pinned_documents(phase, experiment, documents)
    told = [
        instructions_of(phase, offered, form.name, dialect, prompt_format, pinned[:count])
        for count in range(len(pinned) + 1)
    ]
    window = Transcript().append("task", experiment.task.strip()).window()
    ids = prompt_format.render(told[-1].text, window, told[-1].tools).token_ids
    system = told[-1].tokens
    before, after = _split(prompt_format, ids, system)
    return {
        "experiment": experiment.name,
        "system_prompt": {"text": before, "tokens": system},
        "documents": [
            {"id": document.id, "tokens": with_it.tokens - without.tokens}
            for document, without, with_it in zip(pinned, told, told[1:], strict=False)
        ],
        "first_message": {"text": after, "tokens": len(ids) - system},
        "tokens": len(ids),
    }


def _split(prompt_format: PromptFormat, ids: Sequence[int], place: int) -> tuple[str, str]:
    """The text of ids before and from a place on; together they are the text of all."""
    whole, before = prompt_format.decode(ids), prompt_format.decode(ids[:place])
    # A place within a character: what was decoded of its half is no text.
    while not whole.startswith(before):
        before = before[:-1]
    return before, whole[len(before) :]
