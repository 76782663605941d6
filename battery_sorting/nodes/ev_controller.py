"""Runs the EV line: a node around `ev.controller.EvController`."""

from __future__ import annotations

from functools import partial
from typing import Any

from rclpy.action.client import ActionClient

from battery_sorting.action import InspectCell
from battery_sorting.core.errors import LedgerError
from battery_sorting.ev.controller import (
    CellRead,
    CountStation,
    EvController,
    HandedOver,
    Inspect,
    InspectionEnded,
    LedgerUnread,
    ReadCells,
    Send,
    StationCounted,
    StationSeen,
)
from battery_sorting.ev.inspection import Step
from battery_sorting.ev.resume import StationAccount, filled_trays, read_ev_memory
from battery_sorting.grading.specification import CellSpec
from battery_sorting.msg import CellAppearance, StationState
from battery_sorting.ros import qos
from battery_sorting.ros.controller import ControllerNode
from battery_sorting.ros.ev_orders import EvOrders
from battery_sorting.ros.process import run
from battery_sorting.ros.settings import EvSettings


class EvControllerNode(ControllerNode[EvSettings]):
    """Wires the decisions of the EV line to the station's action, the services of the line and the ledger."""

    controller: EvController
    frame_id = "ev"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(EvSettings, **kwargs)
        settings, site = self.settings, self.settings.site
        self.controller = EvController.of(site, settings.recipe, settings.kind.node_names(site), settings.run_id)
        self._account = StationAccount(self.keeper.ledger, site.line, site.outlet_names)
        self._orders = EvOrders(self, self.take)
        self._inspect = ActionClient(self, InspectCell, "inspect_cell")
        restored = self.controller.restore(read_ev_memory(self._account, site.hand_over, self.restart), self.now())
        self.create_subscription(StationState, "station_state", self._on_station, qos.STATE)
        self.create_subscription(CellAppearance, "cell_appearance", self._on_appearance, qos.BATTERY_EVENT)
        self.serve()
        self.carry_out(restored)

    def configuration(self) -> dict[str, Any]:
        """Site, recipe, and the specification of the cells: its file may change."""
        measuring = self.settings.recipe.measuring
        if measuring is None:
            return super().configuration()
        return super().configuration() | {"cell": CellSpec.load(measuring.spec).model_dump(mode="json")}

    # ---- what comes in ----

    def _on_station(self, message: StationState) -> None:
        stopped = message.connected and message.emergency_stop
        self.take(StationSeen(stopped, stuck=message.step == str(Step.STUCK)))

    def _on_appearance(self, message: CellAppearance) -> None:
        """The station's verdict is heard, not awaited: a controller that was started anew hears it, too."""
        if message.view == "fused" and message.outlet in self.settings.site.hand_over:
            self.take(HandedOver(message.battery_id))

    # ---- what is wanted ----

    def do(self, action: Any) -> None:
        """Has cells inspected, gives orders, and asks the ledger."""
        if isinstance(action, Inspect):
            self._begin(action.number)
        elif isinstance(action, Send):
            self._orders.send(action.order)
        elif isinstance(action, ReadCells):
            self._read(action)
        elif isinstance(action, CountStation):
            self._count()

    def _begin(self, number: int) -> None:
        if not self._inspect.server_is_ready():
            self.take(InspectionEnded(number))
            return
        self._inspect.send_goal_async(InspectCell.Goal()).add_done_callback(partial(self._on_goal, number))

    def _on_goal(self, number: int, future: Any) -> None:
        handle = future.result()
        if handle is None or not handle.accepted:
            self.take(InspectionEnded(number))
            return
        handle.get_result_async().add_done_callback(partial(self._on_inspected, number))

    def _on_inspected(self, number: int, future: Any) -> None:
        result = future.result().result
        self.take(
            InspectionEnded(
                number,
                taken=result.error_code != InspectCell.Result.NOT_READY,
                battery_id=result.battery_id,
                faults=tuple(result.faults),
                loader_empty=result.error_code == InspectCell.Result.EMPTY,
            )
        )

    def _read(self, action: ReadCells) -> None:
        """Asks the ledger for cells, until it can't be read."""
        for battery_id in action.battery_ids:
            try:
                battery = self.keeper.ledger.battery(battery_id)
            except LedgerError as error:
                self.take(LedgerUnread(str(error)))
                return
            self.take(CellRead(battery_id, is_open=battery is not None and battery.bin is None))

    def _count(self) -> None:
        try:
            self._account.refresh()
        except LedgerError as error:
            self.take(LedgerUnread(str(error)))
        else:
            self.take(StationCounted(dict(self._account.totals), dict(self._account.contents)))

    def held(self) -> dict[str, Any]:
        """What is in outlets and trays."""
        self._account.refresh()
        trays = filled_trays(self.keeper.ledger, self.settings.site.line)
        return {"contents": self._account.contents, "trays": trays}


def main() -> None:
    """Entry point."""
    run(EvControllerNode)
