"""Keeps two controllers from running one line: see `line.rivals`."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

from rclpy.node import Node

from battery_sorting.core.ownership import OwnedElsewhereError
from battery_sorting.line.controller import ProblemSeen
from battery_sorting.line.rivals import Rivals, RivalVerdict
from battery_sorting.msg import LineState
from battery_sorting.ros import qos

LOOK_S = 0.2
FAULT = "second_controller"


class RivalWatch:
    """Listens to the states of the line beside the controller's own.

    Args:
        node: The line's controller.
        tell: Takes at every look whether another controller speaks: meanwhile the line holds.
    """

    def __init__(self, node: Node, tell: Callable[[ProblemSeen], None]) -> None:
        self._node = node
        self._tell = tell
        self._rivals = Rivals(uuid.uuid4().hex, time.monotonic())
        self._runs: dict[str, str] = {}
        node.create_subscription(LineState, "line_state", self._on_state, qos.STREAM)
        node.create_timer(LOOK_S, self._look)

    @property
    def own(self) -> str:
        """Identifies this process for ever."""
        return self._rivals.own

    def _on_state(self, message: LineState) -> None:
        self._rivals.heard(message.controller, time.monotonic())
        self._runs = {message.controller: message.run_id} if message.controller != self.own else self._runs

    def _is_a_controller(self) -> bool:
        """Whether a node of this one's name speaks. A stranger, or a bag that is played, is none to leave to."""
        publishers = self._node.get_publishers_info_by_topic("line_state")
        names = [(info.node_name, info.node_namespace) for info in publishers]
        return names.count((self._node.get_name(), self._node.get_namespace())) > 1

    def _look(self) -> None:
        now = time.monotonic()
        verdict, rival = self._rivals.verdict(now), self._rivals.rival(now)
        who = (
            f"another line controller ({rival or 'without an id'}, run {self._runs.get(rival or '') or 'unknown'})"
        )
        if verdict is RivalVerdict.LEAVE and self._is_a_controller():
            raise OwnedElsewhereError(
                f"{who} already runs this line, on another host or in another container: this one leaves"
            )
        alone = verdict is RivalVerdict.ALONE
        self._tell(ProblemSeen(FAULT, "" if alone else f"{who} speaks on this line: end one of the two"))
