"""Runs the line: PackML states, what happens to each battery, the ledger, alarms."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from std_srvs.srv import Trigger

import battery_sorting
from battery_sorting.core.alarms import AlarmBook
from battery_sorting.core.backlog import Backlog, follow_ledger
from battery_sorting.core.cell import CellController, ClearQueue, MoveBelt, ResetPlc
from battery_sorting.core.errors import LedgerError
from battery_sorting.core.fleet import Transition
from battery_sorting.core.ledger import EventKind, Ledger
from battery_sorting.core.line import (
    FINISHED_KEPT,
    Action,
    BeltLine,
    Dispose,
    Eject,
    Event,
    LineGeometry,
    Record,
    Routing,
    Warn,
)
from battery_sorting.core.packml import CommandNotAllowedError, LineCommandId, LineStateId
from battery_sorting.core.paths import ledger_location
from battery_sorting.core.plan import NODES
from battery_sorting.core.resume import recorded_exits, resumed_battery
from battery_sorting.core.types import Placement
from battery_sorting.core.unit import StateChanged
from battery_sorting.core.vigilance import Vigilance
from battery_sorting.msg import (
    BatteryDetection,
    BatteryType,
    BeltState,
    Disposition,
    EjectCommand,
    EjectResult,
    ExitDetection,
    Heartbeat,
    LineState,
)
from battery_sorting.ros import convert, qos
from battery_sorting.ros.bring_up import BringUp
from battery_sorting.ros.node import CellSettings, ParentWatch, publish_diagnostics, run
from battery_sorting.srv import LineCommand, SetBelt

TICK_S = 0.05
STATE_S = 0.2
_RESUMABLE = {
    LineStateId.STARTING,
    LineStateId.EXECUTE,
    LineStateId.HOLDING,
    LineStateId.HELD,
    LineStateId.UNHOLDING,
}


class LineController(Node):  # type: ignore[misc]
    """Wires the decisions of the line and of the cell to topics, services and the ledger.

    It is the only one that writes the history of batteries. What it decides is in the ledger before it is sent.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("line_controller", **kwargs)
        self.settings = CellSettings(self)
        site, recipe = self.settings.site, self.settings.recipe
        # Real hardware moves when a person says so.
        auto_start = bool(self.declare_parameter("auto_start", site.simulated).value)
        self._line = BeltLine(
            Routing(recipe.routes, recipe.min_gap_mm), LineGeometry(exit_offset_mm=site.belt.exit_offset_mm)
        )
        self._vigilance = Vigilance(
            site.alarms.missed_in_a_row,
            site.alarms.no_image_in_a_row,
            {bin_.name: bin_.capacity for bin_ in site.bins if bin_.capacity},
        )
        self._started_at = time.time()
        self._alarms = AlarmBook()
        self._ledger = Ledger.open(ledger_location(site, self.settings.run_dir))
        self._backlog = Backlog(self._ledger, self.get_logger().error)
        resumed = self._resume()
        self._cell = CellController(
            nodes=tuple(name for name in NODES if name != "line_controller"),
            speed_mps=recipe.speed_mps,
            auto_start=auto_start or resumed,
            heartbeat_s=site.timeouts.heartbeat_s,
            belt_state_s=site.timeouts.belt_state_s,
        )
        self._make_interfaces()
        if self.settings.exit_with_parent:
            ParentWatch(self)

    def _make_interfaces(self) -> None:
        self._states = self.create_publisher(LineState, "line_state", qos.STREAM)
        self._dispositions = self.create_publisher(Disposition, "disposition", qos.BATTERY_EVENT)
        self._orders = self.create_publisher(EjectCommand, "eject_command", qos.ORDER)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.STREAM)
        self.create_subscription(Heartbeat, "heartbeat", self._on_heartbeat, qos.STREAM)
        self.create_subscription(BeltState, "belt_state", self._on_belt_state, qos.STREAM)
        for message_type, topic, convert_message in (
            (BatteryDetection, "detection", convert.detection),
            (BatteryType, "battery_type", convert.type_result),
            (EjectResult, "eject_result", convert.report),
            (ExitDetection, "exit", convert.exit_detection),
        ):
            self._subscribe_events(message_type, topic, convert_message)
        self._set_belt = self.create_client(SetBelt, "conveyor/set_belt")
        self._reset_plc = self.create_client(Trigger, "conveyor/reset")
        self._clear_queue = self.create_client(Trigger, "ejector/clear")
        self._bring_up = BringUp(self, self._cell.nodes)
        self.create_service(LineCommand, "~/command", self._on_command)
        self.create_timer(TICK_S, self._tick)
        self.create_timer(STATE_S, self._publish_state)
        self.create_timer(1.0, self._publish_diagnostics)

    def _subscribe_events(self, message_type: Any, topic: str, convert_message: Any) -> None:
        self.create_subscription(
            message_type, topic, lambda message: self._handle(convert_message(message)), qos.BATTERY_EVENT
        )

    # ---- ledger ----

    def _resume(self) -> bool:
        """Goes on where the ledger ends. Returns whether the line was running when it was cut off."""
        site = self.settings.site
        shift_id = self._ledger.resume_shift(site.line)
        was_running = False
        if shift_id is not None:
            states = self._ledger.events(shift_id, kinds=[EventKind.LINE_STATE], last=1)
            was_running = bool(states) and states[-1].payload["state"] in {int(state) for state in _RESUMABLE}
            self.get_logger().warning("the last shift was cut off: going on with it")
        else:
            config = {"site": site.model_dump(mode="json"), "recipe": self.settings.recipe.model_dump(mode="json")}
            self._ledger.begin_shift(
                site.line, site.name, time.time(), software_version=battery_sorting.__version__, config=config
            )
        self._line.restore(
            (resumed_battery(record) for record in self._ledger.open_batteries(site.line)),
            self._ledger.finished_ids(site.line, FINISHED_KEPT),
            recorded_exits(self._ledger.events(kinds=[EventKind.EXITED], last=FINISHED_KEPT)),
        )
        return was_running

    def _write(self, records: Iterable[Record]) -> bool:
        """Writes records, first those that could not be written before. Returns whether all stand in the ledger."""
        written = self._backlog.write(records)
        follow_ledger(self._backlog, self._cell.external_faults, self.get_logger().error)
        return written

    # ---- events ----

    def _handle(self, event: Event) -> None:
        now = time.time()
        self._line.may_eject = self._cell.may_eject(now)
        self._perform(self._line.handle(event, now))

    def _perform(self, actions: list[Action]) -> None:
        """Carries out what was decided, the records first. Without its record nothing is moved."""
        if not actions:
            return
        written = self._write(action for action in actions if isinstance(action, Record))
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
            self._cell.latched_faults[code] = text
        self._cell.full = self._vigilance.full_bins()

    def _warn(self, warning: Warn) -> None:
        self.get_logger().warning(f"{warning.code}: {warning.text}")
        self._write([Record("alarm_raised", None, time.time(), {"code": warning.code, "text": warning.text})])

    def _on_heartbeat(self, message: Heartbeat) -> None:
        self._cell.heartbeat(message.node, message.lifecycle_state, message.ok, message.detail, time.time())

    def _on_belt_state(self, message: BeltState) -> None:
        state = convert.belt_state(message)
        self._cell.belt(state, time.time())
        self._handle(state)

    # ---- the cell ----

    def _tick(self) -> None:
        now = time.time()
        if len(self._backlog):
            self._write([])
        for action in self._cell.tick(now):
            if isinstance(action, MoveBelt):
                self._call(self._set_belt, SetBelt.Request(run=action.speed_mps > 0, speed_mps=action.speed_mps))
            elif isinstance(action, ResetPlc):
                self._call(self._reset_plc, Trigger.Request())
            elif isinstance(action, ClearQueue):
                self._call(self._clear_queue, Trigger.Request())
            elif isinstance(action, Transition):
                self._bring_up.ask(action)
            elif isinstance(action, StateChanged):
                self._on_state(action)
        problems = self._cell.problems(now)
        if "encoder" in problems:
            self._perform(self._line.lose_positions(now))
        self._follow_alarms(problems)

    def _call(self, client: Any, request: Any) -> None:
        """Asks without waiting. What does not take is asked for again by the next ticks."""
        if client.service_is_ready():
            client.call_async(request).add_done_callback(self._look_at_answer)

    def _look_at_answer(self, future: Any) -> None:
        answer = future.result()
        if answer is not None and not answer.success and answer.message:
            self.get_logger().warning(answer.message)

    def _on_state(self, change: StateChanged) -> None:
        self.get_logger().info(f"line is {change.state}: {change.reason}")
        payload = {"state": int(change.state), "name": str(change.state), "reason": change.reason}
        self._write([Record("line_state", None, time.time(), payload)])
        self._publish_state()

    def _follow_alarms(self, problems: dict[str, str]) -> None:
        """Records alarms that come and go. While the cell has time to come up, nothing is an alarm."""
        now = time.time()
        if self._cell.auto_start and now - self._started_at < self.settings.site.timeouts.start_s:
            return
        records = self._alarms.follow(problems, now)
        for record in records:
            if record.kind == "alarm_raised":
                self.get_logger().error(f"alarm {record.payload['code']}: {record.payload['text']}")
        self._write(records)

    def _on_command(self, request: LineCommand.Request, response: LineCommand.Response) -> LineCommand.Response:
        try:
            name = str(LineCommandId(request.command))
            self._cell.command(name, request.reason or "operator")
            if name == "unsuspend":
                self._vigilance.bins_were_emptied()
            if name in {"unhold", "clear"}:
                self._vigilance.failures_were_seen_to(time.time())
            response.accepted = True
            self._write([Record("command", None, time.time(), {"command": name, "reason": request.reason})])
        except (CommandNotAllowedError, ValueError) as error:
            response.accepted, response.message = False, str(error)
        response.state = int(self._cell.state)
        return response

    # ---- what others see ----

    def _publish_state(self) -> None:
        totals = self._line.totals
        self._states.publish(
            LineState(
                header=convert.header(time.time()),
                state=int(self._cell.state),
                state_name=str(self._cell.state),
                reason=self._cell.reason,
                alarms=[f"{code}: {text}" for code, text in self._cell.problems(time.time()).items()],
                in_flight=len(self._line.in_flight),
                detected=totals.detected,
                sorted=totals.sorted,
                others=totals.others,
                missed=totals.missed,
                late=totals.late,
                unaccounted=totals.unaccounted,
            )
        )

    def _publish_diagnostics(self) -> None:
        problems = self._cell.problems(time.time())
        running = self._cell.state is LineStateId.EXECUTE
        level = DiagnosticStatus.ERROR if problems else DiagnosticStatus.OK if running else DiagnosticStatus.WARN
        text = "; ".join(problems.values()) or str(self._cell.state)
        publish_diagnostics(self._diagnostics, self, level, text, vars(self._line.totals))

    def close(self) -> None:
        """Ends the shift. Batteries that are still on the belt stay open in the ledger and are taken up again."""
        try:
            if self._write([]):
                self._ledger.end_shift(time.time(), in_flight=len(self._line.in_flight))
        except LedgerError as error:
            self.get_logger().error(str(error))
        self._ledger.close()


def main() -> None:
    """Entry point."""
    run(LineController)
