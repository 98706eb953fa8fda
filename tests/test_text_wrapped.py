"""A log whose lines stand in JSON, as containers and notebooks keep them, is read as the log itself."""

from __future__ import annotations

import json
import re

import pytest
from support.record_examples import CALL, PROSE
from support.text_logs import log_of

from introspect.runlog.text_reader import parse_text

REPLIES = [PROSE + CALL, "Two lines.\n```json\n" + CALL, 'A "quoted" word, \\n and é, 数.', "Enough."]
LOG = log_of(*REPLIES)


def _in_json(text: str, how: str) -> str:
    lines = text.splitlines(keepends=True)
    if how == "container":
        times = (f"2025-11-10T21:40:{place % 60:02d}.1Z" for place in range(len(lines)))
        objects = [
            {"log": line, "stream": "stderr", "time": time} for line, time in zip(lines, times, strict=True)
        ]
        return "".join(json.dumps(one) + "\n" for one in objects)
    if how == "container, long lines in parts":
        parts = [line[place : place + 50] for line in lines for place in range(0, len(line), 50)]
        return "".join(json.dumps({"log": part, "stream": "stdout"}) + "\n" for part in parts)
    if how == "service":
        objects = [
            {"stream_name": "stderr", "time": str(place), "data": line} for place, line in enumerate(lines)
        ]
        return "[" + "\n,".join(map(json.dumps, objects)) + "\n]\n"
    if how == "collector":
        return "".join(json.dumps({"id": 1, "message": line.rstrip("\n")}) + "\n" for line in lines)
    if how == "one string":
        return json.dumps(text)
    output = {"name": "stderr", "output_type": "stream", "text": lines}
    cell = {"cell_type": "code", "source": ["!python run.py\n", "pass"], "outputs": [output]}
    return json.dumps({"cells": [cell], "nbformat": 4}, indent=1)


@pytest.mark.parametrize(
    "how",
    ["container", "container, long lines in parts", "service", "collector", "one string", "notebook"],
)
@pytest.mark.parametrize("painted", [False, True])
def test_a_log_inside_json_is_read_as_the_log(how: str, painted: bool) -> None:
    text = re.sub(r"^2025.*$", "\x1b[32m\\g<0>\x1b[0m", LOG, flags=re.M) if painted else LOG
    plain, wrapped = parse_text(text), parse_text(_in_json(text, how))
    assert [(entry.tag, entry.level, entry.text) for entry in wrapped.entries] == [
        (entry.tag, entry.level, entry.text) for entry in plain.entries
    ]
    assert [seen.text for seen in wrapped.generations] == [seen.text for seen in plain.generations]
    lines = {number for number, line in enumerate(_in_json(text, how).split("\n"), 1) if line.strip(" []},")}
    if how in ("container", "service", "collector"):
        assert wrapped.unread.lines <= 1 and not any(
            finding.severity == "corrupt" for finding in wrapped.findings
        )
        assert [entry.line for entry in wrapped.entries] == [entry.line for entry in plain.entries]
    if how == "notebook":
        assert wrapped.unread.lines > 10 and wrapped.unread.lines + text.count("\n") >= len(lines)


def test_json_that_holds_no_log_is_none() -> None:
    assert parse_text(json.dumps({"log": "nothing", "time": "2025-11-10 21:40:03"})).records == 0
    assert parse_text("[" * 5000 + '{"a": "2025-11-10 21:40:03,120 - a - INFO - x"}').records <= 1


def test_json_in_a_reply_unwraps_nothing() -> None:
    quoted = json.dumps({"log": "2025-11-10 21:40:03,120 - phase1a - INFO - [MODEL] not me"})
    text = log_of("Look:\n" + quoted, "Enough.")
    assert [seen.text for seen in parse_text(text).generations] == ["Look:\n" + quoted, "Enough."]
