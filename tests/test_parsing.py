"""What a reply asks for: every form that is accepted, every failure that was seen."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from introspect.tools.calls.actions import CallRequest, Completion, Unusable
from introspect.tools.calls.call_keys import MAX_CALL_BYTES
from introspect.tools.calls.parsing import MAX_BROKEN, parse_reply

ARGUMENTS = {"layer_name": "model.layers.0.mlp", "text": 'a "quoted" {brace} } and \\ slash'}
OBJECT = json.dumps({"reasoning": "why", "tool_call": {"function": "look", "arguments": ARGUMENTS}})

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
prose = st.text(st.characters(exclude_characters="{}<>=(#/"), max_size=60)


def parse(text: str, truncated: bool = False) -> Any:
    return parse_reply(text, truncated, 400)


@given(
    before=prose,
    after=prose,
    name=st.text(max_size=20),
    arguments=st.dictionaries(st.text(max_size=8), values, max_size=4),
)
def test_a_call_is_found_anywhere(before: str, after: str, name: str, arguments: dict[str, Any]) -> None:
    call = json.dumps({"reasoning": "r", "tool_call": {"function": name, "arguments": arguments}})
    for text in (
        f"{before}{call}",
        f"{call}{after}",
        f"{before}\n{call}\n{after}",
        f"{before}\n```json\n{call}\n```\n{after}",
    ):
        assert parse(text) == CallRequest(name, arguments, "r")


@given(before=prose, arguments=st.dictionaries(st.text(max_size=8), values, max_size=4))
def test_native_tags_are_a_call(before: str, arguments: dict[str, Any]) -> None:
    call = json.dumps({"name": "look", "arguments": arguments})
    assert parse(f"{before}<tool_call>\n{call}\n</tool_call>") == CallRequest("look", arguments, "")
    assert parse(f"{before}<tool_call>{call}") == CallRequest("look", arguments, "")


@given(text=st.text(max_size=200))
def test_no_text_breaks_it(text: str) -> None:
    assert isinstance(parse(text), CallRequest | Completion | Unusable)


@given(text=st.text(st.sampled_from('{}[]":,\\ntool_call123<>/'), max_size=300))
def test_no_near_json_breaks_it(text: str) -> None:
    assert isinstance(parse(text), CallRequest | Completion | Unusable)


def test_completion() -> None:
    assert parse('It is done. {"reasoning": "seen", "complete": true}') == Completion("seen")
    assert isinstance(parse('{"complete": false}'), Unusable)


def test_a_quoted_result_is_no_call() -> None:
    result = json.dumps({"layers": 36, "nested": {"function": "look", "arguments": {}}})
    assert parse(f"The result {result} shows it.\n{OBJECT}") == CallRequest("look", ARGUMENTS, "why")


@pytest.mark.parametrize(
    ("text", "truncated", "code", "said"),
    [
        ("I will look at the layers.", False, "no-call", "Are you done?"),
        (OBJECT[:60], True, "truncated", "cut at 400 tokens"),
        (OBJECT[:-1], False, "invalid-json", "not valid JSON"),
        (OBJECT.replace('"why"', "why"), False, "invalid-json", "not valid JSON"),
        (OBJECT + "\n" + OBJECT, False, "several-calls", "2 calls"),
        (OBJECT + '{"complete": true}', False, "several-calls", "2 calls"),
        ('{"tool_call": {"function": "look"', False, "invalid-json", "not valid JSON"),
        ('```json\n"tool_call": look', False, "unclosed-fence", "never ends"),
        ('```json\n"tool_call": look\n```', False, "incomplete-call", "no function"),
        ('{"reasoning": "x", "tool_call": {"arguments": {}}}', False, "incomplete-call", "no function"),
        ('I called it. TOOL_RESULTS: {"layers": 3}', False, "claimed-call", "no call was run"),
        ('{"tool_call": {"function": "f", "arguments": {"a": NaN}}}', False, "invalid-json", "NaN"),
        ('{"tool_call": {"function": "f", "arguments": {"a": 1, "a": 2}}}', False, "invalid-json", "twice"),
        (
            '{"tool_call": {"function": "f", "arguments": {"a": ' + "[" * 60 + "]" * 60 + "}}}",
            False,
            "invalid-json",
            "deeper",
        ),
        (
            '{"tool_call": {"function": "f", "arguments": {"a": "' + "x" * 20000 + '"}}}',
            False,
            "invalid-json",
            "longer",
        ),
        ('{"tool_call": ' + '{"a":' * 100000, False, "invalid-json", "deep"),
    ],
)
def test_each_failure_has_its_own_message(text: str, truncated: bool, code: str, said: str) -> None:
    action = parse(text, truncated)
    assert isinstance(action, Unusable)
    assert action.code == code
    assert said in action.message


def test_a_call_that_is_whole_counts_though_the_reply_was_cut() -> None:
    assert isinstance(parse(OBJECT + " and then I", truncated=True), CallRequest)


def written(arguments: str) -> str:
    return '{"tool_call": {"function": "f", "arguments": ' + arguments + "}}"


@given(letter=st.sampled_from(["x", "é", "€", "😀", "\\n", "\\u00e9"]), over=st.integers(-3, 3))
def test_arguments_are_measured_in_bytes_of_utf8(letter: str, over: int) -> None:
    size = len(json.dumps(json.loads(f'"{letter}"'), ensure_ascii=False).encode()) - 2
    room = MAX_CALL_BYTES - len('{"a": ""}')
    repeated = room // size + over
    filler = "x" * (room % size)
    action = parse(written('{"a": "' + letter * repeated + filler + '"}'))
    assert isinstance(action, CallRequest) == (over <= 0)
    assert isinstance(action, CallRequest) or "longer than 16384 bytes" in action.message


def test_reasoning_does_not_count_as_arguments() -> None:
    long = json.dumps({"reasoning": "x" * 20000, "tool_call": {"function": "f", "arguments": {}}})
    assert isinstance(parse(long), CallRequest)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("NaN", "NaN is not"),
        ("-Infinity", "-Infinity is not"),
        ("1e999", "too large"),
        ("-1e999", "too large"),
        ("1" * 5000, "has 5000 digits"),
        ("1" * 1_000_000, "has 1000000 digits"),
        ('"\\ud800"', "\\ud800 in it is half of a character"),
        ('{"\\udfff": 1}', "half of a character"),
        ('{"b": 1, "b": 1}', "'b' stands in it twice"),
        ("[" * 29 + "1" + "]" * 29, ""),
        ("[" * 30 + "1" + "]" * 30, "deeper than 32"),
    ],
)
def test_values_that_are_refused_at_any_place(value: str, said: str) -> None:
    for text in (written(f'{{"a": {value}}}'), written(f'{{"a": [{{"c": {value}}}]}}')):
        action = parse(text)
        if said:
            assert isinstance(action, Unusable) and action.code == "invalid-json" and said in action.message
            action.message.encode()
        elif text == written(f'{{"a": {value}}}'):
            assert isinstance(action, CallRequest)


any_text = st.text(st.characters(), max_size=6) | st.text(st.characters(categories=["Cs"]), max_size=2)


@given(
    arguments=st.dictionaries(any_text, any_text | st.floats() | st.integers()), name=any_text, why=any_text
)
def test_what_a_call_holds_can_always_be_encoded(arguments: dict[str, Any], name: str, why: str) -> None:
    call = json.dumps({"reasoning": why, "tool_call": {"function": name, "arguments": arguments}})
    action = parse(call)
    # Two halves of a surrogate pair in a row are one character to JSON.
    written = json.loads(call)
    try:
        json.dumps(written, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        assert isinstance(action, Unusable)
        action.message.encode()
    else:
        held = written["tool_call"]
        assert action == CallRequest(held["function"], held["arguments"], written["reasoning"])


def test_a_call_is_found_behind_broken_braces_up_to_a_limit() -> None:
    assert isinstance(parse("{" * (MAX_BROKEN - 1) + " " + OBJECT), CallRequest)
    assert isinstance(parse("{" * 1_000_000 + " " + OBJECT), Unusable)
