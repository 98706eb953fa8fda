"""What is shown while a command is busy: a status line, or a bar while weights are read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from introspect.commands.console import CommandConsole
from introspect.commands.live_line import LiveLine
from introspect.display import Progress, one_line


@contextmanager
def busy(console: Console, what: str, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Show `what` while the block runs; yields a function that shows something else in its place."""
    if quiet or not console.is_terminal:
        yield lambda text: None
        return
    with console.status(Text(one_line(what))) as status:
        yield lambda text: status.update(Text(one_line(text)))


@contextmanager
def loading(
    what: str, quiet: bool = False, clock: Callable[[], float] = time.monotonic
) -> Iterator[Progress | None]:
    """Show on stderr how far a model is loaded while the block runs; yields what is to be told of it.

    A terminal gets a bar, anything else a line now and then where it takes long; None where `quiet`.
    """
    console = CommandConsole(stderr=True)
    if quiet:
        yield None
        return
    if not console.is_terminal:
        line = LiveLine(clock)

        def say(now: str, done: int, total: int) -> None:
            news = line.progress(now, done, total)
            if news:
                console.print(Text(one_line(f"{what}: {news}")), soft_wrap=True)

        yield say
        return
    text = TextColumn("{task.description}", markup=False)
    with Bar(
        text, BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), console=console, transient=True
    ) as bar:
        task = bar.add_task(one_line(what), total=None)
        yield lambda now, done, total: bar.update(
            task, description=one_line(f"{what}: {now}"), completed=done, total=total
        )
