"""The live view: whatever models and tools write, nothing of it acts on the terminal."""

from __future__ import annotations

import io
import re
import time
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.color import Color
from rich.console import Console
from support.record_examples import generation, run_start

from introspect import display, events
from introspect.commands import live_line
from introspect.commands.console import CommandConsole
from introspect.commands.live_line import LiveLine
from introspect.commands.summary import show_summary
from introspect.commands.terminal import RunView
from introspect.display import one_line

ACTING = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Categories of characters that act on a display instead of standing in it."""

hostile = st.text(max_size=60) | st.sampled_from(
    ["\x1b[2J\x1b[H", "\x1b]0;title\x07", "[bold red]x[/]", "\r\x08over", "\u202etxet", "\x9b31m", "a\x00b"]
)
SUMMARY = {
    "run": "data/runs/x", "phase": "p", "model": "tiny", "seed": 1, "status": "complete", "turns": 1,
    "prunes": 0,
    "experiments": [{"name": "one", "status": "complete", "turns": 1, "tool_calls": 1}],
    "tokens": {"system": 1, "generated": 2, "prefilled": 3, "minimum": 3, "cached_peak": 4},
    "tool_calls": {"total": 1, "ok": 1, "malformed": 0}, "audits": {"e0": 1, "e1": 0, "failed": 0},
    "notes": 0, "seconds": 1.0,
}  # fmt: skip


def stream(text: str) -> list[events.Event]:
    """One of every event that carries foreign text."""
    return [
        events.ExperimentStart(experiment=0, name=text, task=text),
        events.UserMessage(experiment=0, turn=1, kind="feedback", text=text),
        events.Token(experiment=0, turn=1, text=text, sampled=1, cached_tokens=5),
        events.Token(experiment=0, turn=1, text="\n" + text, sampled=2, cached_tokens=6),
        events.Prefill(experiment=0, turn=1, start=0, token_ids=(1,), chunks=(1,), seconds=0.1),
        events.Generation(
            experiment=0,
            turn=1,
            prompt_tokens=1,
            cached_tokens=0,
            token_ids=(1, 2),
            text=text,
            finish_reason=text,
            seconds=0.1,
            logprobs=(0.0, 0.0),
            top_logits={},
            logits_digest="",
            state_digest=(),
            decode_path="forward-1",
            max_new_tokens=9,
        ),
        events.ToolCall(experiment=0, turn=1, function=text, arguments={text: text}, reasoning=text),
        events.ToolResult(
            experiment=0, turn=1, function=text, ok=True, result={"a": text}, text=text, seconds=0.1
        ),
        events.ToolResult(experiment=0, turn=1, function=text, ok=False, result=text, text=text, seconds=0.1),
        events.Prune(
            experiment=0,
            turn=1,
            reasons=(text,),
            dropped_messages=(),
            dropped_turns=0,
            shortened_messages=(),
            kept_turns=1,
            cached_before=5,
            cached_after=5,
            tokens_before=5,
            tokens_after=5,
            memory_note=text,
            refused=text,
        ),
        events.Audit(experiment=0, turn=1, level="e0", codes=(text,), detail=text),
        events.Warning(experiment=0, turn=1, code=text, message=text),
        events.Error(message=text, traceback=text),
        events.ExperimentEnd(experiment=0, name=text, status="failed", reason=text, turns=1, tool_calls=1),
    ]


def shown(text: str, terminal: bool, verbose: bool = True) -> str:
    console = Console(file=io.StringIO(), width=80, force_terminal=terminal, color_system=None)
    with RunView(console, verbose=verbose) as view:
        for event in stream(text):
            view.show(event)
    saved = [{"id": 1, "category": text, "description": text}] * 20
    show_summary(console, SUMMARY | {"saved_notes": saved}, Path("x.log"))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@given(text=hostile, verbose=st.booleans())
def test_nothing_but_text_reaches_a_pipe(text: str, verbose: bool) -> None:
    output = shown(text, terminal=False, verbose=verbose)
    assert not [c for c in output if c not in "\n\t\u200c\u200d" and unicodedata.category(c) in ACTING]


def test_a_terminal_gets_only_the_views_own_sequences() -> None:
    plain = set(re.findall(r"\x1b\[[0-9;?]*[A-Za-z]", shown("words", terminal=True)))
    evil = shown("\x1b[2J\x1b[31mred\x1b]0;t\x07", terminal=True)
    assert set(re.findall(r"\x1b\[[0-9;?]*[A-Za-z]", evil)) <= plain
    assert "\x1b]" not in evil and "\x07" not in evil


def test_markup_is_not_read() -> None:
    assert "[bold red]x[/]" in shown("[bold red]x[/]", terminal=False)


def test_quiet_shows_only_what_went_wrong() -> None:
    console = Console(file=io.StringIO(), width=80)
    with RunView(console, quiet=True) as view:
        for event in stream("words"):
            view.show(event)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 2 and "FAILED" in lines[0] and "error" in lines[1]


def test_the_code_of_a_failed_audit_is_told_once() -> None:
    for detail in ("prefix-aliased: state is shared", "state is shared"):
        console = Console(file=io.StringIO(), width=200)
        with RunView(console) as view:
            view.show(
                events.Audit(experiment=0, turn=4, level="e0", codes=("prefix-aliased",), detail=detail)
            )
        assert isinstance(console.file, io.StringIO)
        told = console.file.getvalue()
        assert told.count("prefix-aliased") == 1 and "state is shared" in told


def called(function: str) -> events.ToolCall:
    return events.ToolCall(experiment=0, turn=1, function=function, arguments={}, reasoning="")


ANSWERED = events.ToolResult(experiment=0, turn=1, function="look", ok=True, result={}, text="", seconds=9.0)


@given(seconds=st.floats(0, 1e6), width=st.integers(30, 200), name=hostile)
def test_the_live_line_names_a_tool_that_takes_longer_than_a_second(
    seconds: float, width: int, name: str
) -> None:
    now = [100.0]
    line, idle = LiveLine(lambda: now[0]), LiveLine(lambda: now[0])
    for each in (line, idle):
        each.take(events.ExperimentStart(experiment=0, name="one", task="task"))
    line.take(called(name))
    now[0] += seconds
    shown = line.text(width).plain
    assert len(shown) < width and not [c for c in shown if unicodedata.category(c) in ACTING - {"Cf"}]
    if now[0] - 100 <= 1:
        assert shown == idle.text(width).plain and "running" not in shown
    elif width > 100 + 10 * len(name):
        assert f"{one_line(name[:40])} has been running for {now[0] - 100:.0f} s" in shown
    line.take(ANSWERED)
    assert line.text(width).plain == idle.text(width).plain


@pytest.mark.parametrize("limit", [None, 1, 2, 9])
@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 200])
def test_the_live_line_says_where_the_run_is_and_how_long_it_takes(width: int, limit: int | None) -> None:
    now = [50.0]
    line = LiveLine(lambda: now[0], limit)
    assert "starting" in line.text(width).plain
    settings = {"memory": {"max_conversation_tokens": 1000}, "experiments": [{}, {}, {}]}
    line.take(run_start(settings=settings))
    line.take(events.ExperimentStart(experiment=1, name="a name of some length", task="task"))
    now[0] += 3725
    of = f"2 of {min(limit or 3, 3)}"
    assert line.text(width).plain.startswith(f"experiment {of}" if width >= 80 else "")
    assert of in line.text(width).plain and "turn 0" in line.text(width).plain
    assert width < 30 or "1:02:05" in line.text(width).plain
    line.progress("prefill", 1, 4)
    shown = line.text(width).plain
    assert of in shown and len(shown) < width and (width < 40 or "prefill 25 %" in shown)


def contrast(colour: str, ground: tuple[float, float, float]) -> float:
    """The contrast of a colour with its ground, as WCAG 2 defines it: from 1, equal, to 21."""

    def luminance(rgb: Iterable[float]) -> float:
        lines = [v / 255 / 12.92 if v / 255 <= 0.03928 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in rgb]
        return sum(share * value for share, value in zip((0.2126, 0.7152, 0.0722), lines, strict=True))

    lighter, darker = sorted(
        (luminance(Color.parse(colour).get_truecolor()), luminance(ground)), reverse=True
    )
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("colour", [display.GOOD, display.WARNING, display.BAD, display.TOOL, display.MEMORY])
def test_no_colour_vanishes_on_white_or_on_black(colour: str) -> None:
    assert min(contrast(colour, (255, 255, 255)), contrast(colour, (0, 0, 0))) > 3.0


def test_warnings_go_to_stderr_and_the_stream_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with RunView(CommandConsole()) as view:
        for event in stream("words"):
            view.show(event)
        view.show(events.Warning(experiment=0, turn=0, code="odd", message="something is odd"))
    told = capsys.readouterr()
    assert "something is odd" in told.err and "something is odd" not in told.out
    assert "\nturn 1\n" in told.out and "→" not in told.err


def test_the_live_line_moves_while_a_tool_runs_and_no_event_comes() -> None:
    now, file = [0.0], io.StringIO()
    console = Console(file=file, width=80, force_terminal=True, color_system=None)
    with RunView(console, clock=lambda: now[0]) as view:
        view.show(events.ExperimentStart(experiment=0, name="one", task="task"))
        view.show(called("get_weight_summary"))
        for second in (3, 14):
            now[0] = second
            wanted = f"get_weight_summary has been running for {second} s"
            deadline = time.monotonic() + 20
            while wanted not in file.getvalue() and time.monotonic() < deadline:
                time.sleep(0.02)
            assert wanted in file.getvalue()
        view.show(ANSWERED)
        now[0] = 99
    assert "99 s" not in file.getvalue()


def test_a_pipe_gets_no_live_line() -> None:
    now, file = [0.0], io.StringIO()
    with RunView(Console(file=file, width=80), clock=lambda: now[0]) as view:
        view.show(called("get_weight_summary"))
        now[0] = 9.0
        view.show(ANSWERED)
    assert "running" not in file.getvalue()


@given(text=hostile)
def test_progress_of_a_tool_is_one_plain_line(text: str) -> None:
    for terminal, quiet in ((True, False), (False, False), (False, True)):
        console = Console(file=io.StringIO(), width=80, force_terminal=terminal, color_system=None)
        with pytest.MonkeyPatch.context() as patch, RunView(console, quiet=quiet) as view:
            patch.setattr(live_line, "NEWS_SECONDS", 0.0)
            view.progress(text, 1, 2)
        assert isinstance(console.file, io.StringIO)
        output = console.file.getvalue()
        assert terminal or ("50 %" in output) != quiet
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output) if terminal else output
        assert "\x9b" not in output and "\x1b]" not in output and "\x1b[31m" not in output
        assert not [c for c in plain if c not in "\n\r\u200c\u200d" and unicodedata.category(c) in ACTING]


def test_progress_is_gone_when_the_tool_answers() -> None:
    line = LiveLine()
    line.progress("weights", 1, 2)
    assert "weights 50 %" in line.text(200).plain
    line.take(
        events.ToolResult(experiment=0, turn=1, function="f", ok=True, result={}, text="{}", seconds=0.1)
    )
    assert "weights" not in line.text(200).plain


@pytest.mark.parametrize(("tokens", "seconds", "rate"), [(41, 0.5, "80 tok/s, "), (1, 0.5, ""), (9, 0.0, "")])
def test_the_rate_of_a_reply_is_that_of_its_decoding(tokens: int, seconds: float, rate: str) -> None:
    console = Console(file=io.StringIO(), width=100)
    with RunView(console) as view:
        view.show(generation("a reply", tokens=tokens, seconds=seconds, digest_seconds=3.0))
    assert isinstance(console.file, io.StringIO)
    assert f"{tokens} tokens, {rate}612 of 700 prompt tokens cached" in console.file.getvalue()


@pytest.mark.parametrize("code", ["out-of-memory", "memory-forecast"])
def test_a_reply_that_is_tried_again_is_shown_from_its_beginning(code: str) -> None:
    file = io.StringIO()
    with RunView(Console(file=file, width=100)) as view:
        for text in ("I lo", None, "I ", "look."):
            if text is None:
                view.show(events.Warning(experiment=0, turn=1, code=code, message="too little memory"))
            else:
                view.show(events.Token(experiment=0, turn=1, text=text, sampled=1, cached_tokens=5))
        view.show(generation("I look."))
    lines = [line.strip() for line in file.getvalue().splitlines() if line.strip()]
    assert [line for line in lines if "warning" not in line][:4] == ["turn 1", "I lo", "turn 1", "I look."]
