"""What the libraries may write to a terminal while they work, for as long as a block lasts."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from introspect.display import Progress


@contextmanager
def quiet_library() -> Iterator[None]:
    """In the block, transformers writes no lines and no progress bars; afterwards it is as it was.

    Its lines quote a stranger's files as they stand, control characters included.
    """
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub_bars = not are_progress_bars_disabled()
    logging.set_verbosity(logging.CRITICAL)
    _switch(logging.disable_progress_bar)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            _switch(logging.enable_progress_bar)
        _show_downloads(hub_bars)


@contextmanager
def bars_told(progress: Progress | None, what: str) -> Iterator[None]:
    """In the block, `progress` is told how far each loop has come for which transformers would show a bar.

    A loop whose length nobody knows is not told of.
    """
    from transformers.utils import logging

    if progress is None or not hasattr(logging, "set_tqdm_hook"):
        yield
        return
    told = progress

    def bar(factory: Callable[..., Any], given: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        items = given[0] if given else named.get("iterable")
        return _told(items, told, what) if hasattr(items, "__len__") else factory(*given, **named)

    before = logging.set_tqdm_hook(bar)
    try:
        yield
    finally:
        logging.set_tqdm_hook(before)


def _told(items: Any, progress: Progress, what: str) -> Iterable[Any]:
    total = len(items)
    progress(what, 0, total)
    for done, item in enumerate(items, 1):
        yield item
        progress(what, done, total)


@contextmanager
def downloads_on_terminal() -> Iterator[None]:
    """In the block, the hub client shows how downloads go on where stderr is a terminal, else nothing."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled

    before = not are_progress_bars_disabled()
    _show_downloads(before and sys.stderr.isatty())
    try:
        yield
    finally:
        _show_downloads(before)


def _show_downloads(shown: bool) -> None:
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if are_progress_bars_disabled() == shown:
        _switch(lambda: enable_progress_bars() if shown else disable_progress_bars())


def _switch(change: Callable[[], object]) -> None:
    """Call a switch of a library, which warns where HF_HUB_DISABLE_PROGRESS_BARS has priority over it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        change()
