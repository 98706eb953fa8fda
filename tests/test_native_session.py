"""Sessions in the native dialect: calls and results as the template writes them, and an exact cache."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_tokenizers import tool_chatml_tokenizer
from support.native_formats import FORMATS
from support.sessions import a_phase, forced_session, random_model, run_session

from introspect import events as ev
from introspect.audits.auditor import RunAuditor
from introspect.engine.engine import Engine
from introspect.phase.config import AuditConfig
from introspect.prompt.formats import prompt_format_for
from introspect.prompt.prompt import PromptFormat
from introspect.prompt.tool_framing import measure_tool_framing
from introspect.session.dialect import FINISH
from introspect.session.protocols import CachedTurn
from introspect.tools.instruments.registry import tools_named
from introspect.tools.schemas import tool_schema

CALLS: list[tuple[str, dict[str, Any]]] = [
    ("get_architecture_summary", {}),
    ("get_layer_names", {"filter_pattern": "*mlp"}),
    ("get_weight_statistics", {"layer_name": "model.layers.0.mlp.up_proj"}),
    ("record_observation", {"obs_type": "finding", "category": "weights", "description": "std 0.3"}),
    ("process_text", {"text": "Hello", "layer_names": ["model.layers.0"]}),
    ("get_activation_statistics", {"layer_name": "model.layers.0"}),
    ("query_memory", {}),
    (FINISH, {"summary": "All is seen."}),
]


@pytest.fixture(scope="module", params=FORMATS)
def ran(request: pytest.FixtureRequest) -> tuple[PromptFormat, list[ev.Event], Any]:
    """A session of every call, by the template's own spelling, with its events."""
    prompt_format = FORMATS[request.param]
    phase = a_phase(
        memory={"max_conversation_tokens": 1500, "max_turns": 3, "keep_recent_turns": 2},
        limits={"max_result_tokens": 400},
        audit={"e0": "every_turn", "e1": "every_prune", "e2": "every_turn"},
    )
    schemas = [tool_schema(tool) for tool in tools_named(phase.tools).values()]
    call = measure_tool_framing(prompt_format.tokenizer, prompt_format.framing, schemas).call
    rows = len(prompt_format.tokenizer)
    model = random_model(torch.float32, vocabulary=rows)
    replies = [f"I look.\n{call.text(name, arguments)}" for name, arguments in CALLS]
    session = forced_session(model, prompt_format, phase, [replies])  # type: ignore[arg-type]
    assert session.dialect.name == "native"
    events, status = run_session(session)
    assert status == "complete"
    return prompt_format, events, session


def test_calls_run_and_the_last_one_completes(ran: tuple[PromptFormat, list[ev.Event], Any]) -> None:
    _, events, _ = ran
    called = [(e.function, e.arguments) for e in events if isinstance(e, ev.ToolCall)]
    assert called == CALLS[:-1]
    assert all(e.ok for e in events if isinstance(e, ev.ToolResult))
    ended = next(e for e in events if isinstance(e, ev.ExperimentEnd))
    assert (ended.status, ended.reason) == ("complete", "All is seen.")


def test_every_audit_passes_across_prunes(ran: tuple[PromptFormat, list[ev.Event], Any]) -> None:
    _, events, _ = ran
    assert sum(bool(e.dropped_messages) for e in events if isinstance(e, ev.Prune)) >= 2
    audits = [e for e in events if isinstance(e, ev.Audit)]
    assert {e.level for e in audits} == {"e0", "e1", "e2"}
    assert all(not e.codes and e.skipped is None for e in audits)


def test_the_prompt_is_the_templates_with_results_as_tools_answer(
    ran: tuple[PromptFormat, list[ev.Event], Any],
) -> None:
    prompt_format, _, session = ran
    messages = [{"role": role, "content": text} for role, text in session.messages()]
    assert "tool" in {message["role"] for message in messages}
    assert not any(message["content"].startswith("TOOL_RESULTS") for message in messages)
    text = prompt_format.tokenizer.apply_chat_template(
        messages,
        tools=list(session.instructions.tools.schemas),
        tokenize=False,
        add_generation_prompt=True,
    )
    assert prompt_format.decode(session.rendering().prompt.token_ids) == text


def failing_where(word: str) -> Any:
    """A tokenizer whose template writes tools and raises where a message has a word."""
    tokenizer = tool_chatml_tokenizer()
    checked = "{%- for message in messages -%}{%- if 'WORD' in message.content -%}"
    checked += "{{ raise_exception('no such word') }}{%- endif -%}{%- endfor -%}"
    tokenizer.chat_template = checked.replace("WORD", word) + tokenizer.chat_template
    return tokenizer


@pytest.mark.parametrize("dialect", ["native", "own"])
def test_a_template_that_fails_in_mid_run_leaves_its_audit_out_with_the_reason(dialect: str) -> None:
    prompt_format = prompt_format_for(failing_where("zebra"), "m")
    phase = a_phase(dialect=dialect, audit={"e0": "every_turn", "e1": "every_turn", "e2": "every_turn"})
    model = random_model(torch.float32, vocabulary=len(prompt_format.tokenizer))
    replies = [["I see a zebra.", "It is gone."]]
    session = forced_session(model, prompt_format, phase, replies)  # type: ignore[arg-type]
    assert session.dialect.name == dialect
    events, _ = run_session(session)
    audits = [e for e in events if isinstance(e, ev.Audit)]
    assert all(not e.codes for e in audits)
    assert all(e.skipped is None for e in audits if e.level != "e0" or e.turn < 2)
    skipped = [e for e in audits if e.skipped is not None]
    assert skipped and all(e.level == "e0" and "no such word" in (e.skipped or "") for e in skipped)
    assert isinstance(events[-1], ev.ExperimentEnd) and events[-1].turns == 2


def test_what_a_cache_shows_is_said_where_the_template_fails() -> None:
    tokenizer = tool_chatml_tokenizer()
    prompt_format = prompt_format_for(tokenizer, "m")
    model = random_model(torch.float32, vocabulary=len(tokenizer))
    engine = Engine(model)
    checks = RunAuditor(engine, AuditConfig(e0="every_turn"), tokenizer)
    ids = prompt_format.encode("I look.")
    cache = engine.new_cache()
    engine.prefill(cache, list(ids))
    said = (("user", "Go."),)
    state = CachedTurn(0, 1, cache, ids, len(ids), said, pruned=False)
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    [sound] = [e for e in checks.after_turn(state) if e.level == "e0"]
    assert sound.skipped is not None and not sound.codes
    broken = replace(state, token_ids=(*ids[:-1], ids[0]))
    [found] = [e for e in checks.after_turn(broken) if e.level == "e0"]
    assert found.skipped is None and found.codes
