"""A result's part for the record alone: the model never reads it, and it never breaks a call."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.sessions import random_model
from support.tool_cases import TEXT

from introspect.events import ToolResult
from introspect.prompt.formats import ChatML
from introspect.runlog.codec import canonical, to_plain_record, typed_event
from introspect.runlog.textlog import messages
from introspect.tools.base import Recorded, Tool
from introspect.tools.calls.actions import CallRequest
from introspect.tools.calls.execution import MOST_RECORD_CHARACTERS, ToolOutcome, execute
from introspect.tools.context import ToolContext
from introspect.tools.instruments.activations import MAX_TEXT_TOKENS
from introspect.tools.instruments.registry import ALL_TOOLS
from introspect.tools.note_store import NoteStore

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=99)
    | st.binary() | st.sampled_from([np.arange(3), torch.tensor(math.inf), object()]),
    lambda inner: st.lists(inner, max_size=9)
    | st.dictionaries(st.text(st.characters(), max_size=3) | st.integers(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


class Speechless(Exception):
    """An error that cannot say what it is."""

    def __str__(self) -> str:
        raise ValueError


class Mute:
    """An array that cannot be read, for a reason that cannot be told."""

    shape = ()

    def tolist(self) -> Any:
        raise Speechless


class Hostile(dict[str, Any]):
    """A mapping that cannot be read."""

    def items(self) -> Any:
        raise RuntimeError("no")


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def ran(context: ToolContext, returned: Any) -> ToolOutcome:
    def probe(context: ToolContext) -> Any:
        """Return what the test wants."""
        return returned

    return execute({"probe": Tool.from_function(probe)}, context, CallRequest("probe", {}, ""))


@pytest.fixture(scope="module")
def context(byte_format: ChatML) -> ToolContext:
    return ToolContext(random_model(), byte_format.encode, byte_format.decode, NoteStore(), {}, 900)


@given(anything, anything)
def test_what_the_model_reads_is_the_same_with_and_without_the_part(
    context: ToolContext, result: Any, record: Any
) -> None:
    plain, recorded = ran(context, result), ran(context, Recorded(result=result, record=record))
    assert recorded.text.encode() == plain.text.encode()
    assert (recorded.ok, recorded.result) == (plain.ok, plain.result) and plain.record is None
    text = json.dumps(recorded.record, allow_nan=False, ensure_ascii=False)
    assert len(text) <= MOST_RECORD_CHARACTERS
    assert recorded.ok or recorded.record is None


@given(record=anything)
def test_what_is_recorded_is_read_again(context: ToolContext, record: Any) -> None:
    """A part of any kind, such as a list, leaves a line that is no damage to the record."""
    part = ran(context, Recorded(result=1, record=record)).record
    event = ToolResult(
        experiment=0, turn=1, function="probe", ok=True, result=1, text="", seconds=0.0, record=part
    )
    assert typed_event(json.loads(canonical(to_plain_record(event)))) == event


@pytest.mark.parametrize("record", [True, 7, 1.5, "a\x1b", [1, 2], {"a\x1b": 1}])
def test_the_text_log_names_a_part_of_any_kind(context: ToolContext, record: Any) -> None:
    part = ran(context, Recorded(result=1, record=record)).record
    event = ToolResult(
        experiment=0, turn=1, function="probe", ok=True, result=1, text="", seconds=0.0, record=part
    )
    _, told = messages(event)
    assert told.text.isprintable() and told.text.startswith("For the record alone")


def test_an_error_that_cannot_say_what_it_is_ends_no_run(context: ToolContext) -> None:
    outcome = ran(context, Mute())
    assert not outcome.ok and "Speechless" in outcome.text


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (object(), "holds a object"),
        (endless(), "contains itself"),
        (Hostile(a=1), "RuntimeError: no"),
        ("x" * MOST_RECORD_CHARACTERS, "characters of JSON; at most"),
        (torch.zeros(1 << 22), "array of"),
        ([10**5000], "integer of"),
        ({"a": Recorded(result=1)}, "holds a Recorded"),
        (Mute(), "Speechless"),
    ],
)
def test_a_part_that_is_unfit_is_left_out_with_the_reason(
    context: ToolContext, record: Any, reason: str
) -> None:
    outcome = ran(context, Recorded(result={"a": 1}, record=record))
    assert outcome.ok and outcome.result == {"a": 1} and outcome.text == ran(context, {"a": 1}).text
    assert list(outcome.record) == ["omitted"] and reason in outcome.record["omitted"]


def test_arrays_become_lists_and_numbers_that_are_none_become_words(context: ToolContext) -> None:
    outcome = ran(context, Recorded(result=0, record={"a": np.eye(2), "b": torch.tensor(math.nan)}))
    assert outcome.record == {"a": [[1.0, 0.0], [0.0, 1.0]], "b": "NaN"}


def executed(context: ToolContext, tool: str, **arguments: Any) -> ToolOutcome:
    outcome = execute(ALL_TOOLS, context, CallRequest(tool, arguments, ""))
    assert outcome.ok, outcome.result
    return outcome


def test_the_record_has_the_whole_map_of_a_head(context: ToolContext) -> None:
    context.processed_text = TEXT
    name = "model.layers.1.self_attn"
    part = executed(context, "get_attention_patterns", layer_name=name, head_idx=1).record
    ids = context.encode(TEXT)
    model = random_model()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(input_ids=torch.tensor([ids]), output_attentions=True, use_cache=False)
    own = output.attentions[1][0, 1].numpy()
    assert np.array(part["weights"]) == pytest.approx(own, rel=6e-4, abs=1e-6)
    assert part["tokens"] == [context.decode([one]) for one in ids]
    assert (part["kind"], part["layer"], part["head"]) == ("attention-map", name, 1)


def test_the_largest_map_fits_the_record(context: ToolContext) -> None:
    context.processed_text = next(
        text for n in range(MAX_TEXT_TOKENS, 0, -1) if len(context.encode(text := "a" * n)) <= MAX_TEXT_TOKENS
    )
    count = len(context.encode(context.processed_text))
    arguments = {"layer_name": "model.layers.0.self_attn", "head_idx": 0}
    part = executed(context, "get_attention_patterns", **arguments).record
    assert count > MAX_TEXT_TOKENS // 2 and np.array(part["weights"]).shape == (count, count)


def test_the_record_has_every_layer_of_the_lens_however_few_the_model_reads(context: ToolContext) -> None:
    outcome = executed(context, "logit_lens", text=TEXT, top_k=20)
    small = ToolContext(context.model, context.encode, context.decode, NoteStore(), {}, 60)
    short = executed(small, "logit_lens", text=TEXT, top_k=20)
    assert len(short.result["layers"]) == 1 < len(short.record["layers"])
    assert short.record == outcome.record and short.record["layers"] == outcome.result["layers"]
