"""Progress bars on standard error, so that what a command prints stays clean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


def progress(text: str, items: Sequence[T]) -> Iterable[T]:
    """Passes items through and shows how far it got."""
    from rich.console import Console
    from rich.progress import track

    return track(items, description=text, console=Console(stderr=True))
