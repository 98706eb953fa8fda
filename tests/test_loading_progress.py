"""How far weights are read and a prompt is prefilled: told while it goes on, beside no data."""

from __future__ import annotations

import io
import itertools

import pytest
from rich.console import Console
from support.sessions import random_model
from transformers.utils import logging

from introspect import events
from introspect.checkpoint.loading import load_model
from introspect.commands.live_line import LiveLine
from introspect.commands.status import loading
from introspect.commands.terminal import RunView
from introspect.engine.engine import Engine
from introspect.phase.config import ModelConfig

Told = list[tuple[str, int, int]]


def test_reading_weights_is_told_from_the_first_tensor_to_the_last() -> None:
    told: Told = []
    before = logging.set_tqdm_hook(None)
    try:
        model = load_model(
            ModelConfig(id="tiny", device="cpu"), lambda what, done, total: told.append((what, done, total))
        ).model
        assert logging.set_tqdm_hook(before) is None
    finally:
        logging.set_tqdm_hook(before)
    total = len(set(map(id, model.parameters())))
    assert told == [("reading weights as float32", done, total) for done in range(total + 1)]


def test_loading_is_a_bar_on_a_terminal_lines_elsewhere_where_it_takes_long_and_nothing_where_quiet(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = itertools.product((False, True), (False, True), (0.1, 1.5))
    for terminal, quiet, seconds in cells:
        now = itertools.count(step=seconds)
        monkeypatch.setenv("TTY_COMPATIBLE", "1" if terminal else "0")
        with loading("loading \x1b[31m[bold]m", quiet, lambda now=now: next(now)) as progress:
            assert (progress is None) == quiet
            for done in range(4):
                if progress is not None:
                    progress("reading", done, 3)
        written = capsys.readouterr()
        assert written.out == ""
        if quiet:
            assert written.err == ""
        elif terminal:
            assert "100%" in written.err and "[bold]m: reading" in written.err
            assert "\x1b[31m[bold]" not in written.err
        else:
            said = "loading \\x1b[31m[bold]m: reading 66 %\n"
            assert written.err == (said if seconds > 1 else "")


@pytest.mark.parametrize(
    ("chunk", "length", "kept"), [(4, 10, 0), (4, 4, 0), (4, 1, 0), (3, 11, 5), (64, 9, 2)]
)
def test_a_prefill_tells_how_many_ids_were_fed_after_each_chunk(chunk: int, length: int, kept: int) -> None:
    engine = Engine(random_model(), prefill_chunk=chunk)
    cache, ids = engine.new_cache(), list(range(1, length + 1))
    if kept:
        engine.prefill(cache, ids[:kept])
    told: list[tuple[int, int]] = []
    result = engine.prefill(cache, ids, lambda done, total: told.append((done, total)))
    fed = [0, *itertools.accumulate(result.chunks)]
    assert told == [(done, length - kept) for done in fed]


def test_the_live_line_says_how_many_tokens_of_a_prompt_are_prefilled_until_the_first_is_sampled() -> None:
    line = LiveLine(lambda: 0.0)
    line.take(events.ExperimentStart(experiment=0, name="architecture", task="task"))
    line.progress("prefill 512 of 2000 tokens:", 512, 2000)
    assert "prefill 512 of 2000 tokens: 25 %" in line.text(80).plain
    line.take(events.Token(experiment=0, turn=1, text="a", sampled=1, cached_tokens=2000))
    assert "prefill" not in line.text(80).plain


def test_a_slow_prefill_is_told_in_lines_where_no_line_is_live() -> None:
    now, file = [0.0], io.StringIO()
    with RunView(Console(file=file, width=80), clock=lambda: now[0]) as view:
        for done in (0, 512, 1024):
            view.progress(f"prefill {done} of 2000 tokens:", done, 2000)
            now[0] += 1.5
    assert file.getvalue().split("\n") == ["  prefill 1024 of 2000 tokens: 51 %", ""]
