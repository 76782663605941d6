"""Brings the nodes of a line up: asks each for the transitions that `packml.fleet.Fleet` wants."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from lifecycle_msgs.msg import Transition as TransitionMessage
from lifecycle_msgs.srv import ChangeState
from rclpy.node import Node

from battery_sorting.packml.fleet import Transition

ANSWER_S = 3.0
"""An answer that has not come by then does not come: the node that was asked has died."""
_NUMBERS = {
    "configure": TransitionMessage.TRANSITION_CONFIGURE,
    "activate": TransitionMessage.TRANSITION_ACTIVATE,
}


class BringUp:
    """Clients of the nodes' life cycles.

    Args:
        node: The line's controller.
        names: Names of the nodes.
    """

    def __init__(self, node: Node, names: Iterable[str]) -> None:
        self._clients = {name: node.create_client(ChangeState, f"{name}/change_state") for name in names}
        self._asked: dict[str, tuple[float, Any]] = {}

    def ask(self, step: Transition) -> None:
        """Asks a node for a transition, unless it is busy with one: loading a model takes its time."""
        client = self._clients[step.node]
        asked_at, earlier = self._asked.get(step.node, (0.0, None))
        busy = earlier is not None and not earlier.done() and time.monotonic() - asked_at < ANSWER_S
        if not busy and client.service_is_ready():
            request = ChangeState.Request(transition=TransitionMessage(id=_NUMBERS[step.transition]))
            self._asked[step.node] = (time.monotonic(), client.call_async(request))
