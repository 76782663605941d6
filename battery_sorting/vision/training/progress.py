"""How long work shows how far it got."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Passes items through and shows how far it got."""

    def __call__(self, text: str, items: Sequence[T]) -> Iterable[T]: ...  # noqa: D102


def no_progress(text: str, items: Sequence[T]) -> Iterable[T]:
    """Shows nothing."""
    del text
    return items
