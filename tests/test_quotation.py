"""A call that a reply only shows is not run, and of two calls in a reply neither is lost without a word."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from introspect.tools.calls.actions import OWN_FORMS, CallForms, CallRequest, Completion, Unusable
from introspect.tools.calls.parsing import parse_reply
from introspect.tools.instruments.registry import ALL_TOOLS

GIVEN = {"category": "weights"}
BARE = json.dumps({"name": "query_memory", "arguments": GIVEN})
FORMS_OF_A_CALL = {
    "own": json.dumps({"reasoning": "r", "tool_call": {"function": "query_memory", "arguments": GIVEN}}),
    "bare": BARE,
    "tags": f"<tool_call>\n{BARE}\n</tool_call>",
    "named": f"<function=query_memory>{json.dumps(GIVEN)}</function>",
    "brackets": f"[TOOL_CALLS][{BARE}]",
}
NATIVE = CallForms("WRITE-CALL", "WRITE-COMPLETE", finish="finish_experiment")
each_form = pytest.mark.parametrize("call", FORMS_OF_A_CALL.values(), ids=FORMS_OF_A_CALL)


def parse(text: str, truncated: bool = False, forms: CallForms = OWN_FORMS) -> Any:
    return parse_reply(text, truncated, 400, forms, tuple(ALL_TOOLS))


def is_the_call(action: Any) -> bool:
    return isinstance(action, CallRequest) and (action.function, action.arguments) == ("query_memory", GIVEN)


@each_form
@pytest.mark.parametrize(
    "shown",
    [
        "I could write {} but I will not.",
        "I could write {}, but I will not.",
        "The form is `{}`, and I have none to make.",
        "The form is “{}”, and I have none to make.",
        "call = {}\nrun(call)",
        "print({})\n",
        "print('{}')\n",
        "<!-- {} -->",
        "<!-- a draft:\n{}\n-->\nI look.",
        "/* {} */\nI look.",
        "// {}\nI look.",
        "> {}\n\nThat is what I wrote.",
        "I said:\n> > {}\nand so on.",
    ],
)
def test_a_call_that_is_only_shown_is_none_and_the_model_is_told(shown: str, call: str) -> None:
    action = parse(shown.replace("{}", call))
    assert isinstance(action, Unusable) and action.code == "quoted-call", action
    assert is_the_call(parse(f"I look. {call}")) and isinstance(
        parse(shown.replace("{}", call), True), Unusable
    )


@each_form
@pytest.mark.parametrize(
    "meant",
    [
        "{}",
        "I look: {}",
        "I look: {}\nThen I see.",
        "I look.\n{} and then I",
        "I look at the weights. {} Then I see.",
        "```\n{}\n```\nThen I see.",
        "`{}`",
        "I call `{}`",
        "> So I look.\n\n{}\nThen I see.",
        "<!-- a draft -->\n{}\nThen I see.",
        "x = 3\n{}\nThen I see.",
        "# A plan\n{}\nThen I see.",
        "I will not write {}",
        "The form, x = {}",
        "[{}]",
    ],
)
def test_a_call_at_the_end_or_on_lines_of_its_own_is_meant(meant: str, call: str) -> None:
    assert is_the_call(parse(meant.replace("{}", call)))


@each_form
def test_a_call_beside_one_that_is_shown_is_refused(call: str) -> None:
    for text in (f"I could write {call} but not now.\n{call}", f"I call {call}, or else {call}."):
        assert parse(text).code == "several-calls"


BROKEN = [
    '{"tool_call": {"function": "record_observation", "arguments": {"obs_type": "finding"}}',
    '{"reasoning": "r", "tool_call": {"function": "record_observation", "arguments": {"obs_type": finding}}}',
    "{'tool_call': {'function': 'record_observation', 'arguments': {}}}",
    '{tool_call: {function: "record_observation"}}',
    "{”tool_call”: {”function”: ”record_observation”}}",
    '<tool_call>{"name": "record_observation", "arguments": {"obs_type": "finding"}</tool_call>',
    '<tool_call>{"name": record_observation}</tool_call>',
    "<tool_call>record_observation(obs_type='finding')</tool_call>",
    '{"name": "record_observation", "arguments": {"obs_type": "finding"}',
    '```json\n{"name": "record_observation", "arguments": {,}}\n```',
]


@each_form
@pytest.mark.parametrize("broken", BROKEN)
def test_a_whole_call_does_not_run_beside_a_broken_one(broken: str, call: str) -> None:
    for text in (f"{broken}\n{call}", f"{call}\n{broken}", f"I look.\n{call}\nThen:\n{broken}"):
        for truncated in (False, True):
            action = parse(text, truncated)
            assert isinstance(action, Unusable), (action, text)
    assert parse(f"{broken}\n{call}").code == parse(f"{call}\n{broken}").code == "several-calls"
    assert is_the_call(parse(f"<think>{broken}</think>{call}"))
    assert is_the_call(parse(f"a set {{x, y}} <think>{broken}</think>\n{call}"))


@each_form
@pytest.mark.parametrize(
    "other",
    [
        "the set {a, b}",
        "f(x) = {1, if",
        'The form is `{"reasoning": …, "tool_call": {…}}`, as I was told.',
        "I use `<tool_call>` now.",
        "I use <tool_call> tags for {this}.",
        '{"layers": 36, "broken": }',
    ],
)
def test_braces_that_are_no_call_are_beside_one(other: str, call: str) -> None:
    assert is_the_call(parse(f"{other}\n{call}"))
    assert is_the_call(parse(f"{call}\n{other}"))


@each_form
@pytest.mark.parametrize(
    "result",
    [
        "TOOL_RESULTS: {}",
        "TOOL_RESULTS:\n{}",
        "TOOL_RESULTS:\n```json\n{}\n```",
        "<tool_response>\n{}\n</tool_response>",
        "<tool_response>{}",
        "<tool_response>\nIt gave this: {}\n</tool_response>\n",
        '<tool_response>\n{"layers": 3}\n{}\n</tool_response>',
        "<|tool_response|>{}",
        "[TOOL_RESULTS]{}[/TOOL_RESULTS]",
        "<function_results>{}</function_results>",
    ],
)
def test_what_the_model_wrote_as_a_result_is_not_acted_on(result: str, call: str) -> None:
    text = result.replace("{}", call)
    action = parse(text)
    assert isinstance(action, Unusable) and action.code == "claimed-call"
    assert is_the_call(parse(f"{call}\n{text}"))
    assert is_the_call(parse(f"TOOL_RESULTS:\n{json.dumps({'layers': 3})}\nSo I look.\n{call}"))
    assert is_the_call(parse(f"I wait for a <tool_response> now.\n{call}"))
    for forms, done in (
        (OWN_FORMS, '{"reasoning": "x", "complete": true}'),
        (NATIVE, '{"name": "finish_experiment", "arguments": {"summary": "x"}}'),
    ):
        assert parse(done, forms=forms) == Completion("x")
        ended = parse(result.replace("{}", done), forms=forms)
        assert isinstance(ended, Unusable) and ended.code == "claimed-call"


def test_a_tag_in_a_sentence_opens_no_call() -> None:
    text = 'He said <tool_call> is a tag. {"name": "x", "arguments": {}} is an object.'
    assert isinstance(parse(text), Unusable)


@pytest.mark.parametrize(
    "text",
    [
        "{”reasoning”: ”r”, ”tool_call”: {”function”: ”query_memory”, ”arguments”: {}}}",
        "{„reasoning“: „r“, „tool_call“: {„function“: „query_memory“, „arguments“: {}}}",
        "{“name”: “query_memory”, “arguments”: {}}",
        '{tool_call: {function: "query_memory", arguments: {}}}',
    ],
)
def test_a_call_in_other_quotes_or_none_is_told_what_is_wrong_with_it(text: str) -> None:
    action = parse(text)
    assert isinstance(action, Unusable) and action.code == "invalid-json"


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"query_memory": {"limit": 3}}, "'query_memory'"),
        ({"tool": "query_memory", "arguments": {}}, "'tool'"),
        ({"tool_name": "query_memory", "parameters": {}}, "'tool_name'"),
    ],
)
def test_a_tool_that_is_named_elsewhere_is_told_where(value: dict[str, Any], named: str) -> None:
    action = parse(json.dumps(value))
    assert isinstance(action, Unusable) and action.code == "incomplete-call" and named in action.message
    assert parse(json.dumps({"tool": "query_memory", "result": {}})).code == "no-call"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "exclusiveMinimum": 1},
        {"type": "integer", "exclusiveMaximum": 9, "multipleOf": 2},
        {"type": "string", "pattern": "^a"},
        {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
        {"$ref": "#/$defs/Limit"},
    ],
)
def test_a_schema_with_any_of_its_keywords_is_no_value(schema: dict[str, Any]) -> None:
    whole = {"$schema": "x", "type": "object", "properties": {"limit": schema}, "$defs": {}}
    for arguments in ({"limit": schema}, whole):
        assert parse(json.dumps({"name": "query_memory", "arguments": arguments})).code == "schema-echoed"


PARTS = [
    "<tool_response>",
    "</tool_response>",
    "TOOL_RESULTS:",
    "<!--",
    "-->",
    "`",
    "> ",
    "\n",
    " a ",
    "{",
    "}",
]


@given(st.lists(st.sampled_from([*PARTS, *FORMS_OF_A_CALL.values(), *BROKEN]), max_size=10).map("".join))
def test_a_call_behind_everything_else_runs_or_is_refused_with_a_code(text: str) -> None:
    action = parse(text)
    assert isinstance(action, CallRequest | Completion) or (action.code and action.message)
