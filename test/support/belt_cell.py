"""A whole belt cell in one process, without ROS: all that decides, on the simulated plant, in simulated time.

What the nodes do with messages is done here with calls, at the nodes' rates.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterable

from support.plc_in_process import PlcInProcess

from battery_sorting.belt.belt_tracker import BeltTracker
from battery_sorting.belt.ejector_bank import EjectorBank
from battery_sorting.belt.line import Action, BeltLine, Dispose, Eject, Event, LineGeometry, Routing, Warn
from battery_sorting.belt.monitor import BeltMonitor
from battery_sorting.belt.site import Ejector
from battery_sorting.belt.unit import BeltUnit, ClearQueue, MoveBelt, ResetPlc
from battery_sorting.core.types import BeltState, Detection, EjectOrder, LineStateId, Placement, Reason, TypeResult
from battery_sorting.ledger import Record
from battery_sorting.line.contract import BELT_CONTRACT
from battery_sorting.packml.fleet import Lifecycle
from battery_sorting.vision.synthetic.forms import TYPE_FORMS

POLL_S = 0.01
NODES = ("conveyor", "camera", "classifier", "ejector", "archivist")
MIN_LEAD_S = 0.04

_TO_START = {
    LineStateId.STOPPED: "reset",
    LineStateId.IDLE: "start",
    LineStateId.ABORTED: "clear",
    LineStateId.HELD: "unhold",
}


class BeltCell:
    """The cell and its plant. The classifier is an oracle: it knows the true label and needs ``decide_s``.

    Attributes:
        placements: battery_id → last word on it.
        records: all rows for the ledger, in order.
        orders: all orders to the ejectors, in order.
        events: what the line was told and when.
        silent: names of nodes that are silent now.
        classifier_silent: whether verdicts fail to come.
    """

    def __init__(self, speed_mps: float, seed: int = 1, decide_s: float = 0.04, **config: object) -> None:
        self.plc = PlcInProcess(seed, speed_mps=speed_mps, **config)
        world = self.plc.world.config
        self.tracker = BeltTracker(self.plc, world.mm_per_count, -world.gate_offset_mm)
        ejectors = [Ejector(valve=v.valve, offset_mm=v.offset_mm, bin=v.bin) for v in world.valves]
        self.bank = EjectorBank(self.plc, ejectors, MIN_LEAD_S, lambda: self.plc.now, speed_mps)
        self.line = BeltLine(
            Routing({label: label for label in TYPE_FORMS}), LineGeometry(exit_offset_mm=world.exit_offset_mm)
        )
        self.cell = BeltUnit(NODES, speed_mps, auto_start=True, observers=BELT_CONTRACT.observers)
        self.vigilance = BeltMonitor(missed_limit=3, no_image_limit=5)
        self.speed_mps = speed_mps
        self.decide_s = decide_s
        self.placements: dict[str, Placement] = {}
        self.records: list[Record] = []
        self.orders: list[EjectOrder] = []
        self.warnings: Counter[str] = Counter()
        self.states: list[LineStateId] = []
        self.events: list[tuple[Event, float, bool]] = []
        self.silent: set[str] = set()
        self.classifier_silent = False
        self._verdicts: list[tuple[float, int, TypeResult]] = []
        self._numbers = itertools.count()
        self._polls = 0

    @property
    def now(self) -> float:
        return self.plc.now

    def run(self, seconds: float) -> None:
        until = self.plc.world.t_s + seconds
        while self.plc.world.t_s < until - 1e-9:
            self.step()

    def run_until_empty(self, limit_s: float = 1000.0) -> None:
        """Until every battery of the plant is in a bin and the line has said its last word on each."""
        until = self.plc.world.t_s + limit_s
        while not self.plc.world.finished or self.line.in_flight:
            self.step()
            assert self.plc.world.t_s < until, f"{len(self.line.in_flight)} in flight, line is {self.cell.state}"

    def step(self) -> None:
        self.plc.wait(POLL_S)
        self._polls += 1
        if "conveyor" not in self.silent:
            self._poll_conveyor()
        if self._polls % 2 == 0 and "ejector" not in self.silent:
            self._tell_all(self.bank.poll())
        self._classify()
        if self._polls % 5 == 0:
            self._tick()

    def start_again(self) -> None:
        """What an operator does after a fault, one command at a time."""
        command = _TO_START.get(self.cell.state)
        if command == "unhold" and not self.cell.latched_faults:
            return  # it goes on by itself when the fault is gone
        if command and not self.plc.world.faults.estop:
            self.cell.command(command, "operator")
            self.vigilance.failures_were_seen_to(self.line.in_flight)

    def tell(self, event: Event) -> None:
        self.line.may_eject = self.cell.may_eject(self.now)
        self.events.append((event, self.now, self.line.may_eject))
        self.perform(self.line.handle(event, self.now))

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Record):
                self.records.append(action.stamped(self.now))
            elif isinstance(action, Eject):
                self.orders.append(action.order)
                self._tell_all(self.bank.order(action.order))
            elif isinstance(action, Dispose):
                assert action.placement.battery_id not in self.placements, "a second last word"
                self.placements[action.placement.battery_id] = action.placement
                self._watch(action.placement)
            elif isinstance(action, Warn):
                self.warnings[action.code] += 1

    def _watch(self, placement: Placement) -> None:
        fault = self.vigilance.take(placement)
        if fault is not None:
            self.cell.latched_faults[fault[0]] = fault[1]

    def _tell_all(self, events: Iterable[Event]) -> None:
        for event in events:
            self.tell(event)

    def _poll_conveyor(self) -> None:
        if self._polls % 10 == 1:
            self.plc.refresh_watchdog()
        reading = self.tracker.poll()
        self._tell_all(reading.detections)
        for detection in reading.detections:
            self._look(detection)
        self._tell_all(reading.exits)
        if self._polls % 2 == 0:
            self._on_belt(reading.state)

    def _on_belt(self, state: BeltState) -> None:
        self.cell.belt(state, self.now)
        self.tell(state)

    def _look(self, detection: Detection) -> None:
        verdict = self.verdict(detection)
        heapq.heappush(self._verdicts, (self.now + self.decide_s, next(self._numbers), verdict))

    def verdict(self, detection: Detection) -> TypeResult:
        """The truth, as a classifier would put it."""
        item = self.plc.items[detection.battery_id]
        stamp = detection.stamp + 0.005
        if item is None:
            return TypeResult(detection.battery_id, stamp, "", 0.1, False, Reason.BAD_IMAGE.value)
        if not item.known:
            return TypeResult(detection.battery_id, stamp, "Klarus", 0.4, False, Reason.LOW_CONFIDENCE.value)
        return TypeResult(detection.battery_id, stamp, item.label, 0.99, True)

    def _classify(self) -> None:
        while self._verdicts and self._verdicts[0][0] <= self.now:
            _, _, verdict = heapq.heappop(self._verdicts)
            if not self.classifier_silent:
                self.tell(verdict)

    def _tick(self) -> None:
        for name in NODES:
            if name not in self.silent:
                self.cell.heartbeat(name, Lifecycle.ACTIVE, True, "", self.now)
        before = self.cell.state
        for action in self.cell.tick(self.now):
            if isinstance(action, MoveBelt) and "conveyor" not in self.silent:
                self.plc.set_belt(action.speed_mps > 0, action.speed_mps or self.speed_mps)
            elif isinstance(action, ResetPlc) and "conveyor" not in self.silent:
                self.tracker.reset()
            elif isinstance(action, ClearQueue) and "ejector" not in self.silent:
                self._tell_all(self.bank.clear())
        if self.cell.state is not before:
            self.states.append(self.cell.state)
        if "encoder" in self.cell.problems(self.now):
            self.perform(self.line.lose_positions())
