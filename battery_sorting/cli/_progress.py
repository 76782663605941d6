"""Progress on standard error, so that what a command prints stays clean."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

LINE_EVERY_S = 20.0


def progress(text: str, items: Sequence[T]) -> Iterable[T]:
    """Passes items through and shows how far it got: a bar on a terminal, else now and then a line."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if console.is_terminal:
        return track(items, description=text, console=console)
    return _lines(text, items, console)


def _lines(text: str, items: Sequence[T], console: Console) -> Iterator[T]:
    """A line at the end, and one before where it takes long: a log file has no use for a bar."""
    began = told = time.monotonic()
    for number, item in enumerate(items):
        yield item
        now = time.monotonic()
        if number + 1 == len(items) or now - told >= LINE_EVERY_S:
            console.print(f"{text} {number + 1}/{len(items)}, {now - began:.0f} s", highlight=False)
            told = now
