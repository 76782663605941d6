"""All that reaches into private parts of rclpy, since its public ones don't do; a test compares it with the wheels.

- The state of a node's life cycle: rclpy tells it by a service alone.
- The service ``~/change_state``: rclpy lets a transition that is not allowed now end the whole node.
- Its logger: rclpy takes a wrapper of it for the line that has something to say.
"""

from __future__ import annotations

import os
from typing import Any

from rclpy.impl import rcutils_logger
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.impl.rcutils_logger import RcutilsLogger as RcutilsLogger
from rclpy.lifecycle import LifecycleNode

from battery_sorting.packml.fleet import Lifecycle


class ForgivingLifecycleNode(LifecycleNode):  # type: ignore[misc]
    """A lifecycle node that knows its state, and refuses a transition that is not allowed instead of ending."""

    @property
    def lifecycle(self) -> Lifecycle:
        """The state of the life cycle; unknown within a transition."""
        return Lifecycle.__members__.get(self._state_machine.current_state[1].upper(), Lifecycle.UNKNOWN)

    def _LifecycleNodeMixin__on_change_state(self, request: Any, response: Any) -> Any:  # noqa: N802
        try:
            return super()._LifecycleNodeMixin__on_change_state(request, response)  # type: ignore[misc]
        except rclpy_implementation.RCLError as error:
            self.get_logger().warning(f"transition {request.transition.id} refused: {error}")
            response.success = False
            return response


def log_for_the_caller(file: str) -> None:
    """Lines that log through ``file`` are known by the first frame outside of it."""
    rcutils_logger._internal_callers.append(os.path.realpath(file))
