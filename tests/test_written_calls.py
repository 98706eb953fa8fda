"""Calls that SmolLM2-135M-Instruct wrote, by the form that it was shown: what each was read as stays so.

`scripts/generate_replies.py MODEL calls --int8 --replies 306 --rows 6 --seed 60000` wrote them; `seed` and
`temperature` are those of the batch. Up to three of each kind of outcome were kept for a form.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from introspect.tools.calls.actions import CallForms, CallRequest, Completion, Unusable
from introspect.tools.calls.parsing import parse_reply
from introspect.tools.instruments.registry import ALL_TOOLS

LINES = (Path(__file__).parent / "replies" / "smollm2.jsonl").read_text(encoding="utf-8").splitlines()
REPLIES: list[dict[str, Any]] = [json.loads(line) for line in LINES]
FORMS = CallForms("WRITE-CALL", "WRITE-COMPLETE", finish="finish_experiment")
NEVER_WRITTEN = {"text-of-object", "barred"}
"""Forms that it was shown and wrote for no tool on offer, or not whole."""


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: f"{reply['form']}-{reply['seed']}")
def test_a_reply_of_a_real_model_is_read_as_it_was_meant(reply: dict[str, Any]) -> None:
    action = parse_reply(reply["text"], False, 72, FORMS, ALL_TOOLS.keys())
    outcome, *expected = reply["read"]
    if outcome == "call":
        assert action == CallRequest(*expected, reasoning="")
    elif outcome == "completion":
        assert action == Completion(*expected)
    else:
        assert isinstance(action, Unusable) and action.code == expected[0]


def test_every_form_that_is_accepted_was_written_by_a_real_model() -> None:
    written = {reply["form"] for reply in REPLIES if reply["read"][0] != "refused"}
    shown = {reply["form"] for reply in REPLIES} - {"schema"}
    assert shown - written <= NEVER_WRITTEN
    assert any(reply["read"] == ["refused", "schema-echoed"] for reply in REPLIES)
