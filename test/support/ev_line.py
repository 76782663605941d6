"""An EV line in one process, without ROS: its controller and a ledger; the nodes do as they are told.

What is ordered is done after a while, unless the node is away. `EvLine.crash` ends the controller and begins
another one from what the ledger holds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from battery_sorting.core.types import LineStateId, make_battery_id
from battery_sorting.ev.controller import (
    CellRead,
    CountStation,
    EvAction,
    EvController,
    HandedOver,
    Inspect,
    InspectionEnded,
    ReadCells,
    Send,
    StationCounted,
)
from battery_sorting.ev.flow import (
    Flow,
    FlowEvent,
    FlowLayout,
    Grade,
    Graded,
    Move,
    MoveEnded,
    Regrouped,
    TestEnded,
)
from battery_sorting.ev.flow import Test as TestCell
from battery_sorting.ev.orders import Order, OrderEnded
from battery_sorting.ev.resume import StationAccount, read_ev_memory
from battery_sorting.ev.unit import EvUnit
from battery_sorting.ledger import Record
from battery_sorting.ledger.backlog import Backlog
from battery_sorting.ledger.events import Decided, Detected, Disposed, Released
from battery_sorting.ledger.store import Ledger
from battery_sorting.line.controller import CommandAsked, NodeSpoke, Withheld, carry_out
from battery_sorting.line.resume import resume_line
from battery_sorting.packml.fleet import Lifecycle

LINE, RUN, BOOT = "ev", "run-1", 0x6A000001
NODES = ("inspection", "robot", "tester", "grader")
OUTLETS = ("product", "reject", "hazardous", "quarantine")
TICK_S = 0.05
WORK_S = 0.2
MEASURED = {
    "programme": "capacity",
    "capacity_ah": 18.0,
    "capacity_uncertainty_ah": 0.02,
    "resistance_mohm": 1.6,
    "resistance_uncertainty_mohm": 0.01,
    "ocv_v": 3.3,
    "ocv_uncertainty_v": 0.0004,
}


class EvLine:
    """The line. Every third cell is a reject.

    Attributes:
        controller: What decides for the line.
        calls: All that it was told and when; None: a tick.
        moves: What the robot was told to do.
        faults: Codes of what befalls the cells that are inspected from now on.
        away: Nodes that take no order now.
        started_anew: Nodes that are their own successors.
    """

    def __init__(self, folder: Path, cells: int = 7, capacities: dict[str, int] | None = None) -> None:
        self.path, self.cells = folder / "ledger.sqlite", cells
        self.capacities = capacities or {}
        self.now = 0.0
        self.calls: list[tuple[Any, float]] = []
        self.moves: list[Move] = []
        self.faults: tuple[str, ...] = ()
        self.away: set[str] = set()
        self.started_anew: set[str] = set()
        self._inspected = 0
        self._due: list[tuple[float, Callable[[], Any]]] = []
        self.ledger = Ledger.open(self.path, now=lambda: self.now)
        self._begin()

    def _begin(self) -> None:
        how = resume_line(self.ledger, LINE, RUN, wanted=True)
        if self.ledger.shift_id is None:
            self.ledger.begin_shift(LINE, "sim_ev", self.now)
        self.account = StationAccount(self.ledger, LINE, OUTLETS)
        self.backlog = Backlog(self.ledger, _refused, lambda: self.now)
        self.controller = self.new_controller()
        self.memory = read_ev_memory(self.account, ("product",), how)
        self.perform(self.controller.restore(self.memory, self.now))

    def new_controller(self) -> EvController:
        trays = {"tray_1": 10, "leftover": 10, "recycle": 10, "quarantine": 10}
        layout = FlowLayout((1, 2), 6, trays, batch=0, reseats=1, reject=frozenset({"D"}))
        outlets = {name: self.capacities.get(name) for name in OUTLETS}
        return EvController(EvUnit(NODES), Flow(layout), outlets, faults_in_a_row=2, run_id=RUN, start_s=10.0)

    def crash(self) -> None:
        """The controller ends where it stands; who was told to do something ends it, and is not heard."""
        self.ledger.close()  # the shift is not ended
        self.ledger = Ledger.open(self.path, now=lambda: self.now)
        self._due.clear()
        self._begin()

    # ---- running ----

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.step()

    def run_until(self, done: Callable[[], bool], limit_s: float = 120.0) -> None:
        until = self.now + limit_s
        while not done():
            self.step()
            assert self.now < until, f"{self.controller.unit.state}: {self.controller.summary(self.now)}"

    def step(self) -> None:
        self.now += TICK_S
        due = [do for at, do in self._due if at <= self.now]
        self._due = [entry for entry in self._due if entry[0] > self.now]
        for do in due:
            do()
        for name in NODES:
            lifecycle = Lifecycle.UNCONFIGURED if name in self.started_anew else Lifecycle.ACTIVE
            self.take(NodeSpoke(name, lifecycle, lifecycle is Lifecycle.ACTIVE))
        self.calls.append((None, self.now))
        self.perform(self.controller.tick(self.now))

    def take(self, event: Any) -> None:
        self.calls.append((event, self.now))
        self.perform(self.controller.handle(event, self.now))

    def command(self, command: int, place: str = "") -> None:
        self.take(CommandAsked(command, "anna", "a test", place))

    def perform(self, actions: list[EvAction]) -> None:
        carry_out(
            actions, EvController.need_records, self.backlog.write, self._do, lambda it: self.take(Withheld(it))
        )

    @property
    def state(self) -> LineStateId:
        return self.controller.unit.state

    @property
    def all_put_away(self) -> bool:
        """Whether every cell has left the loader and lies in a tray or an outlet."""
        return self._inspected == self.cells and not self.ledger.open_batteries(LINE)

    # ---- what is done ----

    def _do(self, action: EvAction) -> None:
        if isinstance(action, Inspect):
            self._later(lambda: self._inspect(action.number))
        elif isinstance(action, Send):
            self._send(action.order)
        elif isinstance(action, ReadCells):
            for battery_id in action.battery_ids:
                battery = self.ledger.battery(battery_id)
                self.take(CellRead(battery_id, battery is not None and battery.bin is None))
        elif isinstance(action, CountStation):
            self.account.refresh()
            self.take(StationCounted(dict(self.account.totals), dict(self.account.contents)))

    def _later(self, do: Callable[[], Any]) -> None:
        self._due.append((self.now + WORK_S, do))

    def _inspect(self, number: int) -> None:
        if self._inspected == self.cells:
            self.take(InspectionEnded(number, taken=True, loader_empty=True))
            return
        self._inspected += 1
        cell = make_battery_id(BOOT, self._inspected)
        outlet = "quarantine" if self.faults else "reject" if self._inspected % 3 == 0 else "product"
        records = [
            Record(Detected(trigger_count=self._inspected, encoder_count=0), cell),
            Record(Decided(bin=outlet, reason="good", text="because"), cell),
            Record(Released(outlet=outlet), cell),
        ]
        if outlet != "product":
            records.append(Record(Disposed(bin=outlet, reason="good"), cell))
        assert self.backlog.write(records)
        if outlet == "product":
            self.take(HandedOver(cell))
        self.take(InspectionEnded(number, taken=True, battery_id=cell, faults=self.faults))

    def _send(self, order: Order) -> None:
        if isinstance(order, Move):
            self.moves.append(order)
        node = "robot" if isinstance(order, Move) else "tester" if isinstance(order, TestCell) else "grader"
        if node in self.away:
            self.take(Withheld(Send(order)))
        else:
            self._later(lambda: self.take(OrderEnded(order, _outcome(order))))


def _outcome(order: Order) -> FlowEvent:
    if isinstance(order, Move):
        return MoveEnded(order.battery_id, order.target)
    if isinstance(order, TestCell):
        return TestEnded(order.battery_id, "measured", MEASURED)
    if isinstance(order, Grade):
        return Graded(order.battery_id, "A", "ok", {"relation_degree": 0.9, "probabilities": [1.0], "reason": ""})
    return Regrouped(dict.fromkeys(order.cells, "pack_1"), {})


def _refused(text: str) -> None:
    raise AssertionError(text)
