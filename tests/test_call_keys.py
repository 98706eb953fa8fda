"""Every key of a call is understood or refused by name: no call runs without something that stood in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sessions import DONE, a_phase, call_text, forced_session, run_session

from introspect import events
from introspect.prompt.formats import ChatML
from introspect.tools.calls.actions import CallRequest, Completion, Unusable
from introspect.tools.calls.call_keys import MAX_CALL_BYTES
from introspect.tools.calls.parsing import parse_reply

GIVEN = {"category": "weights"}
ARGUMENT_NAMES = ("arguments", "parameters", "args", "params", "kwargs", "input")
PROSE_NAMES = ("reasoning", "thought", "thoughts", "thinking", "analysis", "explanation", "plan")
OTHERS = ("category", "text", "tool_call", "tool_calls", "function", "name", "complete", "id", "type", "role")

NO_AUDIT = {"e0": "never", "e1": "never"}


def parse(value: Any, tagged: bool = False) -> Any:
    text = value if isinstance(value, str) else json.dumps(value)
    return parse_reply(f"<tool_call>\n{text}\n</tool_call>" if tagged else f"I look.\n{text}", False, 400)


@pytest.mark.parametrize("key", [*ARGUMENT_NAMES, "Arguments", " arguments", "PARAMETERS", "Params\n"])
@pytest.mark.parametrize("as_text", [False, True])
def test_arguments_under_another_key_are_arguments(key: str, as_text: bool) -> None:
    written = json.dumps(GIVEN) if as_text else GIVEN
    for name in ("function", "name"):
        call = {name: "query_memory", key: written}
        assert parse({"reasoning": "r", "tool_call": call}) == CallRequest("query_memory", GIVEN, "r")
        assert parse(call, tagged=True) == CallRequest("query_memory", GIVEN, "")
        beside = {"reasoning": "r", "tool_call": {name: "query_memory"}, key: written}
        assert parse(beside) == CallRequest("query_memory", GIVEN, "r")


@pytest.mark.parametrize("key", ["tool_calls", "tool_call", "Tool_Call", "toolCalls"])
@pytest.mark.parametrize("listed", [False, True])
def test_calls_as_other_programs_write_them(key: str, listed: bool) -> None:
    function = {"name": "query_memory", "arguments": json.dumps(GIVEN)}
    call = {"id": "call_1", "type": "function", "function": function}
    assert parse({"reasoning": "r", key: [call] if listed else call}) == CallRequest(
        "query_memory", GIVEN, "r"
    )


def test_a_message_with_one_call_is_that_call() -> None:
    call = {"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert parse({"role": "assistant", "content": "I look", "tool_calls": [call]}) == CallRequest(
        "f", {}, "I look"
    )


@pytest.mark.parametrize(
    ("value", "code", "named"),
    [
        ({"tool_call": {"function": "f", "category": "weights"}}, "unknown-key", ["'category'"]),
        ({"tool_call": {"function": "f", "arguments": {}, "category": 1}}, "unknown-key", ["'category'"]),
        ({"tool_call": {"function": "f", "id": 5}}, "unknown-key", ["'id'"]),
        ({"tool_call": {"function": "f", "id": "a note"}}, "unknown-key", ["'id'"]),
        ({"tool_call": {"function": "f", "arguments": {}, "type": "finding"}}, "unknown-key", ["'type'"]),
        ({"tool_call": {"function": "f", "thought": {"a": 1}}}, "unknown-key", ["'thought'"]),
        ({"tool_call": {"function": "f"}, "category": "weights"}, "unknown-key", ["'category'"]),
        ({"tool_call": {"function": "f"}, "text": "weights"}, "unknown-key", ["'text'"]),
        ({"tool_call": {"function": "f"}, "name": "g"}, "unknown-key", ["'name'"]),
        ({"tool_call": {"function": {"name": "f", "text": "x"}}}, "unknown-key", ["'text'"]),
        ({"tool_call": {"function": "f", "name": "g"}}, "conflicting-keys", ["'function'", "'name'", "'g'"]),
        (
            {"tool_call": {"function": {"name": "f"}, "name": "g"}},
            "conflicting-keys",
            ["'name' ('f')", "('g')"],
        ),
        (
            {"tool_call": {"function": "f", "arguments": {}, "parameters": GIVEN}},
            "conflicting-keys",
            ["'arguments'", "'parameters'"],
        ),
        (
            {"tool_call": {"function": "f", "args": GIVEN, "Args": GIVEN}},
            "conflicting-keys",
            ["'args'", "'Args'"],
        ),
        (
            {"tool_call": {"function": "f", "arguments": GIVEN}, "arguments": {}},
            "conflicting-keys",
            ["'arguments'"],
        ),
        ({"tool_call": {"function": "f", "arguments": [1]}}, "incomplete-call", ["'arguments'"]),
        ({"tool_call": {"function": "f", "parameters": "weights"}}, "incomplete-call", ["'parameters'"]),
        ({"tool_call": {"function": "f", "input": 5}}, "incomplete-call", ["'input'"]),
        ({"tool_call": "f"}, "incomplete-call", ["'tool_call'"]),
        ({"tool_call": "f", "arguments": {}}, "incomplete-call", ["'tool_call'"]),
        ({"tool_call": {"tool": "f", "arguments": {}}}, "incomplete-call", ["'tool'"]),
        ({"tool_call": {"function": None, "arguments": {}}}, "incomplete-call", []),
        ({"tool_call": {"function": ["f"], "arguments": {}}}, "incomplete-call", []),
        ({"tool_calls": [{"name": "f"}, {"name": "g"}]}, "several-calls", ["2 calls"]),
        ({"tool_call": {"name": "f"}, "tool_calls": [{"name": "g"}]}, "several-calls", ["'tool_calls'"]),
        ({"tool_call": {"function": "f"}, "complete": True}, "several-calls", ["'complete'"]),
        ({"tool_call": {"function": "f"}, "complete": "True"}, "several-calls", ["'complete'"]),
        ({"tool_call": {"function": "f", "complete": 1}}, "several-calls", ["'complete'"]),
        ({"tool_call": {"function": "f"}, "complete": 7}, "unknown-key", ["'complete'"]),
        ({"complete": True, "function": "f", "arguments": {}}, "several-calls", ["'complete'"]),
        ({"complete": "true"}, "unclear-completion", ['"complete": true']),
        ({"complete": 1}, "unclear-completion", ['"complete": true']),
        ({"complete": True, "Complete": True}, "unclear-completion", ['"complete": true']),
    ],
)
def test_what_is_not_plain_is_refused_by_name(value: Any, code: str, named: list[str]) -> None:
    action = parse(value)
    assert isinstance(action, Unusable) and action.code == code
    assert all(name in action.message for name in named), action.message


@pytest.mark.parametrize("complete", [False, None, 0, "false", "no", ""])
def test_that_nothing_is_complete_stands_beside_a_call(complete: Any) -> None:
    assert parse({"complete": complete, "tool_call": {"function": "f"}}) == CallRequest("f", {}, "")


@pytest.mark.parametrize("nothing", [None, [], "", False])
def test_no_call_beside_completion_is_completion(nothing: Any) -> None:
    assert parse({"reasoning": "r", "complete": True, "tool_call": nothing}) == Completion("r")
    assert parse({"reasoning": "r", "complete": True, "tool_call": None, "parameters": 5}) == Completion("r")


@pytest.mark.parametrize("nothing", [None, "", " ", "{}", "null", {}])
def test_empty_arguments_are_none(nothing: Any) -> None:
    assert parse({"tool_call": {"function": "f", "arguments": nothing}}) == CallRequest("f", {}, "")


def test_two_objects_that_ask_for_something_are_too_many() -> None:
    good = json.dumps({"tool_call": {"function": "g", "arguments": {}}})
    for other in ({"tool_call": {"function": "f", "x": 1}}, {"tool_call": "f"}, {"complete": "true"}):
        action = parse(f"{json.dumps(other)}\n{good}")
        assert isinstance(action, Unusable) and action.code == "several-calls"


@pytest.mark.parametrize("key", ARGUMENT_NAMES)
def test_arguments_are_measured_under_every_key(key: str) -> None:
    for size, taken in ((MAX_CALL_BYTES - len('{"a": ""}'), True), (MAX_CALL_BYTES, False)):
        large = {"a": "x" * size}
        for written in (large, json.dumps(large)):
            action = parse({"tool_call": {"function": "f", key: written}})
            assert isinstance(action, CallRequest) == taken
            assert taken or "longer than 16384 bytes" in action.message


@pytest.mark.parametrize("inside", ['{"a": NaN}', '{"a": 1, "a": 2}', '{"a": 1e999}', "{" * 5000, "[1"])
def test_arguments_as_text_are_read_as_strictly(inside: str) -> None:
    action = parse({"tool_call": {"function": "f", "arguments": inside}})
    assert isinstance(action, Unusable)
    half = {"tool_call": {"function": "f", "arguments": '{"a": "\\ud800"}'}}
    assert isinstance(parse(half), Unusable)


def test_a_refusal_shows_a_key_in_one_short_line() -> None:
    for key in ("<|im_end|>\n<|im_start|>\x1b[31m\u202e", "k" * 10_000):
        action = parse({"tool_call": {"function": "f", key: 1}})
        assert isinstance(action, Unusable) and len(action.message) < 400
        assert action.message.isprintable() and "\u202e" not in action.message


BROKEN = [
    '<tool_call>{"name": "f", "arguments": {"name": "g"},}</tool_call>',
    '<tool_call>{"name": f, "arguments": {"name": "g", "arguments": {}}}</tool_call>',
    '{"reasoning": bad, "tool_call": {"function": f, "arguments": {"complete": true}}}',
    '{"tool_call": {"function": "f", "arguments": {"complete": true}}',
    '{"tool_call": {"function": "f", "arguments": {"x": {"complete": true}',
    '{"tool_call": {"function": "f", "arguments": {"x": NaN, "y": {"complete": true}}}}',
    '{"tool_call": {"function": "f", "arguments": {"x": 1, "x": [{"complete": true}]}}}',
    "{'tool_call': {'function': 'f', 'arguments': {\"complete\": true}}}",
    '{tool_call: {function: "f", arguments: {"complete": true}}}',
    '{"tool_call": {"function": "f", "arguments": {"tags": [x, {"a": 1}, {"complete": true}]}}}',
    '{"reasoning": "I drafted {"tool_call": {"function": "g"}} before", "tool_call": {"function": "f"}}',
]


@pytest.mark.parametrize("text", BROKEN)
def test_what_stands_inside_a_broken_call_is_no_call(text: str) -> None:
    assert isinstance(parse(text), Unusable)


@pytest.mark.parametrize(
    "before", ["a set {x, y}: ", "{", "{{ } ", 'He wrote {"x\n', "f(x) = {1, if\n", "the '{' "]
)
def test_a_call_behind_stray_braces_is_a_call(before: str) -> None:
    call = {"tool_call": {"function": "f", "arguments": GIVEN}}
    assert parse(before + json.dumps(call)) == CallRequest("f", GIVEN, "")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)
keys = st.sampled_from([*ARGUMENT_NAMES, *PROSE_NAMES, *OTHERS, "Arguments", "Complete"]) | st.text(
    max_size=6
)


def holds_nothing_to_run(key: str, value: Any) -> bool:
    """Whether a call may run without what stands under a key: prose, a label, or nothing at all."""
    name = key.strip().lower().replace("_", "")
    return (
        name == "reasoning"
        or (name in (*PROSE_NAMES, "reason", "rationale", "reflection", "think") and isinstance(value, str))
        or (name in (*PROSE_NAMES, "toolcall", "toolcalls") and value in (None, "", [], False))
        or (name == "complete" and (not value or str(value).strip().lower() in ("false", "no")))
        or (name in ("function", "name") and value in (None, "f"))
        or (name == "role" and value == "assistant")
        or (name == "type" and value == "function")
        or (name == "id" and isinstance(value, str | None))
    )


@given(
    extra=st.dictionaries(keys, json_values, min_size=1, max_size=3),
    place=st.sampled_from(["top", "call", "function", "tagged"]),
    with_arguments=st.booleans(),
)
def test_no_call_runs_without_what_stood_in_it(
    extra: dict[str, Any], place: str, with_arguments: bool
) -> None:
    own = {"arguments": GIVEN} if with_arguments else {}
    extra = {key: value for key, value in extra.items() if key not in ("tool_call", *own)}
    call: dict[str, Any] = {"function": "f", **own}
    value: dict[str, Any] = {"reasoning": "r", "tool_call": call}
    if place == "top":
        value |= extra
    elif place == "function":
        call["function"] = {"name": "f", **extra}
    else:
        call |= {key: item for key, item in extra.items() if key != "function"}
    action = parse(call if place == "tagged" else value, tagged=place == "tagged")
    assert not isinstance(action, Completion)
    if isinstance(action, CallRequest):
        assert action.function == "f"
        placed = {k: v for k, v in extra.items() if k != "function" or place in ("top", "function")}
        rest = {k: v for k, v in placed.items() if not holds_nothing_to_run(k, v)}
        if place == "function":
            rest |= {"name": "f"} if rest.pop("name", "f") != "f" else {}
        assert len(rest) <= (not with_arguments)
        expected = GIVEN if with_arguments else {}
        for item in rest.values():
            expected = json.loads(item or "null") or {} if isinstance(item, str) else item or {}
        assert action.arguments == expected


def test_each_form_asks_the_same_question_of_a_run(model: Any, byte_format: ChatML) -> None:
    """Two notes are saved; whatever key the question's argument stands under, one of them answers it."""
    note = {"obs_type": "finding", "description": "seen"}
    question = {"function": "query_memory"}
    forms = [
        {"tool_call": question | {"parameters": GIVEN}},
        {"tool_call": question | {"args": json.dumps(GIVEN)}},
        {"tool_call": question | GIVEN},
        {"tool_call": question, "arguments": GIVEN},
        {"tool_call": question | {"arguments": {"arguments": GIVEN}}},
    ]
    replies = [call_text("record_observation", category=kind, **note) for kind in ("weights", "attention")]
    session = forced_session(
        model, byte_format, a_phase(audit=NO_AUDIT), [[*replies, *map(json.dumps, forms), DONE]]
    )
    stream, status = run_session(session)
    answers = [e for e in stream if isinstance(e, events.ToolResult) and e.function == "query_memory"]
    assert status == "complete" and [answer.ok for answer in answers] == [True, True, True, False]
    for answer in answers[:3]:
        assert [found["category"] for found in answer.result["notes"]] == ["weights"]
    assert "arguments" in answers[3].text
    refused = [event for event in stream if isinstance(event, events.Warning)]
    assert [(w.code, "'category'" in w.message) for w in refused] == [("unknown-key", True)]
