"""The air ejectors: sends each order to the PLC ahead of time and watches what becomes of it."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from std_srvs.srv import Trigger

from battery_sorting.core.errors import DeviceError
from battery_sorting.core.types import EjectOutcome, EjectReport
from battery_sorting.drivers.plc.base import BeltPlc
from battery_sorting.drivers.plc.ejector_bank import EjectorBank
from battery_sorting.drivers.registry import find_driver
from battery_sorting.msg import EjectCommand, EjectResult
from battery_sorting.ros import convert, qos
from battery_sorting.ros.node import DeviceNode, run

POLL_S = 0.05
"""Only for what became of orders: whether the PLC has taken one is read back at once."""
RECONNECT_S = 0.5


class Ejector(DeviceNode):
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
        self._results = self.create_publisher(EjectResult, "eject_result", qos.BATTERY_EVENT)
        self.create_subscription(EjectCommand, "eject_command", self._on_command, qos.ORDER)
        self.create_service(Trigger, "~/clear", self._on_clear)
        self.create_timer(POLL_S, self._poll)

    def open(self) -> None:
        """Connects to the PLC."""
        self._plc.connect()

    def close(self) -> None:
        """Cancels what has not fired and disconnects."""
        try:
            if self._plc.connected:
                self._plc.clear_queue()
        except DeviceError as error:
            self.get_logger().error(f"the valves' queue could not be cleared: {error}")
        self._plc.disconnect()

    def _on_command(self, message: EjectCommand) -> None:
        order = convert.order(message)
        if not self.active or not self._plc.connected:
            reason = "the ejector is not connected to the PLC"
            report = EjectReport(
                order.battery_id, order.token, EjectOutcome.REJECTED, order.bin, 0, time.time(), reason
            )
            self._publish([report])
            return
        try:
            self._publish(self._bank.order(order))
        except DeviceError as error:
            self._lose(error)

    def _poll(self) -> None:
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
    run(Ejector)
