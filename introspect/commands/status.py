"""A status line while a command is busy, where there is a terminal to show one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from introspect.display import one_line


@contextmanager
def busy(console: Console, what: str, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Show `what` while the block runs; yields a function that shows something else in its place."""
    if quiet or not console.is_terminal:
        yield lambda text: None
        return
    with console.status(Text(one_line(what))) as status:
        yield lambda text: status.update(Text(one_line(text)))
