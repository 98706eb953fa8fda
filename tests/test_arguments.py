"""Arguments: what a parameter's type says in words, what it accepts, and what it refuses with a way out."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from introspect.errors import ToolError
from introspect.tools.argument_types import in_words
from introspect.tools.base import Tool


def probe(
    context: Any,
    layers: list[int] | None = None,
    mode: Literal["zero", "mean"] = "zero",
    component: int | str = 0,
    top_k: Annotated[int, Field(ge=1, le=20)] = 5,
    names: list[str] | None = None,
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5,
    exact: bool = False,
    head: int = 0,
    more: dict[str, Any] | None = None,
) -> Any:
    """Give the arguments back.

    Args:
        layers: layers counted from 0
        mode: how to ablate
        component: what to ablate
        top_k: how many
        names: some names, which may be
            told on two lines
        share: a share
        exact: exactly or not
        head: a head
        more: further values
    """
    return {"layers": layers, "mode": mode, "component": component, "top_k": top_k, "names": names,
            "share": share, "exact": exact, "head": head, "more": more}  # fmt: skip


PROBE = Tool.from_function(probe)


def given_back(name: str, value: Any) -> Any:
    return PROBE.call(None, {name: value})[name]  # type: ignore[arg-type]


def test_types_are_told_in_words() -> None:
    assert {p.name: p.kind for p in PROBE.parameters} == {
        "layers": "list of integers",
        "mode": '"zero" or "mean"',
        "component": "integer or text",
        "top_k": "integer from 1 to 20",
        "names": "list of texts",
        "share": "number above 0 and below 1",
        "exact": "true or false",
        "head": "integer",
        "more": "object",
    }
    assert PROBE.parameters[4].meaning == "some names, which may be told on two lines"
    assert in_words(Annotated[list[int | str], Field(min_length=1, max_length=8)]) == (
        "list of 1 to 8 integers or texts"
    )
    assert in_words(list[list[float]]) == "list of lists of numbers"
    assert in_words(Literal["a", "b", 3]) == '"a", "b" or 3'
    assert in_words(Annotated[int, Field(ge=1)] | None) == "integer at least 1"


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("head", "3", 3),
        ("head", 3.0, 3),
        ("head", " 3 ", 3),
        ("component", "3", "3"),
        ("component", 3, 3),
        ("layers", 3, [3]),
        ("layers", ["3", 4.0], [3, 4]),
        ("layers", None, None),
        ("names", "model.layers.0", ["model.layers.0"]),
        ("share", "0.25", 0.25),
        ("exact", "True", True),
        ("top_k", "20", 20),
        ("more", {"a": [1]}, {"a": [1]}),
    ],
)
def test_what_can_mean_one_thing_is_accepted(name: str, value: Any, meant: Any) -> None:
    understood = given_back(name, value)
    assert understood == meant and type(understood) is type(meant)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("head", True, "expected a number, got true"),
        ("head", "first", 'expected integer, got "first"'),
        ("head", 2.5, "expected integer, got 2.5"),
        ("head", None, "expected integer, got null"),
        ("head", [1], "expected integer, got [1]"),
        ("head", 2**63, "too large"),
        ("head", "9" * 30, "too large"),
        ("head", "9" * 10_000, "expected integer"),
        ("component", True, "expected a number, got true"),
        ("layers", [0, True], "expected a number, got true"),
        ("layers", ["x"], 'expected list of integers, got "x"'),
        ("share", True, "expected a number, got true"),
        ("share", 1, "expected number above 0 and below 1, got 1"),
        ("share", float("nan"), "expected number above 0"),
        ("mode", "Zero", 'expected "zero" or "mean", got "Zero"'),
        ("mode", 0, 'expected "zero" or "mean", got 0'),
        ("top_k", 0, "expected integer from 1 to 20, got 0"),
        ("top_k", 21, "expected integer from 1 to 20, got 21"),
        ("exact", 1, "expected true or false, got 1"),
        ("exact", "perhaps", 'expected true or false, got "perhaps"'),
        ("names", "a, b", 'give a list: ["a", "b"]'),
        ("names", '["a"]', "without quotes around it"),
        ("names", "", 'expected list of texts, got ""'),
        ("names", True, "expected list of texts, got true"),
        ("more", "x", 'expected object, got "x"'),
        ("layer", 1, "did you mean 'layers'"),
    ],
)
def test_what_cannot_is_refused_with_a_way_out(name: str, value: Any, said: str) -> None:
    with pytest.raises(ToolError) as raised:
        given_back(name, value)
    assert said in str(raised.value) and f"argument '{name}'" in str(raised.value)
    assert "Usage: probe(layers=null" in str(raised.value)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("x" * 9000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(name=st.sampled_from([p.name for p in PROBE.parameters]) | st.text(max_size=12), value=values)
def test_any_argument_is_taken_or_refused_in_few_words(name: str, value: Any) -> None:
    try:
        understood = given_back(name, value)
    except ToolError as error:
        assert len(str(error)) < 900
    else:
        if name in ("layers", "head", "top_k", "component"):
            for item in understood if isinstance(understood, list) else [understood]:
                assert item is None or isinstance(item, str) or (type(item) is int and abs(item) <= 2**63)
        assert not (isinstance(value, bool) and name not in ("exact",))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def f(context): pass", "no docstring"),
        ("def f():\n    'Do.'", "takes no context"),
        ("def f(context, a):\n    'Do.'", "'a' has no type"),
        ("def f(context, a: int):\n    'Do.'", "'a' is not described"),
        ("def f(context, *a: int):\n    'Do.'", "no name of its own"),
        ("def f(context, a: set):\n    '''Do.\n\n    Args:\n        a: b\n    '''", "a parameter is a text"),
    ],
)
def test_a_function_that_does_not_describe_itself_is_no_tool(source: str, said: str) -> None:
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    with pytest.raises(TypeError, match=said):
        Tool.from_function(namespace["f"])


def test_every_tool_has_an_example_that_it_accepts() -> None:
    for parameter in PROBE.parameters:
        assert json.dumps(given_back(parameter.name, parameter.example), allow_nan=False)
