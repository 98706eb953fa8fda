"""The table of tools: its oracles agree with the tools on the tiny model, and notice where they would not."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import tool_oracles
import tool_table
from safetensors.numpy import load_file
from tool_oracles import EXAMPLES, FORWARD
from transformers import AutoModelForCausalLM, AutoTokenizer

from introspect.phase.paths import tiny_model
from introspect.tools import context as context_module
from introspect.tools.context import ToolContext
from introspect.tools.instruments.registry import ALL_TOOLS

CHECKED = sorted(name for name, example in EXAMPLES.items() if example.oracle is not None)


@pytest.fixture(scope="module")
def tiny() -> ToolContext:
    model = AutoModelForCausalLM.from_pretrained(tiny_model(), local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model(), local_files_only=True)
    context = tool_table.context_of(model, tokenizer)
    context.max_result_tokens = 1 << 20
    return context


@pytest.mark.parametrize("tool", CHECKED)
def test_tools_agree_with_their_oracles(
    tiny: ToolContext, tool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context_module, "SIGNIFICANT_DIGITS", 15)
    difference = tool_table.largest_difference(tool, EXAMPLES[tool], tiny)
    limit = 1e-5 if EXAMPLES[tool].method == FORWARD else 1e-10
    assert difference is not None and difference < limit


@pytest.mark.parametrize("tool", sorted(EXAMPLES))
def test_examples_are_calls_that_are_answered(tiny: ToolContext, tool: str) -> None:
    for name, arguments in EXAMPLES[tool].before:
        tool_table.call(tiny, name, arguments)
    for arguments in EXAMPLES[tool].arguments:
        result = tool_table.call(tiny, tool, arguments)
        assert json.loads(json.dumps(result, allow_nan=False))


@pytest.mark.parametrize(
    "tool",
    [
        "get_weight_summary",
        "get_weight_statistics",
        "compare_weights",
        "get_architecture_summary",
        "process_text",
        "get_activation_statistics",
        "logit_lens",
        "compare_activations",
        "ablate",
    ],
)
def test_an_oracle_sees_other_weights(tiny: ToolContext, tool: str) -> None:
    """The file with one tensor changed is no longer what the tool reports."""
    example = EXAMPLES[tool]
    raw: dict[str, Any] = load_file(tiny_model() / "model.safetensors")
    config = json.loads((tiny_model() / "config.json").read_text(encoding="utf-8"))
    changed = "model.layers.0.mlp.up_proj.weight"
    grown = np.concatenate([raw[changed], raw[changed]])
    raw[changed] = grown if tool == "get_architecture_summary" else raw[changed] * 1.5
    assert example.oracle is not None
    for name, arguments in example.before:
        tool_table.call(tiny, name, arguments)
    pairs = example.oracle(tool_table.call(tiny, tool, example.arguments[0]), raw, config)
    assert max(abs(told - true) / max(abs(true), 1e-9) for told, true in pairs) > 1e-3


def test_the_page_has_a_row_for_each_tool() -> None:
    rows = [tool_table.Row(tool, "m", None, 1, 1.0, 1.0, 1.0, 1.0) for tool in EXAMPLES]
    lines = tool_table.page(rows, "qwen2.5-3b", 500).splitlines()
    table = [line for line in lines if line.startswith("| `")]
    assert [line.split("`")[1] for line in table] == sorted(EXAMPLES)
    assert {line.count("|") for line in lines if line.startswith("|")} == {9}
    missing = set(ALL_TOOLS) - set(tool_oracles.EXAMPLES)
    assert ("Without an example" in lines[-1]) is bool(missing)
