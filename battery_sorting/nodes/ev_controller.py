"""Runs the EV line: PackML states, one cell after the other, alarms."""

from __future__ import annotations

import time
from typing import Any

from rclpy.action.client import ActionClient

from battery_sorting.action import InspectBattery
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
from battery_sorting.core.line import Record
from battery_sorting.core.packml import LineStateId
from battery_sorting.core.plan import node_names
from battery_sorting.core.unit import StateChanged
from battery_sorting.grading.specification import CellSpec
from battery_sorting.msg import CellAppearance, StationState
from battery_sorting.ros import qos
from battery_sorting.ros.controller import NAME, ControllerNode
from battery_sorting.ros.ev_orders import EvOrders
from battery_sorting.ros.node import EvSettings, run

_MOVING = {LineStateId.EXECUTE, LineStateId.COMPLETING, LineStateId.SUSPENDING, LineStateId.SUSPENDED}
"""States in which the robot goes on: a line that waits for an outlet to be emptied may still fill its trays."""


class LineController(ControllerNode[EvSettings]):
    """Wires `core.ev.controller` to the station's action, the services of the line and the ledger."""

    unit: EvController
    frame_id = "ev"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(EvSettings, **kwargs)
        site = self.settings.site
        self.unit = EvController(
            nodes=tuple(name for name in node_names(site) if name != NAME),
            auto_start=self.auto_start,
            heartbeat_s=site.timeouts.heartbeat_s,
        )
        self._goal: object | None = None
        self._faults_in_a_row = 0
        self._contents = self._outlet_contents()
        self._trays_full = False
        self._totals = {"detected": 0, "sorted": 0, "others": 0, "unaccounted": 0}
        self._flow = self._make_flow()
        self._orders = EvOrders(self, self._tell_flow) if self._flow is not None else None
        self.create_subscription(StationState, "station_state", self._on_station, qos.STATE)
        self.create_subscription(CellAppearance, "appearance", self._on_appearance, qos.BATTERY_EVENT)
        self._inspect = ActionClient(self, InspectBattery, "inspect_battery")
        self.serve()
        if self._flow is not None:
            behind = cells_behind_the_station(self.ledger, site.line, site.hand_over)
            filled = filled_trays(self.ledger, self.ledger.shift_id) if self.ledger.shift_id is not None else {}
            self._do(self._flow.restore(behind, time.time(), filled))

    def configuration(self) -> dict[str, Any]:
        """Site, recipe, and the specification of the cells: its file may change."""
        measuring = self.settings.recipe.measuring
        if measuring is None:
            return super().configuration()
        return super().configuration() | {"cell": CellSpec.load(measuring.spec).model_dump(mode="json")}

    def _outlet_contents(self) -> dict[str, int]:
        """Outlet → cells in it: those of the shift that goes on."""
        empty = {outlet.name: 0 for outlet in self.settings.site.outlets}
        shift_id = self.ledger.shift_id
        return empty if shift_id is None else {**empty, **outlet_contents(self.ledger, shift_id)}

    # ---- the line ----

    def _on_station(self, message: StationState) -> None:
        self.unit.emergency_stop(message.connected and message.emergency_stop)

    def tick(self, now: float) -> None:
        """Asks the line what is to be done, and does it."""
        problems = self.unit.problems(now)
        if self._goal is not None and self.unit.gone("inspection", now):
            self._goal = None  # who would answer has died; the next one takes the cell up from the ledger
            self.unit.inspection_ended(now, empty=False)
        self._drive_flow(now)
        for action in self.unit.tick(now):
            if isinstance(action, Transition):
                self.bring_up.ask(action)
            elif isinstance(action, Begin):
                self._begin()
            elif isinstance(action, StateChanged):
                self.state_changed(action)
        self.follow_alarms(problems)

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
            self.write(records)
        for action in actions:
            if isinstance(action, Warn):
                self._on_warning(action)
            elif not isinstance(action, Record) and self._orders is not None:
                self._orders.give(action)

    def _on_warning(self, warning: Warn) -> None:
        self.get_logger().error(f"{warning.code}: {warning.text}")
        if warning.code == "trays_full":
            self._trays_full = True
            self.unit.full = self._full_places()
        else:
            self.unit.latched_faults[warning.code] = warning.text

    def _on_appearance(self, message: CellAppearance) -> None:
        """The station's verdict is heard, not awaited: a controller that was started anew hears it, too."""
        if self._flow is None or message.view != "fused" or message.verdict not in self.settings.site.hand_over:
            return
        battery = self.ledger.battery(message.battery_id)
        if battery is not None and battery.bin is None:
            self._tell_flow(Arrived(message.battery_id))

    def _drive_flow(self, now: float) -> None:
        flow, orders = self._flow, self._orders
        if flow is None or orders is None:
            return
        for name in ("robot", "tester", "grader"):
            if self.unit.gone(name, now):
                orders.node_died(name)
        flow.may_move = self.unit.state in _MOVING and not self.records_wait
        self.unit.may_load = flow.may_load
        if not self.records_wait:
            self._do(flow.tick(time.time()))
        if not self.records_wait:
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
        self.unit.inspection_ended(time.time(), empty=nothing)
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
            self.unit.latched_faults["faults_in_a_row"] = text
        self.unit.full = self._full_places()

    def _full_places(self) -> list[str]:
        outlets = [
            outlet.name
            for outlet in self.settings.site.outlets
            if outlet.capacity is not None and self._contents[outlet.name] >= outlet.capacity
        ]
        return [*outlets, "trays"] if self._trays_full else outlets

    # ---- for the controller of any line ----

    def commanded(self, name: str) -> None:
        """Outlets and trays were emptied, or faults seen to."""
        if name == "unsuspend":
            self._contents = dict.fromkeys(self._contents, 0)
            self._trays_full = False
            self._tell_flow(TraysEmptied())
        if name in {"unhold", "clear"}:
            self._faults_in_a_row = 0

    @property
    def in_flight(self) -> int:
        """Cells in the station and behind it."""
        behind = self._flow.in_flight if self._flow is not None else 0
        return int(self.unit.inspecting) + behind

    @property
    def counts(self) -> dict[str, int]:
        """Of the shift."""
        return self._totals

    def figures(self) -> dict[str, int]:
        """Counts, and the cells in each outlet."""
        return {**self._totals, **self._contents}


def main() -> None:
    """Entry point."""
    run(LineController)
