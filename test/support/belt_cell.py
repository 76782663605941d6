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
from battery_sorting.belt.controller import BeltAction, BeltController
from battery_sorting.belt.ejector_bank import EjectorBank
from battery_sorting.belt.line import BeltLine, Dispose, Eject, Event, LineGeometry, Routing
from battery_sorting.belt.monitor import BeltMonitor
from battery_sorting.belt.resume import BeltMemory
from battery_sorting.belt.site import Ejector
from battery_sorting.belt.unit import BeltUnit, ClearQueue, MoveBelt, ResetPlc
from battery_sorting.core.types import (
    OTHERS,
    Detection,
    EjectOrder,
    LineStateId,
    Placement,
    Reason,
    TypeResult,
)
from battery_sorting.ledger import Record
from battery_sorting.ledger.events import AlarmRaised
from battery_sorting.line.contract import BELT_CONTRACT
from battery_sorting.line.controller import CommandAsked, LineEvent, NodeSpoke, carry_out
from battery_sorting.packml.fleet import Lifecycle
from battery_sorting.packml.machine import LineCommandId
from battery_sorting.packml.restart import Restart
from battery_sorting.packml.unit import StateChanged
from battery_sorting.vision.synthetic.forms import TYPE_FORMS

POLL_S = 0.01
NODES = ("conveyor", "camera", "classifier", "ejector", "archivist")
MIN_LEAD_S = 0.04
START_S = 10.0

_TO_START = {
    LineStateId.STOPPED: LineCommandId.RESET,
    LineStateId.IDLE: LineCommandId.START,
    LineStateId.ABORTED: LineCommandId.CLEAR,
    LineStateId.HELD: LineCommandId.UNHOLD,
}


def belt_controller(
    speed_mps: float, exit_offset_mm: float, capacities: dict[str, int] | None = None, run_id: str = ""
) -> BeltController:
    return BeltController(
        BeltLine(Routing({label: label for label in TYPE_FORMS}), LineGeometry(exit_offset_mm=exit_offset_mm)),
        BeltMonitor(missed_limit=3, no_image_limit=5, capacities=capacities or {}),
        BeltUnit(NODES, speed_mps, observers=BELT_CONTRACT.observers),
        [*TYPE_FORMS, OTHERS],
        run_id=run_id,
        start_s=START_S,
    )


class BeltCell:
    """The cell and its plant. The classifier is an oracle: it knows the true label and needs ``decide_s``.

    Attributes:
        placements: battery_id → last word on it.
        controller: what decides for the line.
        records: all rows for the ledger, in order.
        orders: all orders to the ejectors, in order.
        events: what the line was told and when.
        calls: all that the controller was told and when; None: a tick.
        states: what the line was, in order.
        warnings: code of an alarm → how often it was raised.
        silent: names of nodes that are silent now.
        classifier_silent: whether verdicts fail to come.
    """

    def __init__(self, speed_mps: float, seed: int = 1, decide_s: float = 0.04, **config: object) -> None:
        self.plc = PlcInProcess(seed, speed_mps=speed_mps, **config)
        world = self.plc.world.config
        self.tracker = BeltTracker(self.plc, world.mm_per_count, -world.gate_offset_mm)
        ejectors = [Ejector(valve=v.valve, offset_mm=v.offset_mm, bin=v.bin) for v in world.valves]
        self.bank = EjectorBank(self.plc, ejectors, MIN_LEAD_S, lambda: self.plc.now, speed_mps)
        self.controller = belt_controller(speed_mps, world.exit_offset_mm)
        self.controller.restore(BeltMemory(Restart(auto_start=True)), self.plc.now)
        self.speed_mps = speed_mps
        self.decide_s = decide_s
        self.placements: dict[str, Placement] = {}
        self.records: list[Record] = []
        self.orders: list[EjectOrder] = []
        self.warnings: Counter[str] = Counter()
        self.states: list[LineStateId] = []
        self.events: list[tuple[Event, float, bool]] = []
        self.calls: list[tuple[Event | LineEvent | None, float]] = []
        self.silent: set[str] = set()
        self.classifier_silent = False
        self._verdicts: list[tuple[float, int, TypeResult]] = []
        self._numbers = itertools.count()
        self._polls = 0

    @property
    def now(self) -> float:
        return self.plc.now

    @property
    def line(self) -> BeltLine:
        return self.controller.line

    @property
    def unit(self) -> BeltUnit:
        return self.controller.unit

    def run(self, seconds: float) -> None:
        until = self.plc.world.t_s + seconds
        while self.plc.world.t_s < until - 1e-9:
            self.step()

    def run_until_empty(self, limit_s: float = 1000.0) -> None:
        """Until every battery of the plant is in a bin and the line has said its last word on each."""
        until = self.plc.world.t_s + limit_s
        while not self.plc.world.finished or self.line.in_flight:
            self.step()
            assert self.plc.world.t_s < until, f"{len(self.line.in_flight)} in flight, line is {self.unit.state}"

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
        command = _TO_START.get(self.unit.state)
        if command is LineCommandId.UNHOLD and not self.unit.latched_faults:
            return  # it goes on by itself when the fault is gone
        if command and not self.plc.world.faults.estop:
            self.take(CommandAsked(command, "operator"))

    def tell(self, event: Event) -> None:
        """What a node of the belt says."""
        at = len(self.events)
        self.events.append((event, self.now, False))  # before what the ejector says of the orders that follow
        self.take(event)
        self.events[at] = (event, self.now, self.line.may_eject)

    def take(self, event: Event | LineEvent) -> None:
        self.calls.append((event, self.now))
        self.perform(self.controller.handle(event, self.now))

    def perform(self, actions: list[BeltAction]) -> None:
        carry_out(actions, self.controller.need_records, self._write, self._do, lambda _: None)

    def _write(self, records: list[Record]) -> bool:
        self.records += [record.stamped(self.now) for record in records]
        self.warnings.update(record.data.code for record in records if isinstance(record.data, AlarmRaised))
        return True

    def _do(self, action: BeltAction) -> None:
        if isinstance(action, Eject):
            self.orders.append(action.order)
            self._tell_all(self.bank.order(action.order))
        elif isinstance(action, Dispose):
            assert action.placement.battery_id not in self.placements, "a second last word"
            self.placements[action.placement.battery_id] = action.placement
        elif isinstance(action, MoveBelt) and "conveyor" not in self.silent:
            self.plc.set_belt(action.speed_mps > 0, action.speed_mps or self.speed_mps)
        elif isinstance(action, ResetPlc) and "conveyor" not in self.silent:
            self.tracker.reset()
        elif isinstance(action, ClearQueue) and "ejector" not in self.silent:
            self._tell_all(self.bank.clear())
        elif isinstance(action, StateChanged):
            self.states.append(action.state)

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
            self.tell(reading.state)

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
                self.take(NodeSpoke(name, Lifecycle.ACTIVE, True))
        self.calls.append((None, self.now))
        self.perform(self.controller.tick(self.now))
