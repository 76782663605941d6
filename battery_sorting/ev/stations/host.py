"""What a station's work needs of the node that it runs in, and the threads that end with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from battery_sorting.core.errors import BatterySortingError
from battery_sorting.core.types import LineStateId
from battery_sorting.packml.emergency import EmergencyStop


class StationHost(Protocol):
    """The node, as `battery_sorting.ros.node.LineNode` describes it."""

    ok: bool
    detail: str
    warning: str
    figures: dict[str, Any]
    line_state: LineStateId
    line_controller: str
    emergency: EmergencyStop

    @property
    def active(self) -> bool:
        """Whether the node may move things and deliver data."""

    @property
    def line_is_silent(self) -> bool:
        """Whether the line controller has not been heard for too long."""

    def degrade(self, error: BatterySortingError | str) -> None:
        """Something is wrong."""

    def recover(self) -> None:
        """All is well again."""

    def see_emergency_stop(self, pressed: bool) -> None:
        """The device says whether its emergency stop is pressed."""

    def start_thread(self, name: str, work: Callable[[], None]) -> threading.Thread:
        """Runs ``work`` beside all else; if it fails, the node ends."""

    def get_logger(self) -> Any:
        """For people."""


class Workers:
    """The threads of a station, which end together.

    Attributes:
        ending: Set when they shall end.
    """

    def __init__(self, host: StationHost) -> None:
        self._host = host
        self._threads: list[threading.Thread] = []
        self.ending = threading.Event()

    def start(self, name: str, work: Callable[[], None]) -> None:
        """Lets a thread do ``work``, which ends soon after ``ending`` is set."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        self._threads.append(self._host.start_thread(name, work))

    def end(self, patience_s: float, wake: Callable[[], None] = lambda: None) -> None:
        """Tells the threads to end, wakes those that wait for work, and waits for all ``patience_s`` at most."""
        self.ending.set()
        wake()
        until = time.monotonic() + patience_s
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))
        self._threads = []
