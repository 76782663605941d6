"""The air ejectors: sends each order to the PLC ahead of time and watches what becomes of it."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from std_srvs.srv import Trigger

from battery_sorting.belt.ejector_bank import EjectorBank
from battery_sorting.core.errors import DeviceError, MessageError
from battery_sorting.core.types import Alarm, EjectOutcome, EjectReport
from battery_sorting.drivers.plc.base import BeltPlc
from battery_sorting.drivers.registry import find_driver
from battery_sorting.msg import Alarm as AlarmMessage
from battery_sorting.msg import BatteryDetection, EjectCommand, EjectResult
from battery_sorting.ros import convert, qos
from battery_sorting.ros.node import DeviceNode
from battery_sorting.ros.process import run

POLL_S = 0.05
"""Only for what became of orders: whether the PLC has taken one is read back at once."""
RECONNECT_S = 0.5
FOREIGN = "foreign_order"
"""Alarm: somebody orders ejections of batteries that are not there."""
FOREIGN_S = 60.0
"""So long after the last such order the alarm is over."""


class EjectorNode(DeviceNode):
    """Has a connection to the PLC of its own, so that an order never waits behind the polling of the belt."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("ejector", **kwargs)
        site, recipe = self.settings.site, self.settings.recipe
        self._plc: BeltPlc = find_driver("plc", site.plc.driver).from_settings(site.plc.settings)  # type: ignore[assignment]
        self._bank = EjectorBank(
            self._plc,
            site.ejectors,
            min_lead_s=recipe.min_lead_ms / 1000,
            wall_clock=time.time,
            speed_mps=recipe.speed_mps,
        )
        self._outcomes: Counter[EjectOutcome] = Counter()
        self._retry_at = 0.0
        self._foreign_at: float | None = None
        self._results = self.create_publisher(EjectResult, "eject_result", qos.EJECT_RESULT)
        self._alarms = self.create_publisher(AlarmMessage, "alarm", qos.NOTICE)
        self.create_subscription(EjectCommand, "eject_command", self._on_command, qos.ORDER)
        self.create_subscription(BatteryDetection, "battery_detection", self._on_detection, qos.BATTERY_EVENT)
        self.create_service(Trigger, "~/clear", self._on_clear)
        self.create_timer(POLL_S, self._poll)

    def open(self) -> None:
        """Connects to the PLC."""
        self._plc.connect()

    def close(self) -> None:
        """Cancels what has not fired and disconnects."""
        self.rest()
        self._plc.disconnect()

    def rest(self) -> None:
        """Cancels what has not fired."""
        try:
            if self._plc.connected:
                self._plc.clear_queue()
        except DeviceError as error:
            self.get_logger().error(f"the valves' queue could not be cleared: {error}")

    def _on_detection(self, message: BatteryDetection) -> None:
        try:
            self._bank.heard(convert.detection(message))
        except MessageError as error:
            self.get_logger().warning(f"a message was dropped: {error}", throttle_duration_sec=5.0)

    def _on_command(self, message: EjectCommand) -> None:
        try:
            order = convert.order(message)
        except MessageError as error:
            self._publish([EjectReport("", message.token, EjectOutcome.REJECTED, "", 0, time.time(), str(error))])
            self._raise_foreign(str(error))
            return
        if not self.active or not self._plc.connected:
            reason = "the ejector is not connected to the PLC"
            report = EjectReport(
                order.battery_id, order.token, EjectOutcome.REJECTED, order.bin, 0, time.time(), reason
            )
            self._publish([report])
            return
        refused = self._bank.refused
        try:
            reports = self._bank.order(order)
        except DeviceError as error:
            self._lose(error)
            return
        self._publish(reports)
        if self._bank.refused > refused:
            self._raise_foreign(reports[-1].reason)

    def _raise_foreign(self, reason: str) -> None:
        """Somebody orders what the line can't have ordered."""
        if self._foreign_at is None:
            self.get_logger().error(f"order refused: {reason}")
            self._announce(reason, raised=True)
        self._foreign_at = self.now()
        self.warning = f"orders refused: {reason}"

    def _announce(self, text: str, raised: bool) -> None:
        self._alarms.publish(convert.alarm_message(Alarm(time.time(), FOREIGN, text, raised)))

    def _forget_foreign(self) -> None:
        if self._foreign_at is not None and self.now() - self._foreign_at > FOREIGN_S:
            self._foreign_at, self.warning = None, ""
            self._announce("no more orders for batteries that are not there", raised=False)

    def _poll(self) -> None:
        self._forget_foreign()
        if not self.active:
            return
        try:
            if not self._plc.connected:
                if time.monotonic() < self._retry_at:
                    return
                self._plc.connect()
                self.recover()
            self._publish(self._bank.poll())
        except DeviceError as error:
            self._lose(error)

    def _publish(self, reports: list[EjectReport]) -> None:
        for report in reports:
            self._outcomes[report.outcome] += 1
            self._results.publish(convert.report_message(report))
        if reports:
            self.figures = {outcome.name.lower(): count for outcome, count in sorted(self._outcomes.items())}
            self.figures["foreign"] = self._bank.refused

    def _lose(self, error: DeviceError) -> None:
        self._plc.disconnect()
        self._retry_at = time.monotonic() + RECONNECT_S
        self.degrade(error)

    def _on_clear(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            self._publish(self._bank.clear())
            response.success = True
        except DeviceError as error:
            self._lose(error)
            response.success, response.message = False, str(error)
        return response


def main() -> None:
    """Entry point."""
    run(EjectorNode)
