"""Ends a process that the middleware has made deaf or mute, so that whoever started it starts it anew."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from rclpy.node import Node

from battery_sorting.core.errors import BatterySortingError
from battery_sorting.line.hearing import LOOK_S

FOLDER = "alive"
"""In the run folder: a file per process, touched as long as it speaks."""


class DeafError(BatterySortingError):
    """This process does not hear the others, or they don't hear it."""

    code = "deaf"


class Marks:
    """The marks of the processes of one run folder."""

    def __init__(self, run_dir: Path) -> None:
        self._folder = run_dir / FOLDER

    def leave(self, name: str) -> None:
        """Says on a way beside the middleware that ``name`` speaks. A disk that takes no mark is not its affair."""
        path = self._folder / name
        with contextlib.suppress(OSError):
            try:
                os.utime(path)
            except FileNotFoundError:
                path.parent.mkdir(exist_ok=True)
                path.touch()

    def read(self, name: str) -> int | None:
        """The mark of a process; None where there is none."""
        try:
            return (self._folder / name).stat().st_mtime_ns
        except OSError:
            return None


def watch_hearing(node: Node, marks: Marks, why_to_end: Callable[[float], str]) -> None:
    """Leaves the mark of ``node`` and ends its process as soon as ``why_to_end`` (now, in s) gives a reason.

    It lives in the node's executor, as what it publishes: one that stands still leaves no mark either.
    """

    def look() -> None:
        marks.leave(node.get_name())
        reason = why_to_end(time.monotonic())
        if reason:
            text = f"{node.get_name()} {reason}: it ends itself, to be started anew"
            node.get_logger().fatal(text)
            raise DeafError(text)

    node.create_timer(LOOK_S, look)
