"""Runs the belt line: a node around `belt.controller.BeltController`."""

from __future__ import annotations

from typing import Any

from std_srvs.srv import Trigger

from battery_sorting.belt.controller import BeltController
from battery_sorting.belt.line import Dispose, Eject
from battery_sorting.belt.resume import read_belt_memory
from battery_sorting.belt.unit import ClearQueue, MoveBelt, ResetPlc
from battery_sorting.core.errors import MessageError
from battery_sorting.msg import (
    BatteryDetection,
    BatteryType,
    BeltState,
    Disposition,
    EjectCommand,
    EjectResult,
    ExitDetection,
)
from battery_sorting.ros import convert, qos
from battery_sorting.ros.controller import ControllerNode
from battery_sorting.ros.process import run
from battery_sorting.ros.settings import BeltSettings
from battery_sorting.srv import SetBelt


class BeltControllerNode(ControllerNode[BeltSettings]):
    """Wires the decisions of the belt line to topics, services and the ledger."""

    controller: BeltController
    frame_id = "belt"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(BeltSettings, **kwargs)
        site = self.settings.site
        self._unreadable = 0
        self.disk_free_mb = site.alarms.disk_free_mb
        self.controller = BeltController.of(site, self.settings.recipe, self.settings.run_id)
        self.controller.restore(read_belt_memory(self.keeper.ledger, site.line, self.restart), self.now())
        self._dispositions = self.create_publisher(Disposition, "disposition", qos.BATTERY_EVENT)
        self._orders = self.create_publisher(EjectCommand, "eject_command", qos.ORDER)
        for message_type, topic, convert_message, profile in (
            (BeltState, "belt_state", convert.belt_state, qos.STREAM),
            (BatteryDetection, "battery_detection", convert.detection, qos.BATTERY_EVENT),
            (BatteryType, "battery_type", convert.type_result, qos.BATTERY_EVENT),
            (EjectResult, "eject_result", convert.report, qos.EJECT_RESULT),
            (ExitDetection, "exit_detection", convert.exit_detection, qos.BATTERY_EVENT),
        ):
            self._subscribe(message_type, topic, convert_message, profile)
        self._set_belt = self.create_client(SetBelt, "conveyor/set_belt")
        self._reset_plc = self.create_client(Trigger, "conveyor/reset")
        self._clear_queue = self.create_client(Trigger, "ejector/clear")
        self.serve()

    def _subscribe(self, message_type: Any, topic: str, convert_message: Any, profile: Any) -> None:
        """What no node of the line can have sent is dropped and counted."""

        def take(message: Any) -> None:
            try:
                event = convert_message(message)
            except MessageError as error:
                self._unreadable += 1
                self.get_logger().warning(f"a message was dropped: {error}", throttle_duration_sec=5.0)
            else:
                self.take(event)

        self.create_subscription(message_type, topic, take, profile)

    def do(self, action: Any) -> None:
        """Publishes orders and last words, and asks for what the belt is to do."""
        if isinstance(action, Eject):
            self._orders.publish(convert.order_message(action.order))
        elif isinstance(action, Dispose):
            self._dispositions.publish(convert.disposition_message(action.placement))
        elif isinstance(action, MoveBelt):
            self._call(self._set_belt, SetBelt.Request(run=action.speed_mps > 0, speed_mps=action.speed_mps))
        elif isinstance(action, ResetPlc):
            self._call(self._reset_plc, Trigger.Request())
        elif isinstance(action, ClearQueue):
            self._call(self._clear_queue, Trigger.Request())

    def _call(self, client: Any, request: Any) -> None:
        """Asks without waiting. What does not take is asked for again by the next ticks."""
        if client.service_is_ready():
            client.call_async(request).add_done_callback(self._look_at_answer)

    def _look_at_answer(self, future: Any) -> None:
        answer = future.result()
        if answer is not None and not answer.success and answer.message:
            self.get_logger().warning(answer.message)

    def held(self) -> dict[str, Any]:
        """What is in the bins."""
        return {"contents": self.controller.monitor.contents}

    def figures(self) -> dict[str, int]:
        """Counts, the batteries in each bin, and the messages that no node of the line can have sent."""
        return {**self.controller.figures, "refused_messages": self._unreadable + self.controller.refused}


def main() -> None:
    """Entry point."""
    run(BeltControllerNode)
