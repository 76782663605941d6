"""Progress on standard error, so that what a command prints stays clean. Only a terminal gets bars."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from battery_sorting.cli._output import console, is_terminal, remark

T = TypeVar("T")

LINE_EVERY_S = 20.0


def progress(text: str, items: Sequence[T]) -> Iterable[T]:
    """Passes items through and shows how far it got: a bar on a terminal, else now and then a line."""
    if not is_terminal(sys.stderr):
        return _lines(text, items)
    from rich.progress import track

    return track(items, description=text, console=console(stderr=True))


def passing_bar(text: str, items: Iterable[T], total: int) -> Iterable[T]:
    """Passes items through with a bar that goes at the end; only a terminal gets it."""
    from rich.progress import track

    shown = console(stderr=True)
    return track(items, text, total=total, console=shown, transient=True, disable=shown.quiet)


@contextmanager
def advancing_bar(text: str, total: int) -> Iterator[Callable[[float], None]]:
    """A bar that goes at the end; what it yields takes how much more is done. Only a terminal gets it."""
    from rich.progress import Progress

    shown = console(stderr=True)
    with Progress(console=shown, transient=True, disable=shown.quiet) as bar:
        task = bar.add_task(text, total=total)
        yield lambda done: bar.advance(task, done)


@contextmanager
def noted_bar(text: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """A bar that goes at the end; what it yields takes how much is done in all, and a note. Only for a terminal."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
    )
    shown = console(stderr=True)
    with Progress(*columns, console=shown, transient=True, disable=shown.quiet) as bar:
        task = bar.add_task(text, total=total, note="starting")
        yield lambda done, note: bar.update(task, completed=done, note=note)


@contextmanager
def status(text: str) -> Iterator[Callable[[str], None]]:
    """A line that says what is being done, and goes at the end; only a terminal gets it."""
    with console(stderr=True).status(text, spinner="line") as shown:
        yield shown.update


def _lines(text: str, items: Sequence[T]) -> Iterator[T]:
    """A line at the end, and one before where it takes long: a log file has no use for a bar."""
    began = told = time.monotonic()
    for number, item in enumerate(items):
        yield item
        now = time.monotonic()
        if number + 1 == len(items) or now - told >= LINE_EVERY_S:
            remark(f"{text} {number + 1}/{len(items)}, {now - began:.0f} s")
            told = now
