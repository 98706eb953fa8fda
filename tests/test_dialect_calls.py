"""Calls as dialects have them: bare where the tool is offered, in tags, named by one, and what finishes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from introspect.tools.calls.actions import (
    CALL_FORM,
    COMPLETE_FORM,
    OWN_FORMS,
    CallForms,
    CallRequest,
    Completion,
    Unusable,
    example_arguments,
    nothing_done,
    own_forms,
)
from introspect.tools.calls.parsing import parse_reply
from introspect.tools.instruments.registry import ALL_TOOLS

GIVEN = {"layer_name": "model.layers.0"}
NATIVE = CallForms(
    call='<tool_call>{"name": "NAME", "arguments": {}}</tool_call>',
    complete='<tool_call>{"name": "finish_experiment", "arguments": {"summary": "seen"}}</tool_call>',
    finish="finish_experiment",
    examples={"get_layer_info": "LIKE THIS"},
)
OFFERED = tuple(ALL_TOOLS)


def parse(text: Any, forms: CallForms = NATIVE, offered: Any = OFFERED, truncated: bool = False) -> Any:
    return parse_reply(text if isinstance(text, str) else json.dumps(text), truncated, 400, forms, offered)


@given(
    name=st.sampled_from(OFFERED),
    key=st.sampled_from(["name", "function"]),
    under=st.sampled_from(["arguments", "parameters"]),
    arguments=st.dictionaries(st.text(max_size=6), st.integers() | st.text(max_size=6), max_size=3),
    as_text=st.booleans(),
    around=st.sampled_from(["{}", "```json\n{}\n```", "I look.\n{}\n", "[{}]", "{}}}", "`{}`", "```\n{}"]),
)
def test_a_bare_object_that_names_an_offered_tool_is_a_call(
    name: str, key: str, under: str, arguments: dict[str, Any], as_text: bool, around: str
) -> None:
    call = json.dumps({key: name, under: json.dumps(arguments) if as_text else arguments})
    text = around.replace("{}", call, 1)
    for forms in (OWN_FORMS, NATIVE):
        assert parse(text, forms) == CallRequest(name, arguments, "")
    assert isinstance(parse(text, offered=()), Unusable)


@pytest.mark.parametrize("name", ["Ann", "model.layers.0", "get_layer", "GET_LAYER_INFO", ""])
def test_a_bare_object_with_another_name_is_no_call(name: str) -> None:
    for value in ({"name": name, "arguments": GIVEN}, {"function": name, "parameters": {}}):
        action = parse(value)
        assert isinstance(action, Unusable) and action.code == ("unknown-tool" if name else "no-call")
        assert parse(value, offered=()).code == "no-call"


def test_a_name_that_is_nearly_a_tool_is_told_which_one() -> None:
    assert "did you mean 'get_layer_info'?" in parse({"name": "get_layer_inf", "arguments": {}}).message


def test_what_stands_in_a_bare_call_is_refused_by_name_as_in_any_other() -> None:
    action = parse({"name": "get_layer_info", "arguments": GIVEN, "category": "weights"})
    assert isinstance(action, Unusable) and action.code == "unknown-key" and "'category'" in action.message
    twice = {"name": "get_layer_info", "arguments": GIVEN, "parameters": {}}
    assert parse(twice).code == "conflicting-keys"
    assert parse('{"name": "get_layer_info", "arguments": {"layer_name": "x"}').code == "invalid-json"
    member = '{"name": "get_layer_info", "arguments": {}}, "layer_name": "x"}'
    assert parse(member).code == "unknown-key"


def test_a_bare_call_has_its_reasoning_beside_it() -> None:
    value = {"reasoning": "why", "function": "get_layer_info", "arguments": GIVEN}
    assert parse(value, OWN_FORMS) == CallRequest("get_layer_info", GIVEN, "why")
    wrapped = {"type": "function", "function": {"name": "get_layer_info", "arguments": json.dumps(GIVEN)}}
    assert parse(wrapped) == CallRequest("get_layer_info", GIVEN, "")


@pytest.mark.parametrize(
    "marks",
    [
        ("<tool_call>", "</tool_call>"),
        ("<tool_calls>[", "]</tool_calls>"),
        ("<toolcall>", "</toolcall>"),
        ("<function_call>\n", "\n</function_call>"),
        ("<functioncall>", ""),
        ("<|tool_call|>", "<|/tool_call|>"),
        ("<|tool_call|>[", "]"),
        ("[TOOL_CALLS][", "]"),
        ("[TOOL_CALL]", "[/TOOL_CALL]"),
        ("<|python_tag|>", ""),
        ("<|tool_call|>", "<|tool_call|>"),
    ],
)
@given(arguments=st.dictionaries(st.text(max_size=6), st.integers(), max_size=3))
def test_what_stands_in_tags_is_a_call(marks: tuple[str, str], arguments: dict[str, Any]) -> None:
    for key in ("arguments", "parameters"):
        text = marks[0] + json.dumps({"name": "f", key: arguments}) + marks[1]
        assert parse(f"I look. {text}") == CallRequest("f", arguments, "")
    two = text + "\n" + text
    assert parse(two).code == "several-calls"
    spoken_of = marks[0].strip("[\n")
    assert isinstance(parse(f'The mark "{spoken_of}" is this: {{"name": "f"}}'), Unusable)


@pytest.mark.parametrize(
    "tag", ["<function=f>", '<function="f">', '<function name="f">', "<tool_call><function=f>"]
)
@given(arguments=st.dictionaries(st.text(max_size=6), st.integers() | st.text(max_size=5), max_size=3))
def test_a_tag_names_the_tool_whose_arguments_follow(tag: str, arguments: dict[str, Any]) -> None:
    written = json.dumps(arguments)
    assert parse(f"<tool_call>{tag}{written}</function></tool_call>") == CallRequest("f", arguments, "")
    assert parse(f"{tag}{written}</function>") == CallRequest("f", arguments, "")
    assert parse(f"{tag}\n{written}") == CallRequest("f", arguments, "")
    assert parse(f"{tag}{written}</function>\n{tag}{written}</function>").code == "several-calls"
    assert isinstance(parse(f"{tag}</function> then {written}"), Unusable)


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "finish_experiment", "arguments": {"summary": "seen"}}',
        '```json\n{"name": "finish_experiment", "parameters": {"summary": "seen"}}\n```',
        '<tool_call>{"name": "finish_experiment", "arguments": {"summary": "seen"}}</tool_call>',
        '<function=finish_experiment>{"summary": "seen"}</function>',
        '{"tool_call": {"function": "finish_experiment", "arguments": {"summary": "seen"}}}',
        '{"name": "finish_experiment", "arguments": "{\\"summary\\": \\"seen\\"}"}',
        '{"reasoning": "seen", "name": "finish_experiment", "arguments": {}}',
        '{"reasoning": "seen", "complete": true}',
    ],
)
def test_the_call_that_finishes_is_completion(text: str) -> None:
    assert parse(text) == Completion("seen")
    for other in ('{"name": "get_layer_info", "arguments": {}}', "<tool_call>get_layer_info"):
        assert isinstance(parse(f"{text}\n{other}"), Unusable)
    call = parse(text, OWN_FORMS)
    assert isinstance(call, Completion) == ("complete" in text)


SCHEMA = {"type": "object", "properties": {"layer_name": {"type": "string"}}, "required": ["layer_name"]}


@pytest.mark.parametrize(
    "given",
    [
        SCHEMA,
        {"properties": {"layer_name": {"type": "string", "description": "a name"}}},
        {"layer_name": {"type": "string"}},
        {"layer_name": {"type": "string", "description": "a name that get_layer_names lists"}},
        {"layer_name": {"type": ["string", "null"], "default": None}},
        {"type": "object", "properties": {}},
    ],
)
def test_a_schema_in_place_of_arguments_is_shown_the_right_call(given: dict[str, Any]) -> None:
    own = own_forms(ALL_TOOLS.values())
    for value in (
        {"name": "get_layer_info", "arguments": given},
        {"tool_call": {"function": "get_layer_info", "arguments": given}},
        {"name": "get_layer_info", "description": "One layer.", "parameters": given},
        {"type": "function", "function": {"name": "get_layer_info", "parameters": given}},
    ):
        action = parse(value)
        assert action.code == "schema-echoed" and action.message.endswith("LIKE THIS")
        told = parse(value, own).message
        right = parse(told[told.index("{") :], own)
        assert right == CallRequest("get_layer_info", example_arguments(ALL_TOOLS["get_layer_info"]), "why")
    assert parse({"name": "get_layer_names", "arguments": given}).message.endswith(NATIVE.call)
    assert parse({"name": "finish_experiment", "arguments": given}).message.endswith(NATIVE.complete)


def test_each_example_of_the_own_forms_is_a_call_that_its_tool_takes() -> None:
    own = own_forms(ALL_TOOLS.values())
    for name, tool in ALL_TOOLS.items():
        action = parse(own.call_of(name), own)
        assert isinstance(action, CallRequest) and action.function == name
        tool.validated(action.arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"data": {}},
        {"data": {"type": "layer"}},
        {"data": {"type": "string", "mean": 1}},
        {"type": "string"},
        {},
    ],
)
def test_values_are_no_schema(arguments: dict[str, Any]) -> None:
    value = {"name": "record_observation", "arguments": arguments}
    assert parse(value) == CallRequest("record_observation", arguments, "")


@pytest.mark.parametrize("before", ["", "So", "(", "x = ", "f(", "'", '"'])
def test_what_ends_a_reply_is_asked_whatever_stands_before_it(before: str) -> None:
    asked = parse(f"{before}{CALL}")
    assert isinstance(asked, CallRequest) and asked.function == "get_layer_info"
    done = parse(f'{before}{{"reasoning": "seen", "complete": true}}')
    assert done == Completion("seen")


CALL = '{"name": "get_layer_info", "arguments": {"layer_name": "model.layers.0"}}'


@pytest.mark.parametrize(
    "text",
    [
        f"A call looks like `{CALL}` in JSON.",
        f"It would be '{CALL}' then.",
        f"```python\ncall = {CALL}\nrun(call)\n```",
        f"```python\nprint({CALL})\n```",
        f"```python\nparse('{CALL}')\n```",
        f'```python\ntext = r"""{CALL}"""\n```',
        f"<think>{CALL}</think>",
        f"A call like {CALL} is written in one line.",
        'No, a reply like {"complete": true} is not a complete construct.',
        json.dumps({"tool": "get_layer_info", "result": json.loads(CALL)}),
        json.dumps({"tools": [{"name": "get_layer_info", "arguments": {}}]}),
        '{"name": "get_layer_info", "class": "Linear", "sizes": [64, 64]}',
        '{"name": "get_layer_info"}',
        '{"function": "get_layer_info", "calls": 3}',
        'get_layer_info(layer_name="model.layers.0")',
        "I would call get_layer_info with the arguments {layer_name}.",
        "A tool is called inside `<tool_call>` tags, or `<function=NAME>`.",
        json.dumps(
            {"name": "get_layer_info", "description": "One layer.", "parameters": {"layer_name": "text"}}
        ),
        f"For example {CALL}, or else {CALL}.",
    ],
)
def test_what_only_speaks_of_a_call_is_none(text: str) -> None:
    for forms in (OWN_FORMS, NATIVE):
        assert isinstance(parse(text, forms), Unusable)


FAILURES = [
    "I will look.",
    '{"tool_call": {"function": "f"',
    '```json\n"tool_call": look',
    "<tool_call>look</tool_call>",
    'TOOL_RESULTS: {"layers": 3}',
    "<think>and so",
    '<think>{"tool_call": {}}</think>',
    '{"tool_call": "f"}',
    '{"tool_call": {"arguments": {}}}',
    '{"tool_call": {"function": "f", "x": 1}}',
    '{"tool_call": {"function": "f", "name": "g"}}',
    '{"tool_call": {"function": "f", "args": {}, "params": {}}}',
    '{"tool_call": {"function": "f", "arguments": "[1"}}',
    '{"tool_call": {"function": "f", "arguments": "{\\"a\\": NaN}"}}',
    '{"tool_call": {"function": "f", "arguments": {"a": "' + "x" * 20000 + '"}}}',
    '{"tool_call": {"function": "f"}, "complete": true}',
    '{"tool_call": {"function": "f"}}, "arguments": {}',
    '{"tool_call": {"function": "f"}} {"arguments": {}}',
    '{"tool_call": {"function": "f"}} {"a": 1}',
    '{"complete": 1}',
    '{"complete": true, "function": "f"}',
    '{"complete": true} <tool_call>',
    '{"name": "get_layer_inf", "arguments": {}}',
    '{"name": "get_layer_info", "arguments": {"layer_name": {"type": "string"}}}',
]


@pytest.mark.parametrize("truncated", [False, True])
@pytest.mark.parametrize("text", FAILURES)
def test_a_message_is_written_in_the_forms_of_the_dialect(text: str, truncated: bool) -> None:
    other = CallForms("WRITE-CALL", "WRITE-COMPLETE", finish="f-i-n")
    own, said = (parse(text, forms, truncated=truncated) for forms in (OWN_FORMS, other))
    assert own.code == said.code
    assert said.message == own.message.replace(CALL_FORM, other.call).replace(COMPLETE_FORM, other.complete)
    assert other.call in said.message or other.complete in said.message


def test_the_answer_to_an_early_claim_is_in_the_forms_of_the_dialect() -> None:
    assert nothing_done().message.endswith(COMPLETE_FORM) and CALL_FORM in nothing_done().message
    assert (
        nothing_done(NATIVE).message.endswith(NATIVE.complete) and NATIVE.call in nothing_done(NATIVE).message
    )
