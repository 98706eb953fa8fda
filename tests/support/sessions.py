"""Sessions with forced replies and runs of small phases, on models that a test gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from small_models import small_model

from introspect.audits.auditor import RunAuditor
from introspect.engine.engine import Engine
from introspect.events import Event
from introspect.execution.opening import open_run
from introspect.execution.options import RunOptions
from introspect.execution.preparation import prepare
from introspect.execution.run import Run
from introspect.phase.config import PhaseConfig
from introspect.prompt.formats import ChatML
from introspect.session.driver import EngineDriver, drive
from introspect.session.loop import run_phase
from introspect.session.session import Session, open_session
from introspect.tools.files import NO_CODE, Permission
from introspect.tools.instruments.registry import tools_named
from introspect.tools.library import Document
from introspect.tools.note_store import NoteStore


def random_model(dtype: torch.dtype = torch.float32, vocabulary: int = 640, layers: int = 2) -> Any:
    """A small Qwen2 with grouped KV heads."""
    return small_model("qwen2", dtype, layers, vocabulary=vocabulary)


def a_phase(**changes: Any) -> PhaseConfig:
    """A small phase with every tool that needs no documents."""
    base = {
        "name": "test",
        "tools": (
            "get_architecture_summary",
            "get_layer_names",
            "get_weight_statistics",
            "process_text",
            "get_activation_statistics",
            "get_attention_patterns",
            "record_observation",
            "query_memory",
        ),
        "experiments": ({"name": "one", "task": "Look at yourself."},),
        "system_prompt": {"detail": "brief", "text": "You examine yourself."},
    }
    return PhaseConfig.model_validate(base | changes)


def call_text(function: str, prose: str = "I look.", **arguments: Any) -> str:
    """A reply that calls a tool."""
    call = {"reasoning": "why", "tool_call": {"function": function, "arguments": arguments}}
    return f"{prose}\n{json.dumps(call)}"


DONE = 'All is seen.\n{"reasoning": "done", "complete": true}'

STEPS = [
    call_text("get_architecture_summary"),
    call_text("get_layer_names", filter_pattern="*mlp"),
    call_text("get_weight_statistics", layer_name="model.layers.0.mlp.up_proj"),
    call_text("record_observation", obs_type="finding", category="weights", description="std 0.3"),
    call_text("process_text", text="Hello", layer_names=["model.layers.0"]),
    call_text("get_activation_statistics", layer_name="model.layers.0"),
    call_text("get_attention_patterns", layer_name="model.layers.1.self_attn", head_idx=1),
    call_text("query_memory"),
    DONE,
]
"""A session that calls every tool of `a_phase`, long enough for two prunes."""


def forced_session(
    model: Any,
    prompt_format: ChatML,
    phase: PhaseConfig,
    replies: list[list[str]],
    engine: Engine | None = None,
    documents: Mapping[str, Document] | None = None,
    permission: Permission = NO_CODE,
    **options: Any,
) -> Session:
    """A session whose replies are the given texts, by experiment and turn; `engine` is that of its audits."""
    forced = {
        (index, turn): (*prompt_format.encode(text), prompt_format.end_id)
        for index, texts in enumerate(replies)
        for turn, text in enumerate(texts, start=1)
    }
    return open_session(
        phase=phase,
        seed=0,
        model=model,
        prompt_format=prompt_format,
        context_length=8192,
        notes=NoteStore(),
        documents=documents or {},
        tools=tools_named(phase.tools, permission),
        auditor=RunAuditor(engine or Engine(model), phase.audit, prompt_format.tokenizer),
        forced_replies=forced,
        **options,
    )


def run_session(
    session: Session,
    engine: Engine | None = None,
    planter: Any = None,
    watch: Callable[[Event], None] = lambda event: None,
) -> tuple[list[Event], str]:
    """Every event of a session run with an engine, and the status; `watch` sees each event as it comes."""
    driver = EngineDriver(
        engine or Engine(session.context.model), session.prompt_format, fault_planter=planter
    )
    stream = drive(run_phase(session, session.phase.experiments), driver)
    events: list[Event] = []
    try:
        while True:
            events.append(next(stream))
            watch(events[-1])
    except StopIteration as end:
        return events, end.value


def phase_for(model_dir: Path, **changes: Any) -> PhaseConfig:
    generation = {"max_new_tokens": 20, "seed": 3}
    return a_phase(**({"model": {"id": str(model_dir)}, "generation": generation} | changes))


def opened_run(phase: PhaseConfig, output: Path, interrupted: bool = False, forced: str | None = None) -> Run:
    options = RunOptions(output, forced_from=forced)
    return open_run(prepare(phase, options), lambda: interrupted)


PHASE = """\
name: small
model: {id: MODEL}
generation: {max_new_tokens: 30, seed: 1}
system_prompt: {detail: brief, text: You look at yourself.}
tools: [get_architecture_summary, query_memory]
experiments:
  - {name: one, task: Look.}
"""
