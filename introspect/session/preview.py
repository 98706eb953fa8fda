"""What the model will read before its first reply to each task: rendered and counted, without a model."""

from __future__ import annotations

from collections.abc import Sequence

from introspect.events import JSON
from introspect.phase.config import ExperimentConfig
from introspect.prompt.prompt import PromptFormat
from introspect.session.prompt_form import PromptForm
from introspect.session.prompt_parts import PromptParts
from introspect.transcript import Transcript


def preview_prompts(parts: PromptParts, form: PromptForm) -> list[JSON]:
    """The first prompt of each experiment as text, control tokens spelt out, and its parts in tokens.

    `system_prompt` is what every prompt of the experiment begins with, tools that a template describes
    included; `documents` are what each pinned one adds to it; `first_message` is the rest, up to the opened
    reply.
    """
    return [_preview(parts, experiment, form) for experiment in parts.phase.experiments]


def _preview(parts: PromptParts, experiment: ExperimentConfig, form: PromptForm) -> JSON:
    prompt_format, pinned = parts.prompt_format, parts.pinned(experiment)
    told = [parts.instructions(experiment, form.name, pinned[:count]) for count in range(len(pinned) + 1)]
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
