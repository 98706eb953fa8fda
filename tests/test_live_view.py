"""What stands on a terminal after a run is what its events say, however often the live region was drawn."""

from __future__ import annotations

import io
import random
import sys
import time
from collections.abc import Iterator

import pytest
from rich.console import Console
from support.terminal_screen import screen_of

from introspect import events
from introspect.commands.console import CommandConsole
from introspect.commands.status import busy
from introspect.commands.terminal import RunView

WORDS = [
    "layer",
    "mean",
    "0.2501",
    '{"a":',
    "\n",
    "attention heads",
    "std",
    "\n\n",
    "}}}",
    "a longer stretch",
]


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def replies(seed: int, turns: int) -> Iterator[events.Event]:
    """Turns whose replies grow over several lines, each followed by what says that it has ended."""
    draw = random.Random(seed)
    for turn in range(1, turns + 1):
        text = ""
        for sampled in range(1, draw.randrange(20, 60)):
            piece = draw.choice(WORDS) + " "
            text += piece
            yield events.Token(experiment=0, turn=turn, text=piece, sampled=sampled, cached_tokens=100)
            if sampled % 7 == 0:
                time.sleep(0.001)
        ids = (1,) * sampled
        yield events.Generation(
            experiment=0,
            turn=turn,
            prompt_tokens=9,
            cached_tokens=0,
            token_ids=ids,
            text=text,
            finish_reason="stop",
            seconds=0.1,
            logprobs=(0.0,) * sampled,
            top_logits={},
            logits_digest="",
            state_digest=(),
            decode_path="forward-1",
            max_new_tokens=99,
        )


def shown(stream: list[events.Event], terminal: bool, rate: float = 1000.0) -> str:
    file = io.StringIO()
    console = Console(file=file, width=72, height=30, force_terminal=terminal, color_system=None)
    with RunView(console, refresh_per_second=rate) as view:
        for event in stream:
            view.show(event)
            if terminal:
                time.sleep(0.0005)
    return file.getvalue()


def test_the_live_region_eats_nothing_of_what_was_printed(hasty_threads: None) -> None:
    stream = list(replies(3, turns=40))
    drawn = [line for line in screen_of(shown(stream, terminal=True)) if line.strip()]
    said = [word for event in stream if isinstance(event, events.Generation) for word in event.text.split()]
    words = [word for line in drawn for word in line.split()]
    assert [f"turn {turn}" for turn in range(1, 41)] == [line for line in drawn if line.startswith("turn ")]
    notes = [line for line in drawn if "prompt tokens cached" in line]
    assert len(notes) == 40
    kept = [
        word for line in drawn if line not in notes and not line.startswith("turn ") for word in line.split()
    ]
    assert kept == said, words


def test_a_reply_that_begins_or_ends_in_half_a_character_has_its_heading_and_its_tail() -> None:
    """The driver shows no half of a character: its first token then comes late, and its last never."""
    whole = events.Generation(
        experiment=0,
        turn=2,
        prompt_tokens=9,
        cached_tokens=0,
        token_ids=(1, 2, 3),
        text="\ufffd is all\ufffd",
        finish_reason="length",
        seconds=0.1,
        logprobs=(0.0,) * 3,
        top_logits={},
        logits_digest="",
        state_digest=(),
        decode_path="forward-1",
        max_new_tokens=3,
    )
    late = events.Token(experiment=0, turn=2, text="\ufffd is all", sampled=2, cached_tokens=100)
    for stream in ([late, whole], [whole]):
        for terminal in (False, True):
            lines = screen_of(shown(stream, terminal))
            assert [line.strip() for line in lines if line.strip()][:2] == ["turn 2", "\ufffd is all\ufffd"]


def test_a_program_that_is_killed_or_suspended_leaves_a_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing gives a hidden one back to the shell after SIGKILL or SIGSTOP."""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    file = io.StringIO()
    console = CommandConsole(file=file)
    assert console.is_terminal
    with busy(console, "loading"):
        pass
    with RunView(console, quiet=False, verbose=False) as view:
        for event in replies(1, 2):
            view.show(event)
    assert "tok" in file.getvalue() and "\x1b[?25l" not in file.getvalue()
