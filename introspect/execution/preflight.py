"""What would go wrong with a model or a template, known before any weight is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from introspect import events
from introspect.checkpoint.device_memory import free_memory
from introspect.display import one_line
from introspect.errors import IntrospectError, ModelError, ProcessError, UnsupportedCache
from introspect.events import JSON
from introspect.phase.config import PhaseConfig
from introspect.phase.paths import expanded, shipped_documents
from introspect.phase.sanity import unwise
from introspect.templates.judge import judge_template
from introspect.templates.report import TemplateReport
from introspect.templates.source import Unreadable, template_of_directory, template_of_file
from introspect.tools.files import NO_CODE, Permission

if TYPE_CHECKING:
    from introspect.checkpoint.judgement import Judgement

QUOTED = 200
"""Characters of a template that a warning quotes."""


def check_template(path: str) -> JSON:
    """The row of a template's file. Raises ModelError where no such file is."""
    try:
        report = judge_template(path, template_of_file(expanded(path, "--template ")))
    except Unreadable as why:
        report = TemplateReport(subject=path).because(str(why))
    return report.to_json()


def check_model(phase: PhaseConfig, code: Permission = NO_CODE) -> JSON:
    """The row of a phase's model: its template, and under `model` what its files say.

    Loads no weights; `code` says which tool files may be run. Raises ModelError where the model or the device
    is not there.
    """
    from introspect.checkpoint.judgement import judge
    from introspect.checkpoint.loading import find_model

    source = find_model(phase.model, weights=False)
    judged = judge(phase.model, source, source.revision is None, phase.conversation_tokens)
    report, has_template = _report_of_files(phase.model.id, source.path)
    row, hazards = report.to_json(), list[str]()
    refusals = list(judged.refusals)
    if judged.config is not None:
        warnings = [*judged.warnings, *decoding_warnings(phase, source.path)]
        hazards = [warning.message for warning in warnings]
        hazards += _unjudged(judged.config)
        memory = None
        try:
            memory = memory_report(phase, judged, code=code)
        except IntrospectError as error:
            why = source.without_name(str(error))
            refusals += [] if why in refusals else [why]
        if memory and memory["room_bytes"] is not None and memory["room_bytes"] < 0:
            short = -memory["room_bytes"] / 2**20
            hazards.append(f"needs {short:.0f} MiB more than {judged.device} has left")
        row["model"] = {
            "family": judged.config.model_type,
            "revision": source.revision,
            "device": judged.device,
            "dtype": judged.dtype,
            "placement": judged.placement,
            "attention": phase.model.attention,
            "codes": [warning.code for warning in warnings],
            "hazards": hazards,
            "refusals": refusals,
            "note": judged.recommendation.note,
            "forecast": memory,
        }
    row["reasons"] = [*refusals, *report.reasons, *hazards]
    row["supported"] = not refusals and (report.supported or not has_template)
    return row


def run_warnings(
    phase: PhaseConfig,
    path: Path,
    judged: Sequence[events.Warning],
    system_tokens: int,
    context_length: int | None,
) -> list[events.Warning]:
    """Everything that a run says of its model before it begins, as events; `judged` is what its files say."""
    from introspect.session.prompt_form import overlong_conversation

    told = unwise(phase)
    if context_length is not None and (line := overlong_conversation(phase, system_tokens, context_length)):
        told.append(line)
    settings = [events.Warning(experiment=0, turn=0, code="settings", message=line) for line in told]
    return [*settings, *judged, *template_warnings(path), *decoding_warnings(phase, path)]


def decoding_warnings(phase: PhaseConfig, path: Path) -> list[events.Warning]:
    """What a model's generation_config.json asks of sampling that a run of a phase does not do, as events."""
    from introspect.checkpoint.decoding_settings import read_settings, unapplied

    try:
        asked = unapplied(read_settings(path), phase.generation)
    except ModelError:  # a refusal, told where the model is judged
        asked = None
    return (
        []
        if asked is None
        else [events.Warning(experiment=0, turn=0, code="generation-settings", message=asked)]
    )


def template_warnings(path: Path) -> list[events.Warning]:
    """What a run does otherwise than the template of its model's directory would, as events."""
    try:
        report, _ = _report_of_files(path.name, path, calls=False)
    except ProcessError as why:
        return [events.Warning(experiment=0, turn=0, code="template-unchecked", message=str(why))]
    found = []
    if report.injects_system_prompt:
        text = report.injected_text
        quoted = one_line(text[:QUOTED]) + (" …" if len(text) > QUOTED else "")
        found.append(("template-injects", f"the run leaves out what the chat template would add: '{quoted}'"))
    if report.prefix_stable is False:
        change = report.evidence["prefix_stable"]
        before, after = (one_line(change[key][:QUOTED]) for key in ("before", "after"))
        found.append(
            (
                "template-rewrites",
                "the run keeps history as it was, where the chat template would rewrite it:"
                f" at character {change['at']} '{before}' would become '{after}'",
            )
        )
    return [events.Warning(experiment=0, turn=0, code=code, message=message) for code, message in found]


def prompt_report(
    phase: PhaseConfig, judged: Judgement, prompts: bool = False, code: Permission = NO_CODE
) -> JSON:
    """How the model is spoken to, and the tokens of the longest system prompt: 0 without a prompt format.

    With `prompts`, what the model will read too; `code` says which tool files may be run. Raises ConfigError
    where it does not fit the context.
    """
    from introspect.session.preview import preview_prompts
    from introspect.session.prompt_form import choose_prompting
    from introspect.tools.instruments.registry import tools_named
    from introspect.tools.library import load_documents

    prompt_format, context = judged.prompt_format, judged.context_length
    if prompt_format is None or context is None:
        return {"dialect": None, "prompt_form": None, "system_tokens": 0} | (
            {"prompts": []} if prompts else {}
        )
    tools = tools_named(phase.tools, code)
    documents = load_documents(shipped_documents(), phase.documents)
    recommended = judged.recommendation.prompt_form
    parts, form = choose_prompting(phase, tools, documents, prompt_format, context, recommended)
    report: JSON = {
        "dialect": {"name": parts.dialect.name, "reason": parts.dialect.reason},
        "prompt_form": form.described(),
        "system_tokens": parts.longest(form.name),
    }
    if prompts:
        report["prompts"] = preview_prompts(parts, form)
    return report


def memory_report(
    phase: PhaseConfig, judged: Judgement, prompts: bool = False, code: Permission = NO_CODE
) -> JSON | None:
    """The memory that a phase takes at its peak, and the room left: bytes, and tokens where it says so.

    With what `prompt_report` says. None of a model whose context or whose weights nobody knows.
    Raises IntrospectError where it does not fit.
    """
    from introspect.checkpoint.forecast import forecast_memory
    from introspect.engine.engine import PREFILL_CHUNK

    context = judged.context_length
    if context is None or judged.weights is None:
        return None
    told = prompt_report(phase, judged, prompts, code)
    longest = min(context, told["system_tokens"] + phase.conversation_tokens)
    memory = forecast_memory(
        judged.config,
        judged.weights.parameters,
        judged.dtype,
        kv_tokens=longest,
        chunk=PREFILL_CHUNK,
        kv_elements=judged.kv_elements,
    )
    free, limit = free_memory(judged.device), phase.memory.limit_bytes
    rooms = [size - memory.total for size in (free, limit) if size is not None]
    return {
        "phase": phase.name,
        **told,
        "context_length": context,
        "longest_tokens": longest,
        "kv_bytes_per_token": memory.kv_per_token,
        "memory_bytes": {
            "weights": memory.weights,
            "kv": memory.kv,
            "prefill": memory.prefill,
            "logits": memory.logits,
            "total": memory.total,
        },
        "free_bytes": free,
        "limit_bytes": limit if limit is not None else free,
        "room_bytes": min(rooms, default=None),
    }


def _report_of_files(name: str, path: Path, calls: bool = True) -> tuple[TemplateReport, bool]:
    """What is known of the template of a model's directory or GGUF file, and whether it has one."""
    from introspect.checkpoint.gguf_header import read_header
    from introspect.checkpoint.gguf_tokenizer import template_of

    try:
        template = template_of(read_header(path)) if path.is_file() else template_of_directory(path)
        return judge_template(name, template, calls=calls), True
    except Unreadable as why:
        return TemplateReport(subject=name).because(str(why)), False


def _unjudged(config: Any) -> list[str]:
    from introspect.cache_check.view import refuse_model

    try:
        refuse_model(SimpleNamespace(config=config.get_text_config()))
    except UnsupportedCache as why:
        return [f"check_cache cannot judge its cache: {why}"]
    return []
