"""Results of any shape fit their budget of tokens, stay JSON and count what is gone; none can break a run."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.sessions import random_model

from introspect.prompt.formats import ChatML
from introspect.tools.base import Tool
from introspect.tools.calls.actions import CallRequest
from introspect.tools.calls.execution import ToolOutcome, execute
from introspect.tools.calls.shortening import RESULT_HEADER, result_message, shorten_message
from introspect.tools.context import ToolContext, to_json
from introspect.tools.note_store import NoteStore
from introspect.tools.plain_data import MAX_VALUES, plain

Count = Callable[[str], int]

keys = st.text(max_size=6) | st.sampled_from(["a", "a_left_out", "a_left_out_", "keys_left_out"])
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=30)
    | st.integers(30, 900).map(lambda n: "lorem ipsum " * (n // 12))
)
small = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(keys, inner, max_size=6),
    max_leaves=12,
)
results = (
    small
    | st.builds(lambda item, n: [item] * n, small, st.integers(1, 300))
    | st.builds(lambda item, n: {f"k{i}": item for i in range(n)}, small, st.integers(1, 200))
)


def check_marks(whole: Any, shown: Any) -> None:
    """Fail where something of `whole` is not in `shown` and no mark counts it."""
    if isinstance(whole, dict) and isinstance(shown, dict):
        gone = [key for key in whole if key not in shown]
        if gone:
            assert shown[free_name(whole, "keys")] == f"{len(gone)} keys"
        for key in whole.keys() & shown.keys():
            beside = shown.get(free_name(whole, key))
            check_value(whole[key], shown[key], beside)
    elif whole != shown:
        check_value(whole, shown, None)


def free_name(whole: dict[str, Any], key: str) -> str:
    name = key + "_left_out"
    while name in whole:
        name += "_"
    return name


def check_value(whole: Any, shown: Any, beside: str | None) -> None:
    if isinstance(whole, str) and isinstance(shown, str) and whole != shown:
        kept, mark = (shown, beside) if beside else inner(shown)
        assert whole.startswith(kept) and mark == f"{len(whole) - len(kept)} characters"
    elif isinstance(whole, list) and isinstance(shown, list):
        kept, mark = shown, beside
        if beside is None and len(shown) and shown != whole and isinstance(shown[-1], str):
            rest, told = inner(shown[-1])
            if told and told.endswith("items"):
                kept, mark = shown[:-1], told
                assert rest == ""
        if len(kept) < len(whole):
            assert mark == f"{len(whole) - len(kept)} items"
        assert len(kept) <= len(whole)
        for item, seen in zip(whole, kept, strict=False):
            check_marks(item, seen)
    elif isinstance(whole, dict):
        check_marks(whole, shown)
    elif whole != shown:
        assert shown == f"… {len(str(whole))} characters left out"


def inner(text: str) -> tuple[str, str | None]:
    found = re.fullmatch(r"(.*)… (\d+ \w+) left out", text, re.S)
    return (found[1], found[2]) if found else (text, None)


def check(result: Any, budget: int, count: Count) -> None:
    text = shorten_message(result_message("look", True, result), budget, count)
    assert text.startswith(RESULT_HEADER) and count(text) <= budget
    body = json.loads(text.removeprefix(RESULT_HEADER))
    if body.get("result") == result:
        return
    if isinstance(body["result"], str) and "left out" in body["result"] and "result_left_out" not in body:
        return
    assert body["shortened"] == "call the tool again"
    check_marks({"tool": "look", "result": result}, {k: v for k, v in body.items() if k != "shortened"})


@given(result=results, budget=st.integers(40, 4000))
def test_any_result_fits_any_budget_of_characters(result: Any, budget: int) -> None:
    check(result, budget, len)


@pytest.fixture(scope="session")
def real_count(real_format: Any) -> Count:
    return lambda text: len(real_format.encode(text))


@given(result=results, budget=st.integers(16, 700))
def test_any_result_fits_any_budget_of_real_tokens(real_count: Count, result: Any, budget: int) -> None:
    check(result, budget, real_count)


@given(result=results, first=st.integers(300, 3000), second=st.integers(60, 600))
def test_what_is_cut_twice_still_fits_and_is_json(result: Any, first: int, second: int) -> None:
    once = shorten_message(result_message("look", True, result), first, len)
    twice = shorten_message(once, second, len)
    assert len(twice) <= second
    json.loads(twice.removeprefix(RESULT_HEADER))


def test_counts_of_two_cuts_add_up() -> None:
    result = {"names": [f"name {i}" for i in range(200)], "rows": [[list(range(400))]], "text": "x" * 900}
    once = shorten_message(result_message("look", True, result), 700, len)
    body = json.loads(shorten_message(once, 300, len).removeprefix(RESULT_HEADER))["result"]
    assert body["names_left_out"] == f"{200 - len(body['names'])} items"
    assert body["text_left_out"] == f"{900 - len(body['text'])} characters"


@pytest.mark.parametrize("shape", ["list", "text", "objects", "keys", "deep", "one long item"])
def test_a_large_result_is_counted_in_small_pieces_only(shape: str) -> None:
    """What costs is the tokenizer: it must see no more than the search needs, however large the result is."""
    million = 1_000_000
    large: Any = {
        "list": list(range(million)),
        "text": "word " * million,
        "objects": [{"layer": i, "values": [0.5] * 10} for i in range(100_000)],
        "keys": {f"key {i}": i for i in range(300_000)},
        "deep": {"a": {"b": {"c": {"d": ["word"] * million}}}},
        "one long item": [["x" * 10 * million], 1],
    }[shape]
    seen: list[int] = []

    def count(text: str) -> int:
        seen.append(len(text))
        return len(text) // 4

    text = shorten_message(result_message("look", True, large), 500, count)
    assert 1000 < len(text) <= 2003 and "left" in text
    assert len(seen) < 20 and max(seen) <= 16 * 500 + 200


def ran(context: ToolContext, returned: Any) -> ToolOutcome:
    def probe(context: ToolContext) -> Any:
        """Return what the test wants."""
        if isinstance(returned, BaseException):
            raise returned
        return returned

    outcome = execute({"probe": Tool.from_function(probe)}, context, CallRequest("probe", {}, ""))
    to_json(outcome.result).encode()
    body = json.loads(outcome.text.removeprefix(RESULT_HEADER), parse_constant=pytest.fail)
    assert ("error" in body) == (not outcome.ok)
    return outcome


@pytest.fixture(scope="module")
def context(byte_format: ChatML) -> ToolContext:
    return ToolContext(random_model(), byte_format.encode, byte_format.decode, NoteStore(), {}, 900)


@pytest.mark.parametrize(
    ("returned", "recorded"),
    [
        ({"mean": math.nan, "max": math.inf, "min": -math.inf}, ["NaN", "Infinity", "-Infinity"]),
        ({"a": {"y", "x"}, "b": (1, 2)}, [["x", "y"], [1, 2]]),
        ({"a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True)}, [0.5, 3, True]),
        ({"a": torch.tensor([1.0, math.nan], dtype=torch.bfloat16)}, [[1.0, "NaN"]]),
        ({"a": torch.tensor(2), "b": np.zeros((2, 1))}, [2, [[0.0], [0.0]]]),
        ({"a": "\ud83d\ude00 and \ud800"}, ["😀 and \ufffd"]),
        ({1: "a", None: "b", np.int64(2): "c"}, ["a", "b", "c"]),
    ],
)
def test_what_json_cannot_hold_is_written_in_its_words(
    context: ToolContext, returned: Any, recorded: list[Any]
) -> None:
    outcome = ran(context, returned)
    assert outcome.ok and list(outcome.result.values()) == recorded


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (endless(), "contains itself"),
        (object(), "holds a object"),
        (b"bytes", "holds a bytes"),
        ({(1, 2): 3}, "key that is no text"),
        ({1: "a", "1": "b"}, "two keys"),
        ([10**5000], "integer of 16610 bits"),
        (torch.zeros(MAX_VALUES + 1, dtype=torch.bool), "array of"),
        (RuntimeError("index 9 is out of bounds\nfor <x at 0x7f1ca1dd0900>"), "RuntimeError: index 9"),
        (ValueError("<x at 0x7f1ca1dd0900>"), "ValueError: <x at 0x…>"),
        (KeyError(), "KeyError"),
        (SystemExit("bye"), "SystemExit: bye"),
        (RecursionError("deep"), "RecursionError"),
        (UnicodeError("\ud800"), "UnicodeError: \ufffd"),
        (MemoryError(), "more memory than there is"),
    ],
)
def test_what_a_tool_breaks_is_told_to_the_model_and_kept_for_people(
    context: ToolContext, returned: Any, said: str
) -> None:
    outcome = ran(context, returned)
    assert not outcome.ok and said in outcome.result and "try other arguments" in outcome.result
    assert outcome.traceback is not None and "Traceback" in outcome.traceback


def test_an_interrupt_goes_through(context: ToolContext) -> None:
    with pytest.raises(KeyboardInterrupt):
        ran(context, KeyboardInterrupt())


def test_the_record_has_the_whole_result_and_the_model_what_fits(context: ToolContext) -> None:
    outcome = ran(context, {"names": [f"name {i}" for i in range(1000)]})
    assert len(outcome.result["names"]) == 1000
    assert len(context.encode(outcome.text)) <= context.max_result_tokens
    assert '"shortened": "ask for less at a time"' in outcome.text


def test_paging_with_numbers_that_are_none_fits(context: ToolContext) -> None:
    page = context.fit_page(lambda shown: {"values": [math.nan] * shown, "left_out": 999 - shown}, 999)
    assert 0 < len(page["values"]) < 999 and context.count_tokens(page) <= context.max_result_tokens


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary()
    | st.sampled_from([np.float64("nan"), np.float32(1), torch.tensor(math.inf), np.arange(3), object()]),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner)
    | st.dictionaries(st.text(st.characters(), max_size=3) | st.integers() | st.floats(), inner, max_size=4)
    | st.sets(st.integers() | st.text(st.characters(), max_size=3) | st.floats(), max_size=4),
    max_leaves=10,
)  # fmt: skip


@given(returned=anything)
def test_nothing_that_a_tool_returns_breaks_the_run(context: ToolContext, returned: Any) -> None:
    outcome = ran(context, returned)
    assert not outcome.ok or plain(outcome.result) == outcome.result
