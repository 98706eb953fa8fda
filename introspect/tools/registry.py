"""The tools that come with the program, by name. YAML chooses among them and never adds one."""

from __future__ import annotations

from collections.abc import Sequence

from introspect.errors import ConfigError, did_you_mean
from introspect.tools.activations import get_activation_statistics, process_text
from introspect.tools.architecture import get_architecture_summary, get_layer_names
from introspect.tools.attention import get_attention_patterns
from introspect.tools.base import Tool
from introspect.tools.documents import list_heritage_documents, read_heritage_document
from introspect.tools.notes import query_memory, record_observation
from introspect.tools.weights import get_weight_statistics

ALL_TOOLS: dict[str, Tool] = {
    function.__name__: Tool.from_function(function)
    for function in (
        get_architecture_summary,
        get_layer_names,
        get_weight_statistics,
        process_text,
        get_activation_statistics,
        get_attention_patterns,
        record_observation,
        query_memory,
        list_heritage_documents,
        read_heritage_document,
    )
}


def tools_named(names: Sequence[str]) -> dict[str, Tool]:
    """The tools of these names, in this order. Raises ConfigError for an unknown one."""
    for name in names:
        if name not in ALL_TOOLS:
            raise ConfigError(f"tools: no tool is called '{name}'; {did_you_mean(name, ALL_TOOLS)}")
    return {name: ALL_TOOLS[name] for name in names}
