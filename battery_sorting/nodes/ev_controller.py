"""Runs the EV line: PackML states, one cell after the other, alarms."""

from __future__ import annotations

from typing import Any

from rclpy.action.client import ActionClient

from battery_sorting.action import InspectCell
from battery_sorting.core.errors import LedgerError
from battery_sorting.ev.flow import (
    Arrived,
    Flow,
    FlowAction,
    FlowEvent,
    FlowWarning,
    LoaderEmpty,
    PlaceEmptied,
    TraysEmptied,
)
from battery_sorting.ev.inspection import Step
from battery_sorting.ev.resume import TRAYS, StationAccount, cells_behind_the_station, filled_trays
from battery_sorting.ev.unit import MOVING, BeginInspection, EvUnit
from battery_sorting.grading.specification import CellSpec
from battery_sorting.ledger import Record
from battery_sorting.line.contract import EV_CONTRACT
from battery_sorting.line.resume import EMPTIED
from battery_sorting.lines import node_names
from battery_sorting.msg import CellAppearance, StationState
from battery_sorting.packml.fleet import Transition
from battery_sorting.packml.unit import StateChanged
from battery_sorting.ros import qos
from battery_sorting.ros.controller import NAME, ControllerNode
from battery_sorting.ros.ev_orders import EvOrders
from battery_sorting.ros.node import EvSettings, run

UNREAD = "ledger_unread"
"""Code of the fault while the ledger can't be read."""
READ_AGAIN_S = 1.0
COUNT_S = 1.0
"""So often what the station has done is read from the ledger, beside the end of each inspection."""


class EvControllerNode(ControllerNode[EvSettings]):
    """Wires `ev.unit` to the station's action, the services of the line and the ledger."""

    unit: EvUnit
    frame_id = "ev"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(EvSettings, **kwargs)
        site = self.settings.site
        self.unit = EvUnit(
            nodes=tuple(name for name in node_names(site) if name != NAME),
            observers=EV_CONTRACT.observers,
            auto_start=self.auto_start,
            heartbeat_s=site.timeouts.heartbeat_s,
        )
        self._goal: object | None = None
        self._faults_in_a_row = 0
        self._account = StationAccount(self.ledger, site.line, [outlet.name for outlet in site.outlets])
        self._counted_at = self.now()
        self._announced: list[str] = []  # cells that the station has handed over, until the ledger was asked
        self._read_again_at = float("-inf")
        self._trays_full = False
        self.unit.full = self._full_places()
        self._flow = self._make_flow()
        self._orders = EvOrders(self, self._tell_flow, self.now) if self._flow is not None else None
        self.create_subscription(StationState, "station_state", self._on_station, qos.STATE)
        self.create_subscription(CellAppearance, "cell_appearance", self._on_appearance, qos.BATTERY_EVENT)
        self._inspect = ActionClient(self, InspectCell, "inspect_cell")
        self.serve()
        if self._flow is not None:
            behind = cells_behind_the_station(self.ledger, site.line, site.hand_over)
            self._do(self._flow.restore(behind, filled_trays(self.ledger, site.line)))

    def configuration(self) -> dict[str, Any]:
        """Site, recipe, and the specification of the cells: its file may change."""
        measuring = self.settings.recipe.measuring
        if measuring is None:
            return super().configuration()
        return super().configuration() | {"cell": CellSpec.load(measuring.spec).model_dump(mode="json")}

    # ---- the line ----

    def _on_station(self, message: StationState) -> None:
        self.unit.station(
            emergency_stop=message.connected and message.emergency_stop, stuck=message.step == str(Step.STUCK)
        )

    def tick(self, now: float) -> None:
        """Asks the line what is to be done, and does it."""
        problems = self.unit.problems(now)
        if self._goal is not None and self.unit.gone("inspection", now):
            self._goal = None  # who would answer has died; the next one takes the cell up from the ledger
            self.unit.inspection_ended(now, empty=False)
        if self._announced and now >= self._read_again_at:
            self._take_announced()
        self._drive_flow(now)
        if now - self._counted_at > COUNT_S:
            self._count(now)
        for action in self.unit.tick(now):
            if isinstance(action, Transition):
                self.bring_up.ask(action)
            elif isinstance(action, BeginInspection):
                self._begin()
            elif isinstance(action, StateChanged):
                self.state_changed(action)
        self.follow_alarms({**problems, **(self._flow.alarms if self._flow is not None else {})})

    # ---- behind the station ----

    def _make_flow(self) -> Flow | None:
        site, recipe = self.settings.site, self.settings.recipe.measuring
        if site.measuring is None or recipe is None:
            return None
        return Flow(site.flow_layout(recipe.batch, recipe.reseats, frozenset(recipe.reject)))

    def _tell_flow(self, event: FlowEvent) -> None:
        if self._flow is not None:
            self._do(self._flow.handle(event))

    def _do(self, actions: list[FlowAction]) -> None:
        """Carries out what the flow wants, the records first. Without its record nothing is moved."""
        records = [action for action in actions if isinstance(action, Record)]
        if records:
            self.write(records)
        for action in actions:
            if isinstance(action, FlowWarning):
                self._on_warning(action)
            elif not isinstance(action, Record) and self._orders is not None:
                self._orders.give(action)

    def _on_warning(self, warning: FlowWarning) -> None:
        self.get_logger().error(f"{warning.code}: {warning.text}")
        if warning.code == "trays_full":
            self._trays_full = True
            self.unit.full = self._full_places()
        else:
            self.unit.latched_faults[warning.code] = warning.text

    def _on_appearance(self, message: CellAppearance) -> None:
        """The station's verdict is heard, not awaited: a controller that was started anew hears it, too."""
        if self._flow is None or message.view != "fused" or message.outlet not in self.settings.site.hand_over:
            return
        self._announced.append(message.battery_id)
        self._take_announced()

    def _take_announced(self) -> None:
        """Cells that the ledger knows and nobody has put away. While it can't be read the line holds."""
        try:
            while self._announced:
                battery = self.ledger.battery(self._announced[0])
                battery_id = self._announced.pop(0)
                if battery is not None and battery.bin is None:
                    self._tell_flow(Arrived(battery_id))
        except LedgerError as error:
            self._read_again_at = self.now() + READ_AGAIN_S
            self._unread(error)
        else:
            self.unit.external_faults.pop(UNREAD, None)

    def _unread(self, error: LedgerError) -> None:
        if UNREAD not in self.unit.external_faults:
            self.get_logger().error(str(error))
        self.unit.external_faults[UNREAD] = str(error)

    def _drive_flow(self, now: float) -> None:
        flow, orders = self._flow, self._orders
        if flow is None or orders is None:
            return
        for name in ("robot", "tester", "grader"):
            if self.unit.started_anew(name):
                orders.node_died(name)
        well = not self.records_wait and not self.unit.problems(now)
        flow.may_move = self.unit.state in MOVING and well
        self.unit.may_load = flow.may_load
        if not self.records_wait:
            self._do(flow.tick())
        if not self.records_wait:
            orders.send(flow.may_move)

    # ---- one cell ----

    def _begin(self) -> None:
        goal = self._goal = object()
        if not self._inspect.server_is_ready():
            self._end(goal, None)
            return
        self._inspect.send_goal_async(InspectCell.Goal()).add_done_callback(
            lambda future: self._on_goal(goal, future.result())
        )

    def _on_goal(self, goal: object, handle: Any) -> None:
        if handle is None or not handle.accepted:
            self._end(goal, None)
            return
        handle.get_result_async().add_done_callback(lambda future: self._end(goal, future.result().result))

    def _end(self, goal: object, result: InspectCell.Result | None) -> None:
        """The inspection is over. A goal that could not be given is tried again after a while."""
        if goal is not self._goal:
            return
        self._goal = None
        nothing = result is None or not result.battery_id
        self.unit.inspection_ended(self.now(), empty=nothing)
        if result is None or result.error_code == InspectCell.Result.NOT_READY:
            return  # which says nothing of the loader
        if result.battery_id:
            self._count(self.now())
            self._watch_faults(result)
        self._tell_flow(LoaderEmpty(result.error_code == InspectCell.Result.EMPTY))

    def _count(self, now: float) -> None:
        self._counted_at = now
        try:
            self._account.refresh()
        except LedgerError as error:  # it is read again
            self._unread(error)
        else:
            if not self._announced:
                self.unit.external_faults.pop(UNREAD, None)
        self.unit.full = self._full_places()

    def _watch_faults(self, result: InspectCell.Result) -> None:
        self._faults_in_a_row = self._faults_in_a_row + 1 if result.faults else 0
        if self._faults_in_a_row >= self.settings.site.alarms.faults_in_a_row:
            text = f"{self._faults_in_a_row} cells in a row with a fault, the last: {', '.join(result.faults)}"
            self.unit.latched_faults["faults_in_a_row"] = text

    def _full_places(self) -> list[str]:
        outlets = [
            outlet.name
            for outlet in self.settings.site.outlets
            if outlet.capacity is not None and self._account.contents[outlet.name] >= outlet.capacity
        ]
        return [*outlets, TRAYS] if self._trays_full else outlets

    # ---- for the controller of any line ----

    def commanded(self, name: str, bin_: str) -> None:
        """An outlet or the trays were emptied, or faults seen to."""
        if name == EMPTIED:
            if bin_ == TRAYS:
                self._trays_full = False
                self._tell_flow(TraysEmptied())
            else:
                self._tell_flow(PlaceEmptied(bin_))
            self._count(self.now())
        if name == "reset":
            self._tell_flow(PlaceEmptied())  # a person has been there: what is still occupied is found so again
        if name in {"unhold", "clear"}:
            self._faults_in_a_row = 0

    @property
    def places(self) -> list[str]:
        """The outlets, the trays where there are such, and what was found occupied by nobody knows what."""
        outlets = list(self.settings.site.outlet_names)
        return outlets if self._flow is None else [*outlets, TRAYS, *self._flow.out_of_use]

    def held(self) -> dict[str, Any]:
        """What is in outlets and trays."""
        self._account.refresh()
        return {"contents": self._account.contents, "trays": filled_trays(self.ledger, self.settings.site.line)}

    @property
    def in_flight(self) -> int:
        """Cells in the station and behind it."""
        behind = self._flow.in_flight if self._flow is not None else 0
        return int(self.unit.inspecting) + behind

    @property
    def counts(self) -> dict[str, int]:
        """Of the shift."""
        return self._account.totals

    def figures(self) -> dict[str, int]:
        """Counts, and the cells in each outlet."""
        return {**self.counts, **{f"in {outlet}": number for outlet, number in self._account.contents.items()}}


def main() -> None:
    """Entry point."""
    run(EvControllerNode)
