"""Names by pattern: as a glob matches them, in one pass whatever the pattern."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sessions import random_model

from introspect.errors import ToolError
from introspect.tools.instruments.names import matching, module_names, resolve_module, resolve_weights

few_letters = st.text("ab.*[", max_size=8)


@given(few_letters, st.lists(few_letters.map(lambda name: name.replace("*", "")), max_size=6))
def test_a_pattern_matches_what_the_expression_for_it_matches(pattern: str, names: list[str]) -> None:
    expression = re.compile("".join(".*" if letter == "*" else re.escape(letter) for letter in pattern))
    assert matching(pattern, names) == [name for name in names if expression.fullmatch(name)]


def test_a_hostile_pattern_ends() -> None:
    """An expression with a star for each letter would try more ways than there are atoms in the world."""
    names = ["a" * 120] * 400
    assert matching("*a" * 60 + "*b", names) == []
    assert matching("*a" * 60, names) == names


def test_a_pattern_resolves_where_it_fits_one_name() -> None:
    model = random_model()
    assert resolve_module(model, "*.0.*q_proj") == "model.layers.0.self_attn.q_proj"
    assert resolve_weights(model, "*.0.*q_proj.bias")[0] == "model.layers.0.self_attn.q_proj.bias"
    assert list(resolve_weights(model, "*.0.*q_proj")[1]) == ["weight", "bias"]
    for name in module_names(model):
        assert resolve_module(model, name) == name
    with pytest.raises(ToolError, match="matches 4 layers"):
        resolve_weights(model, "*layernorm.weight")
    with pytest.raises(ToolError, match=r"nearest: model\.layers\.0\.self_attn"):
        resolve_module(model, "model.layers.0.self_attn.q_prj")
    with pytest.raises(ToolError, match="get_layer_names lists them"):
        resolve_module(model, "^(.*)+$")
