"""The words in which a person gives options, so that an error's remedy can be typed as it stands.

Cells are started by ``battery-sorting`` and by ``ros2 launch``; what refuses to start them is the same code.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from enum import Enum


class FrontEnd(Enum):
    """By what a person talks to us."""

    COMMAND_LINE = "battery-sorting"
    LAUNCH = "ros2 launch"


_used: ContextVar[FrontEnd] = ContextVar("front end", default=FrontEnd.COMMAND_LINE)


@contextlib.contextmanager
def spoken_to_by(front_end: FrontEnd) -> Iterator[None]:
    """Inside, remedies are given in the words of ``front_end``."""
    before = _used.set(front_end)
    try:
        yield
    finally:
        _used.reset(before)


def option(name: str, value: str = "") -> str:
    """How the option ``name`` is written: ``--run-dir DIR``, or ``run_dir:=DIR`` for launch."""
    if _used.get() is FrontEnd.LAUNCH:
        return f"{name.replace('-', '_')}:={value}"
    return f"--{name} {value}" if value else f"--{name}"
