"""How a node is, in its heartbeat for the line and its diagnostics for people."""

from __future__ import annotations

import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from battery_sorting.core.errors import BatterySortingError
from battery_sorting.line.contract import HEARTBEAT_S
from battery_sorting.msg import Heartbeat
from battery_sorting.packml.emergency import EmergencyStop
from battery_sorting.packml.fleet import Lifecycle
from battery_sorting.ros import convert, qos
from battery_sorting.ros.lasting import printable
from battery_sorting.ros.sim_clock import uses_sim_time, watch_sim_clock


class HealthVoice:
    """Base of a lifecycle node, before `rclpy.lifecycle.LifecycleNode`.

    ``detail`` and ``ok`` say how the node is; they go into heartbeat and diagnostics. ``warning`` is for people: it
    goes into the diagnostics only, and the line goes on. ``figures`` do, too. ``emergency`` is what became of the
    device's emergency stop.
    """

    lifecycle: Lifecycle
    get_logger: Any
    get_name: Any

    def begin_to_speak(self) -> None:
        """Makes the publishers and timers; to be called when the node has its settings."""
        node: Any = self
        self.ok = True
        self.detail = ""
        self.warning = ""
        self.figures: dict[str, Any] = {}
        self.emergency = EmergencyStop()
        self._deactivated = False
        self._clock_problem = ""
        self._heartbeat = node.create_publisher(Heartbeat, "heartbeat", qos.STREAM)
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", qos.STREAM)
        node.create_timer(HEARTBEAT_S, self._send_heartbeat)
        if uses_sim_time(node):  # whoever waits for it by a clock that runs faster needs more
            node.create_timer(HEARTBEAT_S, self._send_heartbeat, clock=node.get_clock())
        node.create_timer(1.0, self._send_diagnostics)
        watch_sim_clock(node, self._follow_clock)

    def degrade(self, error: BatterySortingError | str) -> None:
        """Something is wrong; says so once and in every heartbeat until `recover`."""
        text = printable(str(error))
        if self.ok or self.detail != text:
            self.get_logger().error(text)
        self.ok, self.detail = False, text

    def recover(self) -> None:
        """All is well again."""
        if not self.ok:
            self.get_logger().info("recovered")
        self.ok, self.detail = True, ""

    def _send_heartbeat(self) -> None:
        self._heartbeat.publish(
            Heartbeat(
                header=convert.header(time.time()),
                node=self.get_name(),
                lifecycle_state=int(self.lifecycle),
                ok=self.ok,
                deactivated=self._deactivated,
                emergency_stop=self.emergency.standing,
                detail=self.detail,
            )
        )

    def _follow_clock(self, problem: str) -> None:
        """It is a warning here: the line controller holds the line for it, and says so."""
        self._clock_problem = problem
        if problem:
            self.get_logger().warning(problem)
        else:
            self.get_logger().info("/clock runs")

    def _send_diagnostics(self) -> None:
        warning = "; ".join(filter(None, (self.warning, self._clock_problem)))
        healthy = self.ok and self.lifecycle is Lifecycle.ACTIVE and not warning
        level = DiagnosticStatus.OK if healthy else DiagnosticStatus.ERROR if not self.ok else DiagnosticStatus.WARN
        message = self.detail or warning or self.lifecycle.name.lower()
        publish_diagnostics(self._diagnostics, self, level, message, self.figures)  # type: ignore[arg-type]


def publish_diagnostics(publisher: Any, node: Node, level: bytes, message: str, figures: dict[str, Any]) -> None:
    """Sends one status of ``node``."""
    status = DiagnosticStatus(
        level=level,
        name=node.get_fully_qualified_name().lstrip("/"),
        message=message,
        hardware_id=node.get_name(),
        values=[KeyValue(key=key, value=str(value)) for key, value in figures.items()],
    )
    publisher.publish(DiagnosticArray(header=convert.header(time.time()), status=[status]))
