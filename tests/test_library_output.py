"""What the program changes of the libraries it uses lasts as long as it uses them, and no longer."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator

import pytest
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from rich.console import Console
from transformers.utils import logging

from introspect.checkpoint.library_output import downloads_on_terminal, quiet_library
from introspect.checkpoint.loading import load_model
from introspect.commands.status import busy
from introspect.phase.config import ModelConfig


def state() -> tuple[int, bool, bool, str]:
    bars = logging.is_progress_bar_enabled(), are_progress_bars_disabled()
    return logging.get_verbosity(), *bars, str(sorted(os.environ.items()))


@pytest.fixture(params=[True, False])
def hub_bars(request: pytest.FixtureRequest) -> Iterator[bool]:
    """The hub client's own switch, on and off."""
    off = are_progress_bars_disabled()
    (enable_progress_bars if request.param else disable_progress_bars)()
    yield request.param
    (disable_progress_bars if off else enable_progress_bars)()


def test_the_library_is_quiet_within_a_block_and_as_it_was_after(hub_bars: bool) -> None:
    before = state()
    with quiet_library():
        assert logging.get_verbosity() == logging.CRITICAL and are_progress_bars_disabled()
        with quiet_library():
            pass
        assert logging.get_verbosity() == logging.CRITICAL and are_progress_bars_disabled()
    assert state() == before
    with pytest.raises(ValueError), quiet_library():
        raise ValueError
    assert state() == before


def test_loading_a_model_leaves_the_libraries_as_they_were(hub_bars: bool) -> None:
    before = state()
    load_model(ModelConfig(id="tiny", device="cpu"))
    assert state() == before


def test_downloads_are_shown_on_a_terminal_alone(hub_bars: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    before = state()
    with downloads_on_terminal():
        assert are_progress_bars_disabled()
    monkeypatch.setattr("sys.stderr", Terminal())
    with downloads_on_terminal():
        assert are_progress_bars_disabled() is not hub_bars
    assert state() == before


@pytest.mark.parametrize("terminal", [True, False])
def test_a_status_line_changes_no_environment(terminal: bool) -> None:
    before = state()
    with busy(Console(file=io.StringIO(), force_terminal=terminal), "waiting") as tell:
        tell("still")
    assert state() == before
