"""Publishers that are silent while their node is not active."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.lifecycle.managed_entity import ManagedEntity
from rclpy.qos import DurabilityPolicy

from battery_sorting.ros.lasting import LastingPublisher


class GatedPublisher(LastingPublisher, ManagedEntity):  # type: ignore[misc]
    """Publishes while its node is active. Any thread may publish.

    What would be kept for whoever comes later (transient local: what happened to a battery) waits for the
    activation, as many messages as are kept; rclpy's own lifecycle publisher would drop it. All else is dropped.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        profile = self.qos_profile
        waits = profile.durability is DurabilityPolicy.TRANSIENT_LOCAL
        self._waiting: deque[Any] = deque(maxlen=profile.depth if waits else 0)
        self._open = False
        self._lock = threading.Lock()  # so that nothing overtakes what waits

    def publish(self, msg: Any) -> None:
        """Sends a message if the node is active; else it waits or is dropped."""
        with self._lock:
            if self._open:
                super().publish(msg)
            else:
                self._waiting.append(msg)

    def on_activate(self, _: LifecycleState) -> TransitionCallbackReturn:
        """Sends what waits, then whatever comes."""
        with self._lock:
            while self._waiting:
                super().publish(self._waiting.popleft())
            self._open = True
        return TransitionCallbackReturn.SUCCESS

    def _shut(self, state: Any) -> TransitionCallbackReturn:  # noqa: ARG002
        with self._lock:
            self._open = False
        return TransitionCallbackReturn.SUCCESS

    on_deactivate = on_cleanup = on_shutdown = on_error = _shut
