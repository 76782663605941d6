"""Runs the EV line: PackML states, one cell after the other, alarms."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.action.client import ActionClient
from rclpy.node import Node

import battery_sorting
from battery_sorting.action import InspectBattery
from battery_sorting.core.alarms import AlarmBook
from battery_sorting.core.backlog import Backlog, follow_ledger
from battery_sorting.core.errors import LedgerError
from battery_sorting.core.ev.controller import Begin, EvController
from battery_sorting.core.ev.flow import (
    Arrived,
    Flow,
    FlowAction,
    FlowEvent,
    LoaderEmpty,
    TraysEmptied,
    Warn,
)
from battery_sorting.core.ev.resume import cells_behind_the_station, filled_trays, outlet_contents
from battery_sorting.core.ev.site import PRODUCT
from battery_sorting.core.fleet import Transition
from battery_sorting.core.ledger import EventKind, Ledger
from battery_sorting.core.line import Record
from battery_sorting.core.packml import CommandNotAllowedError, LineCommandId, LineStateId
from battery_sorting.core.paths import ledger_location
from battery_sorting.core.plan import node_names
from battery_sorting.core.unit import StateChanged
from battery_sorting.grading.specification import CellSpec
from battery_sorting.msg import CellAppearance, Heartbeat, LineState, StationState
from battery_sorting.ros import convert, qos
from battery_sorting.ros.bring_up import BringUp
from battery_sorting.ros.ev_orders import EvOrders
from battery_sorting.ros.node import EvSettings, ParentWatch, publish_diagnostics, run
from battery_sorting.srv import LineCommand

TICK_S = 0.05
STATE_S = 0.2
_RESUMABLE = {
    LineStateId.STARTING,
    LineStateId.EXECUTE,
    LineStateId.HOLDING,
    LineStateId.HELD,
    LineStateId.UNHOLDING,
}
_MOVING = {LineStateId.EXECUTE, LineStateId.COMPLETING, LineStateId.SUSPENDING, LineStateId.SUSPENDED}
"""States in which the robot goes on: a line that waits for an outlet to be emptied may still fill its trays."""


class LineController(Node):  # type: ignore[misc]
    """Wires `core.ev.controller` to the station's action, the services of the line and the ledger."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("line_controller", **kwargs)
        self.settings = EvSettings(self)
        site = self.settings.site
        # Real hardware moves when a person says so.
        auto_start = bool(self.declare_parameter("auto_start", site.simulated).value)
        self._ledger = Ledger.open(ledger_location(site, self.settings.run_dir))
        self._backlog = Backlog(self._ledger, self.get_logger().error)
        resumed = self._resume()
        self._line = EvController(
            nodes=tuple(name for name in node_names(site) if name != "line_controller"),
            auto_start=auto_start or resumed,
            heartbeat_s=site.timeouts.heartbeat_s,
        )
        self._started_at = time.time()
        self._alarms = AlarmBook()
        self._goal: object | None = None
        self._faults_in_a_row = 0
        self._contents = self._outlet_contents()
        self._trays_full = False
        self._totals = {"detected": 0, "sorted": 0, "others": 0, "unaccounted": 0}
        self._flow = self._make_flow()
        self._orders = EvOrders(self, self._tell_flow) if self._flow is not None else None
        self._make_interfaces()
        if self._flow is not None:
            behind = cells_behind_the_station(self._ledger, site.line, site.hand_over)
            filled = filled_trays(self._ledger, self._ledger.shift_id) if self._ledger.shift_id is not None else {}
            self._do(self._flow.restore(behind, time.time(), filled))
        if self.settings.exit_with_parent:
            ParentWatch(self)

    def _make_interfaces(self) -> None:
        self._states = self.create_publisher(LineState, "line_state", qos.STREAM)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.STREAM)
        self.create_subscription(Heartbeat, "heartbeat", self._on_heartbeat, qos.STREAM)
        self.create_subscription(StationState, "station_state", self._on_station, qos.STATE)
        self.create_subscription(CellAppearance, "appearance", self._on_appearance, qos.BATTERY_EVENT)
        self._inspect = ActionClient(self, InspectBattery, "inspect_battery")
        self._bring_up = BringUp(self, self._line.nodes)
        self.create_service(LineCommand, "~/command", self._on_command)
        self.create_timer(TICK_S, self._tick)
        self.create_timer(STATE_S, self._publish_state)
        self.create_timer(1.0, self._publish_diagnostics)

    # ---- ledger ----

    def _resume(self) -> bool:
        """Goes on with the shift where the ledger ends. Returns whether the line was running when it was cut."""
        site = self.settings.site
        shift_id = self._ledger.resume_shift(site.line)
        if shift_id is not None:
            states = self._ledger.events(shift_id, kinds=[EventKind.LINE_STATE], last=1)
            self.get_logger().warning("the last shift was cut off: going on with it")
            return bool(states) and states[-1].payload["state"] in {int(state) for state in _RESUMABLE}
        recipe = self.settings.recipe
        config = {"site": site.model_dump(mode="json"), "recipe": recipe.model_dump(mode="json")}
        if recipe.measuring is not None:  # the files may change: what the cells were graded by is kept
            config["cell"] = CellSpec.load(recipe.measuring.spec).model_dump(mode="json")
        self._ledger.begin_shift(
            site.line, site.name, time.time(), software_version=battery_sorting.__version__, config=config
        )
        return False

    def _write(self, records: Iterable[Record]) -> None:
        """Writes records of the line, first those that could not be written before."""
        self._backlog.write(records)
        follow_ledger(self._backlog, self._line.external_faults, self.get_logger().error)

    def _outlet_contents(self) -> dict[str, int]:
        """Outlet → cells in it: those of the shift that goes on."""
        empty = {outlet.name: 0 for outlet in self.settings.site.outlets}
        shift_id = self._ledger.shift_id
        return empty if shift_id is None else {**empty, **outlet_contents(self._ledger, shift_id)}

    # ---- the line ----

    def _on_heartbeat(self, message: Heartbeat) -> None:
        self._line.heartbeat(message.node, message.lifecycle_state, message.ok, message.detail, time.time())

    def _on_station(self, message: StationState) -> None:
        self._line.emergency_stop(message.connected and message.emergency_stop)

    def _tick(self) -> None:
        now = time.time()
        if len(self._backlog):
            self._write([])
        problems = self._line.problems(now)
        if self._goal is not None and self._line.gone("inspection", now):
            self._goal = None  # who would answer has died; the next one takes the cell up from the ledger
            self._line.inspection_ended(now, empty=False)
        self._drive_flow(now)
        for action in self._line.tick(now):
            if isinstance(action, Transition):
                self._bring_up.ask(action)
            elif isinstance(action, Begin):
                self._begin()
            elif isinstance(action, StateChanged):
                self._on_state(action)
        self._follow_alarms(problems)

    # ---- behind the station ----

    def _make_flow(self) -> Flow | None:
        site, recipe = self.settings.site, self.settings.recipe.measuring
        if site.measuring is None or recipe is None:
            return None
        return Flow(site.flow_layout(recipe.batch, recipe.reseats, frozenset(recipe.reject)))

    def _tell_flow(self, event: FlowEvent) -> None:
        if self._flow is not None:
            self._do(self._flow.handle(event, time.time()))

    def _do(self, actions: list[FlowAction]) -> None:
        """Carries out what the flow wants, the records first. Without its record nothing is moved."""
        records = [action for action in actions if isinstance(action, Record)]
        if records:
            self._write(records)
        for action in actions:
            if isinstance(action, Warn):
                self._on_warning(action)
            elif not isinstance(action, Record) and self._orders is not None:
                self._orders.give(action)

    def _on_warning(self, warning: Warn) -> None:
        self.get_logger().error(f"{warning.code}: {warning.text}")
        if warning.code == "trays_full":
            self._trays_full = True
            self._line.full = self._full_places()
        else:
            self._line.latched_faults[warning.code] = warning.text

    def _on_appearance(self, message: CellAppearance) -> None:
        """The station's verdict is heard, not awaited: a controller that was started anew hears it, too."""
        if self._flow is None or message.view != "fused" or message.verdict not in self.settings.site.hand_over:
            return
        battery = self._ledger.battery(message.battery_id)
        if battery is not None and battery.bin is None:
            self._tell_flow(Arrived(message.battery_id))

    def _drive_flow(self, now: float) -> None:
        flow, orders = self._flow, self._orders
        if flow is None or orders is None:
            return
        for name in ("robot", "tester", "grader"):
            if self._line.gone(name, now):
                orders.node_died(name)
        flow.may_move = self._line.state in _MOVING and not len(self._backlog)
        self._line.may_load = flow.may_load
        if not len(self._backlog):
            self._do(flow.tick(time.time()))
        if not len(self._backlog):
            orders.send()

    # ---- one cell ----

    def _begin(self) -> None:
        goal = self._goal = object()
        if not self._inspect.server_is_ready():
            self._end(goal, None)
            return
        self._inspect.send_goal_async(InspectBattery.Goal()).add_done_callback(
            lambda future: self._on_goal(goal, future.result())
        )

    def _on_goal(self, goal: object, handle: Any) -> None:
        if handle is None or not handle.accepted:
            self._end(goal, None)
            return
        handle.get_result_async().add_done_callback(lambda future: self._end(goal, future.result().result))

    def _end(self, goal: object, result: InspectBattery.Result | None) -> None:
        """The inspection is over. A goal that could not be given is tried again after a while."""
        if goal is not self._goal:
            return
        self._goal = None
        nothing = result is None or not result.battery_id
        self._line.inspection_ended(time.time(), empty=nothing)
        if result is None:
            return
        if result.battery_id:
            self._count(result)
        self._tell_flow(LoaderEmpty(result.error_code == InspectBattery.Result.EMPTY))

    def _count(self, result: InspectBattery.Result) -> None:
        totals, site = self._totals, self.settings.site
        totals["detected"] += 1
        if not result.outlet:
            totals["unaccounted"] += 1
        elif result.outlet == PRODUCT:
            totals["sorted"] += 1
        else:
            totals["others"] += 1
        if result.outlet:
            self._contents[result.outlet] += 1
        self._faults_in_a_row = self._faults_in_a_row + 1 if result.faults else 0
        if self._faults_in_a_row >= site.alarms.faults_in_a_row:
            text = f"{self._faults_in_a_row} cells in a row with a fault, the last: {', '.join(result.faults)}"
            self._line.latched_faults["faults_in_a_row"] = text
        self._line.full = self._full_places()

    def _full_places(self) -> list[str]:
        outlets = [
            outlet.name
            for outlet in self.settings.site.outlets
            if outlet.capacity is not None and self._contents[outlet.name] >= outlet.capacity
        ]
        return [*outlets, "trays"] if self._trays_full else outlets

    # ---- what a person does and sees ----

    def _on_state(self, change: StateChanged) -> None:
        self.get_logger().info(f"line is {change.state}: {change.reason}")
        payload = {"state": int(change.state), "name": str(change.state), "reason": change.reason}
        self._write([Record("line_state", None, time.time(), payload)])
        self._publish_state()

    def _follow_alarms(self, problems: dict[str, str]) -> None:
        """Records alarms that come and go. While the line has time to come up, nothing is an alarm."""
        now = time.time()
        if self._line.auto_start and now - self._started_at < self.settings.site.timeouts.start_s:
            return
        records = self._alarms.follow(problems, now)
        for record in records:
            if record.kind == "alarm_raised":
                self.get_logger().error(f"alarm {record.payload['code']}: {record.payload['text']}")
        self._write(records)

    def _on_command(self, request: LineCommand.Request, response: LineCommand.Response) -> LineCommand.Response:
        try:
            name = str(LineCommandId(request.command))
            self._line.command(name, request.reason or "operator")
            if name == "unsuspend":
                self._contents = dict.fromkeys(self._contents, 0)
                self._trays_full = False
                self._tell_flow(TraysEmptied())
            if name in {"unhold", "clear"}:
                self._faults_in_a_row = 0
            response.accepted = True
            self._write([Record("command", None, time.time(), {"command": name, "reason": request.reason})])
        except (CommandNotAllowedError, ValueError) as error:
            response.accepted, response.message = False, str(error)
        response.state = int(self._line.state)
        return response

    def _publish_state(self) -> None:
        now = time.time()
        self._states.publish(
            LineState(
                header=convert.header(now, "ev"),
                state=int(self._line.state),
                state_name=str(self._line.state),
                reason=self._line.reason,
                alarms=[f"{code}: {text}" for code, text in self._line.problems(now).items()],
                in_flight=self._in_flight,
                **self._totals,
            )
        )

    @property
    def _in_flight(self) -> int:
        behind = self._flow.in_flight if self._flow is not None else 0
        return int(self._line.inspecting) + behind

    def _publish_diagnostics(self) -> None:
        problems = self._line.problems(time.time())
        running = self._line.state is LineStateId.EXECUTE
        level = DiagnosticStatus.ERROR if problems else DiagnosticStatus.OK if running else DiagnosticStatus.WARN
        text = "; ".join(problems.values()) or str(self._line.state)
        publish_diagnostics(self._diagnostics, self, level, text, {**self._totals, **self._contents})

    def close(self) -> None:
        """Ends the shift. A cell that is in the station stays open in the ledger and is taken up again."""
        try:
            self._write([])
            if not len(self._backlog):
                self._ledger.end_shift(time.time(), in_flight=self._in_flight)
        except LedgerError as error:
            self.get_logger().error(str(error))
        self._ledger.close()


def main() -> None:
    """Entry point."""
    run(LineController)
