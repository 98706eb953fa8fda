"""A model's template, rendered in confinement before the program's own process renders it.

The program renders a template with the library, where nothing bounds it. What takes too long or too much in
the trial is refused. A template that does so only on texts that were not tried gets past it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache

from introspect.errors import ModelError, ProcessError
from introspect.templates.probes import FORMS, call_jobs, conversation_jobs
from introspect.templates.process import TOO_MUCH, render_all
from introspect.templates.source import chosen_template

_KEPT = 16
"""Trials whose outcome is kept: a process that loads a model again does not try its template again."""


def refuse_costly(written: str | Mapping[str, str] | None, tokens: Mapping[str, object], name: str) -> None:
    """Raise ModelError where a template takes more time, memory or text than any prompt needs.

    `written` is what a tokenizer has as its template, one text or texts by name, and `tokens` are the texts
    of its special tokens. `name` is the model's. Nothing is refused where the confined process does not
    start.
    """
    if not written:
        return
    named = {"default": written} if isinstance(written, str) else dict(written)
    texts = {key: token for key, token in tokens.items() if isinstance(token, str)}
    try:
        why = _excess(tuple(named.items()), tuple(texts.items()))
    except ProcessError:
        return
    if why:
        raise ModelError(
            f"{name}: its chat template {why}, which no prompt needs; use a model with a sound template"
        )


@lru_cache(_KEPT)
def _excess(named: tuple[tuple[str, str], ...], tokens: tuple[tuple[str, str], ...]) -> str | None:
    """How a template exceeds what any prompt needs; None where it does not."""
    template, now = chosen_template(dict(named), dict(tokens)), datetime.now().replace(microsecond=0)
    said = list(conversation_jobs(FORMS[0], template.tokens, now).values())
    calls = call_jobs(FORMS[0], template.tokens, now)
    work = (
        [(template.text, [*said, *calls])]
        if template.text == template.tool_text
        else [(template.text, said), (template.tool_text, calls)]
    )
    done = [rendering for text, jobs in work for rendering in render_all(text, jobs)]
    return next((rendering.error for rendering in done if rendering.error.startswith(TOO_MUCH)), None)
