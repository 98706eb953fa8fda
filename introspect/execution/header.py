"""The first record of a run and its manifest: everything that a later session needs to know."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from introspect import events
from introspect.checkpoint.loading import LoadedModel
from introspect.checkpoint.reading import tokenizer_hash
from introspect.engine.decode_paths import DecodePath
from introspect.engine.engine import Engine
from introspect.engine.row_digest import SHA256
from introspect.events import JSON
from introspect.execution.preparation import Prepared
from introspect.runlog.surroundings import private
from introspect.session.constraint import reply_forms
from introspect.session.memory import described_memory
from introspect.tools.base import Tool
from introspect.tools.calls.grammar import grammar_hash


def manifest_of(start: events.RunStart, loaded: LoadedModel, forced_path: Path | None = None) -> JSON:
    """What a later session needs to go on with the run, or to execute it again.

    `forced_path` is the record that forced replies were taken from: its name may mean another one later.
    """
    manifest = {
        "schema": start.schema,
        "phase": start.phase,
        "model": start.model,
        "model_path": str(loaded.source.path),
        "seed": start.seed,
        "forced_from": start.forced_from,
        "forced_path": str(forced_path) if forced_path else None,
        "limit": start.limit,
        "origin": start.origin,
        "fault": start.fault,
        "requirement": start.requirement,
        "documents": [{key: kept[key] for key in ("id", "file", "sha256")} for kept in start.documents],
        **start.environment,
        "config": start.settings,
    }
    return private(manifest)  # type: ignore[no-any-return]


def run_start(prepared: Prepared, engine: Engine, decode_path: DecodePath) -> events.RunStart:
    """The first record of a run, which `engine` computes."""
    import torch

    phase, loaded = prepared.phase, prepared.loaded
    model, instructions = loaded.model, prepared.instructions
    parameter = next(model.parameters())
    environment: JSON = {
        "device": str(parameter.device),
        "dtype": str(parameter.dtype).removeprefix("torch."),
        "placement": loaded.placement,
        "attention": model.config._attn_implementation,
        "threads": torch.get_num_threads(),
        "prefill_chunk": engine.prefill_chunk,
        "prefill_widened": engine.widens,
        "decode_path": decode_path.described(),
        **({"logits_digest": engine.row_digest} if engine.row_digest != SHA256 else {}),
        "memory": described_memory(phase, engine),
        "context_length": loaded.context_length,
        "vocabulary": model.get_input_embeddings().weight.shape[0],
        "model_revision": loaded.source.revision,
        "weight_hash": loaded.weight_hash,
        "template_hash": hashlib.sha256(str(loaded.tokenizer.chat_template).encode()).hexdigest()[:32],
        "tokenizer_hash": tokenizer_hash(loaded.tokenizer),
        **_prompting(prepared),
        "versions": {name: version(name) for name in ("introspect", "torch", "transformers", "tokenizers")},
        **_tool_origins(prepared.tools),
    }
    if phase.generation.constrain == "none" or prepared.forced is not None:
        environment["constrain"] = "none"
    else:
        forms = reply_forms(phase, prepared.tools, model, loaded.prompt_format, instructions.tools)
        environment["constrain"] = phase.generation.constrain
        environment["no_repeat_tools"] = phase.generation.no_repeat_tools
        environment["grammars"] = {name: grammar_hash(form.grammar()) for name, form in forms.items()}
        environment["versions"]["llguidance"] = version("llguidance")
    offset = datetime.now().astimezone().utcoffset()
    return events.RunStart(
        schema=events.SCHEMA_VERSION,
        phase=phase.name,
        title=phase.title,
        model=loaded.source.name,
        seed=prepared.seed,
        utc_offset=int(offset.total_seconds() // 60) if offset else 0,
        system_prompt=instructions.text,
        system_tokens=instructions.tokens,
        tool_framing=instructions.tools.described() if instructions.tools else None,
        environment=environment,
        settings=phase.model_dump(mode="json"),
        requirement=prepared.requirement,
        notes_before=prepared.notes_before,
        documents=tuple(document.recorded() for document in prepared.documents.values()),
        forced_from=prepared.options.forced_from,
        forced_retokenised=prepared.forced.retokenised if prepared.forced else None,
        fault=prepared.options.fault,
        limit=prepared.options.limit,
    )


def _prompting(prepared: Prepared) -> JSON:
    """How the model is spoken to, and why so; and what its directory says of it."""
    return {
        "prompt_format": prepared.loaded.prompt_format.framing.described(),
        "dialect": {"name": prepared.dialect.name, "reason": prepared.dialect.reason},
        "prompt_form": prepared.prompt_form.described(),
        "model_note": prepared.loaded.recommendation.note,
    }


def _tool_origins(tools: Mapping[str, Tool]) -> JSON:
    """Where tools that are not the program's own come from: packages by version, files by hash."""
    packages = {
        tool.name: {"package": tool.package, "version": tool.version}
        for tool in tools.values()
        if tool.package is not None
    }
    files = {tool.name: dict(tool.file) for tool in tools.values() if tool.file is not None}
    return {"tool_packages": packages, "tool_files": files}
