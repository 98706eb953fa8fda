"""What a result leaves out is said in one way by every tool: a number, and a sentence where one helps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.sessions import random_model
from support.tool_cases import TEXT, arguments_of

from introspect.prompt.formats import ChatML
from introspect.tools.context import ToolContext, left_out
from introspect.tools.instruments.registry import ALL_TOOLS
from introspect.tools.library import Document
from introspect.tools.note_store import NoteStore

TOO_LONG = {
    "query_architecture": {"query": "heads, layers, vocabulary"},
    "process_text": {"text": TEXT, "layer_names": [f"model.layers.{i}.mlp" for i in (0, 1)]},
    "compare_weights": {"layer1": "model.layers.0", "layer2": "model.layers.1"},
    "get_weight_statistics": {"layer_name": "model.layers.0"},
    "get_layer_info": {"layer_name": "model.layers.0"},
}
"""Arguments whose results have several items, for tools whose usual ones have one."""
WHOLE = {"record_observation", "update_observation", "read_heritage_document", "get_architecture_summary"}
"""Tools whose results have no list that could be shortened, or that go on by lines."""


@pytest.fixture(scope="module")
def context(byte_format: ChatML) -> ToolContext:
    notes = NoteStore()
    for number in range(6):
        notes.add("finding", "c", f"note {number}", 5, {}, [])
    documents = {name: Document(name, name, "about it", ("a line",)) for name in ("waves", "tides", "winds")}
    encode, decode = byte_format.encode, byte_format.decode
    context = ToolContext(random_model(), encode, decode, notes, documents, 10_000, processed_text=TEXT)
    return replace(context, measuring=("process_text",))


@pytest.mark.parametrize("name", sorted(set(ALL_TOOLS) - WHOLE))
def test_left_out_is_a_number_and_a_hint_a_text(name: str, context: ToolContext) -> None:
    arguments = TOO_LONG.get(name) or arguments_of(name)
    whole = ALL_TOOLS[name].call(context, arguments)
    assert "left_out" not in whole or "next_start" in whole
    short: dict[str, Any] = ALL_TOOLS[name].call(replace(context, max_result_tokens=1), arguments)
    if short != whole:
        assert type(short["left_out"]) is int and short["left_out"] > 0
    assert isinstance(short.get("hint", ""), str)


def test_nothing_is_said_where_nothing_is_left_out() -> None:
    assert left_out(0, "ask", next_start=3) == {}
    assert left_out(2) == {"left_out": 2}
    assert left_out(2, "ask", next_start=3) == {"left_out": 2, "next_start": 3, "hint": "ask"}
