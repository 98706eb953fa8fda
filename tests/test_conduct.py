"""Notes on a run's conduct, on logs made by hand, in both formats; none on clean ones."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from support.record_examples import conversation, generation, prune, written

from introspect import events as ev
from introspect.readers.conduct import conduct
from introspect.readers.replay import load
from introspect.runlog.history import Finding
from introspect.runlog.text_reader import parse_text

RULE = "=" * 80
CALL = '{{"reasoning": "next", "tool_call": {{"function": "{}", "arguments": {{"layer_name": "{}"}}}}}}'


class Log:
    """A log in the original's format, whose clock is told what each record takes."""

    def __init__(self) -> None:
        self.now = datetime(2025, 11, 10, 21, 0, 0)
        self.text = ""
        for message in (RULE, "PHASE 1a: Baseline", RULE, "[INITIALIZATION] Loading model"):
            self.add(message)
        self.experiment(1)

    def add(self, message: str, seconds: float = 0.5, level: str = "INFO") -> None:
        self.now += timedelta(seconds=seconds)
        stamp = f"{self.now:%Y-%m-%d %H:%M:%S},{self.now.microsecond // 1000:03d}"
        self.text += f"{stamp} - phase1a - {level} - {message}\n"

    def experiment(self, number: int) -> None:
        for message in (RULE, f"EXPERIMENT {number}: Examine", RULE, "\n[USER] Examine yourself."):
            self.add(message)

    def turn(
        self, function: str, argument: str, tokens: int = 120, wait: float = 0.0, cut: bool = False
    ) -> None:
        self.add(f"\n[GENERATION] Generated {tokens} tokens, cache used: True", tokens / 12 + wait)
        self.add(f"\n[MODEL] I look at {argument}.\n" + CALL.format(function, argument))
        if cut:
            self.add(f"Generation truncated at token limit ({tokens} tokens)", level="WARNING")
        self.add(f'TOOL_RESULTS:\n{{"layer_name": "{argument}", "mean": 0.{len(self.text)}}}', 2.0)

    def prune(self, *lines: str) -> None:
        self.add("\n[MEMORY MANAGEMENT] Pruning needed in tool loop: turn count (3 >= 3)", level="WARNING")
        for line in lines:
            self.add(f"[MEMORY MANAGEMENT] {line}")

    def found(self) -> list[Finding]:
        return list(conduct(parse_text(self.text)))


WORKS = ("Clearing cache and keeping last 2 turns", "Pruned 1 old exchanges", "Pruning complete")


def clean() -> Log:
    """Three experiments that look at the same layers, with prunes, and a model that loads for minutes."""
    log = Log()
    log.now += timedelta(seconds=400)
    for number in (2, 3, 4):
        for turn in range(8):
            log.turn("get_layer_info", f"layers.{turn}", tokens=60 + 40 * turn)
            if turn % 3 == 2:
                log.prune(*WORKS)
        log.experiment(number)
    return log


def codes(findings: list[Finding]) -> list[str]:
    assert {finding.severity for finding in findings} <= {"note"}
    return [finding.code for finding in findings]


def test_a_clean_log_has_no_notes() -> None:
    assert clean().found() == []


def test_a_prune_that_removed_nothing() -> None:
    for lines in (("Pruned 0 old exchanges",), ("Nothing pruned: one result is larger than the limit",)):
        log = clean()
        log.prune(*lines)
        log.prune(*lines)
        log.turn("get_layer_info", "layers.9")
        [found] = log.found()
        place = log.text.split("\n").index(
            "[MEMORY MANAGEMENT] Pruning needed in tool loop: turn count (3 >= 3)"
        )
        assert found.code == "prune-without-effect" and found.line > place and "first of 2" in found.message


def test_a_call_that_comes_again_while_its_result_is_seen() -> None:
    log = clean()
    log.turn("get_layer_info", "lm_head")
    log.turn("get_layer_info", "layers.0")
    log.turn("get_layer_info", "lm_head")
    [found] = log.found()
    assert found.code == "call-repeated" and '"lm_head"' in found.message
    assert log.text.split("\n")[found.line - 1].startswith("[MODEL] I look at lm_head")


def test_a_call_whose_result_has_left_may_come_again() -> None:
    log = clean()
    for argument in ("lm_head", "layers.0", "layers.1"):
        log.turn("get_layer_info", argument)
    log.prune(*WORKS)
    log.turn("get_layer_info", "lm_head")
    log.turn("get_weight_statistics", "lm_head")
    assert log.found() == []


def test_a_search_for_notes_is_no_repetition_once_a_note_was_saved() -> None:
    log = clean()
    log.turn("query_memory", "x")
    log.turn("record_observation", "x")
    log.turn("query_memory", "x")
    assert log.found() == []


def test_replies_that_were_cut() -> None:
    log = clean()
    for argument in ("a", "b"):
        log.turn("get_layer_info", argument, tokens=400, cut=True)
    [found] = log.found()
    assert found.code == "reply-truncated" and "400 tokens" in found.message and "first of 2" in found.message


@pytest.mark.parametrize(("wait", "silent"), [(20, False), (50, False), (900, True)])
def test_a_hole_in_time(wait: float, silent: bool) -> None:
    log = clean()
    log.turn("get_layer_info", "layers.9")
    log.turn("get_layer_info", "lm_head", wait=wait)
    log.turn("get_layer_info", "layers.10")
    assert codes(log.found()) == ["silent-gap"] * silent
    for found in log.found():
        assert found.between is not None and found.after_line is not None and found.after_line < found.line


def test_a_night_before_a_run_is_taken_up_is_no_hole() -> None:
    log = clean()
    log.turn("get_layer_info", "layers.9")
    log.add("[SESSION] Resumed after 60 records", 36_000)
    log.turn("get_layer_info", "lm_head")
    assert log.found() == []
    log.turn("get_layer_info", "layers.10", wait=36_000)
    assert codes(log.found()) == ["silent-gap"]


def test_a_long_reply_of_a_slow_machine_is_no_hole() -> None:
    log = clean()
    log.turn("get_layer_info", "layers.9", tokens=4000)
    assert log.found() == []


def told(directory: Path) -> list[str]:
    return [finding.code for finding in load(str(directory), Path()).findings]


def test_a_record_of_events_tells_the_same(tmp_path: Path) -> None:
    def call(turn: int, layer: str) -> list[ev.Event]:
        return [
            generation(f"Turn {turn}, {layer}.", turn),
            ev.ToolCall(
                experiment=0,
                turn=turn,
                function="get_layer_info",
                arguments={"layer_name": layer},
                reasoning="",
            ),
        ]

    begin, end = conversation()[:2], conversation()[-2:]
    quiet = [*begin, *call(1, "a"), *call(2, "b"), *call(3, "c"), prune(4), *call(4, "a"), *end]
    assert told(written(tmp_path / "quiet", quiet)) == []
    useless = prune(4, dropped_messages=(), refused="one message alone is too long", dropped_turns=0)
    no_shorter = prune(4, tokens_after=2345)
    cut = generation("Cut", 5, finish_reason="length")
    for noted, code in (
        ([useless], "prune-without-effect"),
        ([no_shorter], "prune-without-effect"),
        (call(4, "b"), "call-repeated"),
        ([cut], "reply-truncated"),
    ):
        events = [*quiet[:-3], *noted, *end]
        assert told(written(tmp_path / code, events)) == [code]
        text = next((tmp_path / code).glob("*/*.log"))
        same = code if noted != [no_shorter] else None
        assert [found.code for found in load(str(text), Path()).findings] == [same] * (same is not None)
        for file in (tmp_path / code).glob("*/*"):
            file.unlink()


def test_the_time_between_two_sessions_of_one_file_is_no_gap() -> None:
    """The line of signs over a session's title stands before anything says that a session begins."""
    first, second = clean(), clean()
    second.text = second.text.replace("2025-11-10", "2025-11-12")
    first.text += second.text
    assert parse_text(first.text).sessions == 2 and first.found() == []
