"""How far a long command is: a bar on stderr, only on a terminal, and only after a while."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

AFTER = 2.0  # seconds that pass in silence
TRACING_AFTER = 1.0  # seconds that a trace of a module runs in silence
Item = TypeVar("Item")


@contextmanager
def bar(what: str, after: float = AFTER) -> Iterator[Callable[[int, int], None]]:
    """A progress bar; yields a function that takes how many parts are done, and of how many."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    out, begin = Console(file=sys.stderr), time.monotonic()
    columns = (
        TextColumn(what),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f}"),
        TimeRemainingColumn(),
    )
    progress = Progress(
        *columns,
        console=out,
        disable=not out.is_terminal,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    task = progress.add_task(what, total=1)
    started = False

    def step(done: int, of: int) -> None:
        nonlocal started
        progress.update(task, completed=done, total=of)
        if not started and time.monotonic() - begin >= after:
            progress.start()
            started = True

    try:
        yield step
    finally:
        progress.stop()


@contextmanager
def tracing(words: Sequence[str], after: float = TRACING_AFTER) -> Iterator[None]:
    """Inside, a terminal shows how many ops of a module in Python are traced; not with --json.
    words: of the command line.
    """
    terminal = hasattr(sys.stderr, "isatty") and sys.stderr.isatty()
    if (
        not terminal
        or "--json" in words
        or not any(".py" in word or word.endswith(".pt") for word in words)
    ):
        yield
        return
    from roofcast.simulator.importers.user_code import progress

    begin = time.monotonic()
    with os.fdopen(os.dup(sys.stderr.fileno()), "w") as out:  # the module's own is closed

        def show(ops: int) -> None:
            if time.monotonic() - begin >= after:
                out.write(f"\rrunning the module: {ops:,} ops \r")
                out.flush()

        progress.append(show)
        try:
            yield
        finally:
            progress.remove(show)
            if time.monotonic() - begin >= after:
                out.write("\r\033[K")


def watched(items: Sequence[Item], what: str, after: float = AFTER) -> Iterator[Item]:
    """The items one by one, with a progress bar."""
    with bar(what, after) as step:
        for done, item in enumerate(items):
            step(done, len(items))
            yield item
