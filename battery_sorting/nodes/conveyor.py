"""The link to the belt's PLC: belt state, detections, run and stop, watchdog."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any, TypeVar

from std_srvs.srv import Trigger

from battery_sorting.belt.belt_tracker import BeltTracker
from battery_sorting.core import types
from battery_sorting.core.errors import DeviceError
from battery_sorting.core.types import BeltState, LineStateId
from battery_sorting.drivers.plc.base import BeltPlc
from battery_sorting.drivers.registry import find_driver
from battery_sorting.msg import BatteryDetection, ExitDetection
from battery_sorting.msg import BeltState as BeltStateMessage
from battery_sorting.ros import convert, qos
from battery_sorting.ros.lasting import printable
from battery_sorting.ros.node import DeviceNode
from battery_sorting.ros.process import run
from battery_sorting.srv import SetBelt

POLL_S = 0.01
STATE_EVERY = 2  # polls: 50 Hz
WATCHDOG_S = 0.1
"""Between two signs of life to the PLC: by time, since a busy PLC makes polls last."""
RECONNECT_S = 0.5


SeenT = TypeVar("SeenT", types.BeltState, types.Detection, types.ExitDetection)


def _on_wall(seen: SeenT) -> SeenT:
    """With the stamp, which is of the monotonic clock, as wall time."""
    return replace(seen, stamp=time.time() - (time.monotonic() - seen.stamp))


class ConveyorNode(DeviceNode):
    """Polls the PLC at 100 Hz, publishes the belt's state at 50 Hz and every detection at once.

    The polling has a thread of its own: waking rclpy's executor costs more than asking the PLC.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("conveyor", **kwargs)
        site = self.settings.site
        self._plc: BeltPlc = find_driver("plc", site.plc.driver).from_settings(site.plc.settings)  # type: ignore[assignment]
        self._tracker = BeltTracker(
            self._plc, site.belt.mm_per_count, -site.belt.gate_offset_mm, sign_of_life=self._refresh_when_due
        )
        self._last = BeltState(stamp=0.0, error="not connected yet")
        self._polls = 0
        self._retry_at = 0.0
        self._refreshed_at = float("-inf")
        self._lock = threading.Lock()  # the PLC is used by the polling and by the services
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._states = self.create_publisher(BeltStateMessage, "belt_state", qos.STREAM)
        self._detections = self.create_publisher(BatteryDetection, "battery_detection", qos.BATTERY_EVENT)
        self._exits = self.create_publisher(ExitDetection, "exit_detection", qos.BATTERY_EVENT)
        self.create_service(SetBelt, "~/set_belt", self._on_set_belt)
        self.create_service(Trigger, "~/reset", self._on_reset)

    def open(self) -> None:
        """Connects to the PLC."""
        self._plc.connect()
        self._stop.clear()
        self._thread = self.start_thread("plc", self._run)

    def close(self) -> None:
        """Stops the belt and disconnects."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(2.0)
            self._thread = None
        self.rest()
        self._plc.disconnect()

    def rest(self) -> None:
        """Stops the belt."""
        with self._lock:
            try:
                if self._plc.connected:
                    self._plc.set_belt(False, 0.0)
            except DeviceError as error:
                self.get_logger().error(f"the belt could not be stopped: {error}")

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            if self.active:
                with self._lock:
                    self._poll()
            now = time.monotonic()
            due = max(due + POLL_S, now)  # what was missed is not made up for
            time.sleep(due - now)

    def _poll(self) -> None:
        try:
            if not self._plc.connected:
                if time.monotonic() < self._retry_at:
                    return
                self._plc.connect()
                self.recover()
            self._polls += 1
            reading = self._tracker.poll()
            if self.line_is_silent and reading.state.running:
                self.get_logger().error("the line controller is silent: the belt is stopped")
                self._plc.set_belt(False, 0.0)
        except DeviceError as error:
            self._lose(error)
            return
        self._last = _on_wall(reading.state)
        for detection in reading.detections:
            self._detections.publish(convert.detection_message(_on_wall(detection)))
        for exit_ in reading.exits:
            self._exits.publish(convert.exit_message(_on_wall(exit_)))
        if self._polls % STATE_EVERY == 0:
            self._states.publish(convert.belt_state_message(self._last))
            self.figures = {
                "speed_mps": round(reading.state.speed_mps, 3),
                "slip_percent": round(reading.state.slip * 100, 2),
                "encoder_count": reading.state.encoder_count,
            }

    def _refresh_when_due(self) -> None:
        """By time, and not once a poll: several requests that are answered late would outlast the watchdog."""
        if time.monotonic() - self._refreshed_at >= WATCHDOG_S:
            self._plc.refresh_watchdog()
            self._refreshed_at = time.monotonic()

    def _lose(self, error: DeviceError) -> None:
        self._plc.disconnect()
        self._retry_at = time.monotonic() + RECONNECT_S
        self.degrade(error)
        self._last = replace(self._last, stamp=time.time(), connected=False, error=printable(str(error)))
        self._states.publish(convert.belt_state_message(self._last))

    def _on_set_belt(self, request: SetBelt.Request, response: SetBelt.Response) -> SetBelt.Response:
        site, recipe = self.settings.site, self.settings.recipe
        speed = request.speed_mps or recipe.speed_mps
        if request.run and not site.belt.min_speed_mps <= speed <= site.belt.max_speed_mps:
            limits = f"{site.belt.min_speed_mps:g}..{site.belt.max_speed_mps:g}"
            response.success, response.message = False, f"{speed:g} m/s is outside the belt's {limits} m/s"
        elif not self.active:
            response.success, response.message = False, "the conveyor is not active"
        else:
            response.success, response.message = self._try(lambda: self._plc.set_belt(request.run, speed))
        return response

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self._try(self._reset)
        return response

    def _reset(self) -> None:
        """Acknowledges the PLC's faults; an emergency stop only when a person clears the line, which has seen it.

        Else one of a moment would be gone with the watchdog that is acknowledged, and nobody had seen it.
        """
        if self.line_state is not LineStateId.CLEARING and self._plc.read_status().emergency_stop:
            raise DeviceError("the emergency stop was pressed: release it, then clear the line")
        self._tracker.reset()

    def _try(self, action: Any) -> tuple[bool, str]:
        with self._lock:
            try:
                if self._plc.connected:
                    self._refresh_when_due()  # what follows takes several requests
                action()
            except DeviceError as error:
                if not self._plc.connected:
                    self._lose(error)
                return False, str(error)
        return True, ""


def main() -> None:
    """Entry point."""
    run(ConveyorNode)
