"""A node as the work of a station sees it, without ROS: the test sets what the line says."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from battery_sorting.core.types import LineStateId
from battery_sorting.packml.emergency import EmergencyStop


class NodeStandIn:
    """An active node of a line that executes."""

    def __init__(self) -> None:
        self.ok, self.detail, self.warning = True, "", ""
        self.figures: dict[str, Any] = {}
        self.active, self.line_is_silent = True, False
        self.line_controller = "line_controller"
        self.emergency = EmergencyStop()
        self.line_state = LineStateId.EXECUTE

    def line_is(self, state: LineStateId) -> None:
        self.line_state = state
        self.emergency.line_is(state)

    def degrade(self, error: Exception | str) -> None:
        self.ok, self.detail = False, str(error)

    def recover(self) -> None:
        self.ok, self.detail = True, ""

    def see_emergency_stop(self, pressed: bool) -> None:
        self.emergency.see(pressed)

    def get_logger(self) -> logging.Logger:
        return logging.getLogger("station")

    def start_thread(self, name: str, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        return thread
