"""Sessions in the native dialect: calls and results as the template writes them, and an exact cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_tokenizers import TOOL_LLAMA3_TEMPLATE, llama3_tokenizer, tool_chatml_tokenizer
from support.sessions import a_phase, forced_session, random_model, run_session

from introspect import events as ev
from introspect.prompt.formats import prompt_format_for
from introspect.prompt.prompt import PromptFormat
from introspect.prompt.tool_framing import measure_tool_framing
from introspect.session.dialect import FINISH
from introspect.tools.instruments.registry import tools_named
from introspect.tools.schemas import tool_schema

FORMATS: dict[str, PromptFormat] = {
    "chatml": prompt_format_for(tool_chatml_tokenizer(), "chatml"),
    "llama3": prompt_format_for(llama3_tokenizer(TOOL_LLAMA3_TEMPLATE), "llama3"),
}
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


@pytest.fixture(params=FORMATS)
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
