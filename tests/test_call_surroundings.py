"""What a call was written with does not get lost where it stands beside the call's own object."""

from __future__ import annotations

import json
from typing import Any

import pytest

from introspect.tools.calls.actions import CallRequest, Completion, Unusable
from introspect.tools.calls.parsing import parse_reply

GIVEN = {"category": "weights"}
WRITTEN = json.dumps(GIVEN)
BARE = json.dumps({"reasoning": "r", "tool_call": {"function": "query_memory"}})
WHOLE = json.dumps({"reasoning": "r", "tool_call": {"function": "query_memory", "arguments": GIVEN}})
DONE = json.dumps({"reasoning": "r", "complete": True})


def parse(text: str, truncated: bool = False) -> Any:
    return parse_reply(text, truncated, 400)


@pytest.mark.parametrize("key", ["arguments", "parameters", "Args", "category", "input"])
@pytest.mark.parametrize("brace", [", ", "}, ", "\n", " ", "}\n, ", "```\n"])
def test_a_member_behind_the_end_of_a_call_is_refused_by_name(key: str, brace: str) -> None:
    for call in (BARE, WHOLE):
        for truncated in (False, True):
            action = parse(f'I look.\n{call}{brace}"{key}": {WRITTEN}}}', truncated)
            assert isinstance(action, Unusable) and f"'{key}'" in action.message


@pytest.mark.parametrize("key", ["arguments", "parameters", "Args"])
@pytest.mark.parametrize("between", ["\n", "\n```json\n", "\nIts arguments are these:\n"])
def test_arguments_in_an_object_of_their_own_are_refused_by_name(key: str, between: str) -> None:
    alone = json.dumps({key: GIVEN})
    for text in (f"{BARE}{between}{alone}", f"{alone}{between}{BARE}", f"{WHOLE}{between}{alone}"):
        action = parse(text)
        assert isinstance(action, Unusable) and f"'{key}'" in action.message


@pytest.mark.parametrize("between", ["", " ", "\n", ", ", "\n```json\n", " with arguments ", " arguments: "])
@pytest.mark.parametrize("given", [WRITTEN, '{category: "weights"}', "{'category': 'weights'}"])
def test_a_call_without_arguments_does_not_run_past_an_object_behind_it(between: str, given: str) -> None:
    assert isinstance(parse(f"{BARE}{between}{given}"), Unusable)
    tagged = f'<tool_call>{{"name": "query_memory"}}{between}{given}</tool_call>'
    assert isinstance(parse(tagged), Unusable)


@pytest.mark.parametrize(
    "around",
    [
        "}}}",
        "\n```",
        ' }, "reasoning": "so"}',
        "\nNote: it is a start.",
        '\n"So it is": a quotation.',
        '\nTOOL_RESULTS:\n{"layers": 3}',
        '\nThen I compare {"layers": 3}.',
    ],
)
def test_what_only_explains_may_stand_behind_a_call(around: str) -> None:
    assert parse(BARE + around) == CallRequest("query_memory", {}, "r")
    assert parse(WHOLE + around) == CallRequest("query_memory", GIVEN, "r")


@pytest.mark.parametrize(
    "beside",
    [
        {"function_call": {"name": "query_memory", "arguments": GIVEN}},
        {"tool": "query_memory", "category": "weights"},
        {"tool_name": "query_memory"},
        {"name": "query_memory", "category": "weights"},
        {"action": {"tool": "query_memory", "input": {}}},
        {"call": {"function": "query_memory"}},
        {"next": [{"tool_call": {"function": "query_memory", "arguments": {}}}]},
    ],
)
def test_completion_beside_a_call_under_any_key_is_refused(beside: dict[str, Any]) -> None:
    for value in ({"complete": True, **beside}, {**beside, "complete": True}):
        action = parse(json.dumps(value))
        assert isinstance(action, Unusable) and action.code == "several-calls"


@pytest.mark.parametrize(
    "call",
    [
        WHOLE[:-1],
        WHOLE.replace('"weights"', "weights"),
        f'"tool_call": {{"function": "query_memory", "arguments": {WRITTEN}}}',
        "<tool_call>query_memory(category='weights')</tool_call>",
        "{'tool_call': {'function': 'query_memory', 'arguments': {}}}",
    ],
)
def test_completion_beside_a_broken_call_is_refused(call: str) -> None:
    assert isinstance(parse(f"{DONE}\n{call}"), Unusable)
    assert isinstance(parse(f"{call}\n{DONE}"), Unusable)
    assert parse(f"<think>{call}</think>{DONE}") == Completion("r")


@pytest.mark.parametrize(
    "told",
    [
        {"findings": [{"name": "model.layers.0", "mean": 0.1}]},
        {"summary": "I used tool_call well", "action": "complete"},
        {"tool": None},
        {"tool": "none"},
        {"notes": ["a", "b"], "confidence": 0.5},
    ],
)
def test_completion_may_tell_what_was_found(told: dict[str, Any]) -> None:
    assert parse(json.dumps({"reasoning": "r", "complete": True, **told})) == Completion("r")
    assert parse(f"I used `<tool_call>` and {json.dumps('tool_call')}. {DONE}") == Completion("r")


def test_a_call_in_single_quotes_is_told_what_is_wrong_with_it() -> None:
    action = parse("{'tool_call': {'function': 'query_memory', 'arguments': {}}}")
    assert isinstance(action, Unusable) and action.code == "invalid-json"
