"""Runs the line: PackML states, what happens to each battery, the ledger, alarms."""

from __future__ import annotations

from typing import Any

from std_srvs.srv import Trigger

from battery_sorting.belt.gate import EventGate
from battery_sorting.belt.line import (
    FINISHED_KEPT,
    Action,
    BeltLine,
    Dispose,
    Eject,
    Event,
    LineGeometry,
    Routing,
    Warn,
)
from battery_sorting.belt.monitor import BeltMonitor
from battery_sorting.belt.resume import bin_contents, recorded_exits, resumed_battery, shift_totals
from battery_sorting.belt.unit import BeltUnit, ClearQueue, MoveBelt, ResetPlc
from battery_sorting.core.errors import MessageError
from battery_sorting.core.types import Placement
from battery_sorting.ledger import EventKind, Record
from battery_sorting.line.contract import BELT_CONTRACT, NODES
from battery_sorting.line.resume import EMPTIED
from battery_sorting.msg import (
    BatteryDetection,
    BatteryType,
    BeltState,
    Disposition,
    EjectCommand,
    EjectResult,
    ExitDetection,
)
from battery_sorting.packml.fleet import Transition
from battery_sorting.packml.unit import StateChanged
from battery_sorting.ros import convert, qos
from battery_sorting.ros.controller import NAME, ControllerNode
from battery_sorting.ros.node import BeltSettings, run
from battery_sorting.srv import SetBelt


class BeltControllerNode(ControllerNode[BeltSettings]):
    """Wires the decisions of the line and of the cell to topics, services and the ledger.

    What it decides is in the ledger before it is sent.
    """

    unit: BeltUnit
    frame_id = "belt"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(BeltSettings, **kwargs)
        site, recipe = self.settings.site, self.settings.recipe
        self._line = BeltLine(
            Routing(recipe.routes, recipe.min_gap_mm), LineGeometry(exit_offset_mm=site.belt.exit_offset_mm)
        )
        open_batteries = self.ledger.open_batteries(site.line)
        self._gate = EventGate(record.battery_id for record in open_batteries)
        self._unreadable = 0
        self._line.restore(
            (resumed_battery(record) for record in open_batteries),
            self.ledger.finished_ids(site.line, FINISHED_KEPT),
            recorded_exits(self.ledger.events(kinds=[EventKind.EXITED], last=FINISHED_KEPT)),
            shift_totals(self.ledger, self.ledger.shift_id) if self.ledger.shift_id is not None else None,
        )
        self._vigilance = BeltMonitor(
            site.alarms.missed_in_a_row,
            site.alarms.no_image_in_a_row,
            site.alarms.no_verdict_in_a_row,
            {bin_.name: bin_.capacity for bin_ in site.bins if bin_.capacity},
        )
        self._vigilance.restore(bin_contents(self.ledger, site.line))
        self.unit = BeltUnit(
            nodes=tuple(name for name in NODES if name != NAME),
            observers=BELT_CONTRACT.observers,
            speed_mps=recipe.speed_mps,
            auto_start=self.auto_start,
            heartbeat_s=site.timeouts.heartbeat_s,
            belt_state_s=site.timeouts.belt_state_s,
        )
        self.unit.full = self._vigilance.full_bins()
        self.disk_free_mb = site.alarms.disk_free_mb
        self._make_interfaces()
        self.serve()

    def _make_interfaces(self) -> None:
        self._dispositions = self.create_publisher(Disposition, "disposition", qos.BATTERY_EVENT)
        self._orders = self.create_publisher(EjectCommand, "eject_command", qos.ORDER)
        self.create_subscription(BeltState, "belt_state", self._on_belt_state, qos.STREAM)
        for message_type, topic, convert_message, profile in (
            (BatteryDetection, "battery_detection", convert.detection, qos.BATTERY_EVENT),
            (BatteryType, "battery_type", convert.type_result, qos.BATTERY_EVENT),
            (EjectResult, "eject_result", convert.report, qos.EJECT_RESULT),
            (ExitDetection, "exit_detection", convert.exit_detection, qos.BATTERY_EVENT),
        ):
            self._subscribe_events(message_type, topic, convert_message, profile)
        self._set_belt = self.create_client(SetBelt, "conveyor/set_belt")
        self._reset_plc = self.create_client(Trigger, "conveyor/reset")
        self._clear_queue = self.create_client(Trigger, "ejector/clear")

    def _subscribe_events(self, message_type: Any, topic: str, convert_message: Any, profile: Any) -> None:
        def take(message: Any) -> None:
            event = self._read(convert_message, message)
            for one in self._gate.event(event, self.now()) if event is not None else ():
                self._handle(one)

        self.create_subscription(message_type, topic, take, profile)

    # ---- events ----

    def _read(self, convert_message: Any, message: Any) -> Any:
        """The message as a type of the core; None, counted, if no node of the cell can have sent it."""
        try:
            return convert_message(message)
        except MessageError as error:
            self._unreadable += 1
            self.get_logger().warning(f"a message was dropped: {error}", throttle_duration_sec=5.0)
            return None

    def _handle(self, event: Event) -> None:
        now = self.now()
        self._line.may_eject = self.unit.may_eject(now)
        self._perform(self._line.handle(event, now))

    def _perform(self, actions: list[Action]) -> None:
        """Carries out what was decided, the records first. Without its record nothing is moved."""
        if not actions:
            return
        written = self.write(action for action in actions if isinstance(action, Record))
        for action in actions:
            if isinstance(action, Eject) and written:
                self._orders.publish(convert.order_message(action.order))
            elif isinstance(action, Dispose):
                self._on_disposed(action.placement)
            elif isinstance(action, Warn):
                self._warn(action)

    def _on_disposed(self, placement: Placement) -> None:
        self._dispositions.publish(convert.disposition_message(placement))
        fault = self._vigilance.take(placement)
        if fault is not None:
            code, text = fault
            self.unit.latched_faults[code] = text
        self.unit.full = self._vigilance.full_bins()

    def _warn(self, warning: Warn) -> None:
        self.get_logger().warning(f"{warning.code}: {warning.text}")
        self.write([Record("alarm_raised", None, None, {"code": warning.code, "text": warning.text})])

    def _on_belt_state(self, message: BeltState) -> None:
        state = self._read(convert.belt_state, message)
        if state is None or not self._gate.takes_belt(state, self.now()):
            return
        self.unit.belt(state, self.now())
        self._handle(state)
        for event in self._gate.belt(state, self.now()):
            self._handle(event)

    # ---- the cell ----

    def tick(self, now: float) -> None:
        """Asks the cell what is to be done, and does it."""
        unheard = self._line.unheard(now)
        if unheard:
            self.unit.external_faults["reports"] = unheard
        else:
            self.unit.external_faults.pop("reports", None)
        for action in self.unit.tick(now):
            if isinstance(action, MoveBelt):
                self._call(self._set_belt, SetBelt.Request(run=action.speed_mps > 0, speed_mps=action.speed_mps))
            elif isinstance(action, ResetPlc):
                self._call(self._reset_plc, Trigger.Request())
            elif isinstance(action, ClearQueue):
                self._call(self._clear_queue, Trigger.Request())
            elif isinstance(action, Transition):
                self.bring_up.ask(action)
            elif isinstance(action, StateChanged):
                self.state_changed(action)
        problems = self.unit.problems(now)
        if "encoder" in problems:
            self._perform(self._line.lose_positions())
        self.follow_alarms(problems)

    def _call(self, client: Any, request: Any) -> None:
        """Asks without waiting. What does not take is asked for again by the next ticks."""
        if client.service_is_ready():
            client.call_async(request).add_done_callback(self._look_at_answer)

    def _look_at_answer(self, future: Any) -> None:
        answer = future.result()
        if answer is not None and not answer.success and answer.message:
            self.get_logger().warning(answer.message)

    # ---- for the controller of any line ----

    def commanded(self, name: str, bin_: str) -> None:
        """A bin was emptied, or failures seen to."""
        if name == EMPTIED:
            self._vigilance.bin_was_emptied(bin_)
            self.unit.full = self._vigilance.full_bins()
        if name in {"unhold", "clear"}:
            self._vigilance.failures_were_seen_to(self._line.in_flight)

    @property
    def places(self) -> list[str]:
        """The bins."""
        return list(self.settings.site.bin_names)

    def held(self) -> dict[str, Any]:
        """What is in the bins."""
        return {"contents": self._vigilance.contents}

    @property
    def in_flight(self) -> int:
        """Batteries on the belt."""
        return len(self._line.in_flight)

    @property
    def counts(self) -> dict[str, int]:
        """Of the shift."""
        return vars(self._line.totals)

    def figures(self) -> dict[str, int]:
        """Counts, the batteries in each bin, and the messages that no node of the line can have sent."""
        contents = {f"in {bin_}": number for bin_, number in self._vigilance.contents.items()}
        return {**self.counts, **contents, "refused_messages": self._unreadable + self._gate.refused}


def main() -> None:
    """Entry point."""
    run(BeltControllerNode)
