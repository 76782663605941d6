"""What happens to each battery on the belt: the decisions of the belt line.

`BeltLine.handle` is a pure function of (state, event, now): no clock, no I/O, no randomness. What has to happen
outside comes back as a list of actions in the order in which they must be carried out: a `Record` stands before the
`Eject` that relies on it. So a recorded conveyor can be replayed to the same decisions at any speed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from battery_sorting.core.types import (
    NOWHERE,
    OTHERS,
    BeltState,
    Detection,
    EjectOrder,
    EjectOutcome,
    EjectReport,
    ExitDetection,
    Placement,
    Reason,
    TypeResult,
    boot_of,
    count_difference,
    number_of,
)
from battery_sorting.ledger import Record
from battery_sorting.ledger.events import Decided, Detected, Disposed, EjectOrdered, EjectReported, Exited, Typed

FINISHED_KEPT = 1000
"""So many ids of batteries that are done with are remembered, to know an event that is delivered again. As many
exits are, and verdicts on batteries that were not announced yet."""

REPLAY_S = 2.0
"""After a restart what was published meanwhile is delivered within this time, each kind for itself: so long no
battery is given up that may have been seen at the end."""

REPORTS_S = 2.0
"""Reports of a battery's end that are missing for longer than this are a fault. Those of a run of the PLC that is
over are not waited for any longer."""

RUNS_KEPT = 4
"""Runs of the PLC whose counts are remembered."""

Event = Detection | TypeResult | EjectReport | ExitDetection | BeltState


@dataclass(frozen=True, slots=True)
class Eject:
    """An order to the ejectors."""

    order: EjectOrder


@dataclass(frozen=True, slots=True)
class Dispose:
    """The last word on a battery."""

    placement: Placement


@dataclass(frozen=True, slots=True)
class Warn:
    """Something that a person should know of."""

    code: str
    text: str


Action = Record | Eject | Dispose | Warn


@dataclass(frozen=True, slots=True)
class LineGeometry:
    """Distances from the photo-eye (mm) and tolerances of the belt line.

    ``exit_tolerance_mm`` is how far from its predicted place at the exit eye a battery is still recognised: well
    above the error of the prediction (8 mm at most on the simulated plant, with stops), below half the smallest
    distance between batteries, and below that of two that the eyes ahead took for one. After ``grace_mm`` beyond
    the exit eye a battery that has not been seen there has left the belt before.
    """

    exit_offset_mm: float
    exit_tolerance_mm: float = 20.0
    grace_mm: float = 100.0


@dataclass(frozen=True, slots=True)
class Routing:
    """Which type goes to which bin, and what is too close to be ejected alone."""

    routes: Mapping[str, str]
    min_gap_mm: float = 60.0


@dataclass(frozen=True, slots=True)
class Due:
    """A battery must have left the belt: what must have been heard before the last word on it, and since when (s).

    The PLC had counted ``exits`` edges of the exit eye and given ``acks`` acknowledgements by then.
    """

    exits: int
    acks: int
    since: float


@dataclass
class Battery:
    """State of one battery between the photo-eye and the end of the belt.

    ``origin_mm`` is how far the belt had travelled when the battery was at the photo-eye; None: not known yet.
    """

    detection: Detection
    verdict: TypeResult | None = None
    bin: str = OTHERS
    reason: Reason | None = None  # None: not decided yet
    token: int = 0
    outcome: EjectOutcome = EjectOutcome.UNKNOWN
    exited: bool = False
    lost: bool = False
    origin_mm: float | None = None
    due: Due | None = None

    @property
    def battery_id(self) -> str:
        """The battery's id."""
        return self.detection.battery_id

    @property
    def boot_id(self) -> int:
        """The run of the PLC that it was detected in."""
        return boot_of(self.battery_id)

    @property
    def may_be_fired(self) -> bool:
        """Whether it is lost, and the report that it lies in its bin may still be on its way."""
        return self.lost and not self.exited and self.token > 0 and self.outcome <= EjectOutcome.SCHEDULED


@dataclass
class PlcRun:
    """What is known of one run of the PLC; all its counts start over with the next.

    Attributes:
        detections: Of so many edges of the photo-eye it is known what they were. Each kind of report comes in its
            order, so the highest number tells.
        exits: The same of the exit eye.
        acks: The same of the acknowledgements of ejections.
        exit_total: Edges of the exit eye that the PLC had counted when the belt's state was last read.
        ack_total: Acknowledgements that it had given by then.
        running: Whether it ran then.
        encoder_count: Where the belt was then; None: not known yet.
        travel_mm: How far it had travelled by then. Each step counts with the slip of its time.
        mm_per_count: The travel per count then (mm).
    """

    detections: int = 0
    exits: int = 0
    acks: int = 0
    exit_total: int = 0
    ack_total: int = 0
    running: bool = False
    encoder_count: int | None = None
    travel_mm: float = 0.0
    mm_per_count: float = 0.1

    def move(self, belt: BeltState) -> None:
        """Takes a state of the belt."""
        if self.encoder_count is not None:
            self.travel_mm += count_difference(belt.encoder_count, self.encoder_count) * belt.mm_per_count
        self.encoder_count, self.mm_per_count, self.running = belt.encoder_count, belt.mm_per_count, belt.running
        self.exit_total, self.ack_total = belt.exit_total, belt.ack_total

    def travel_at(self, encoder_count: int) -> float:
        """How far the belt had travelled at a count (mm), of which the last state must not be far."""
        if self.encoder_count is None:
            return 0.0
        return self.travel_mm + count_difference(encoder_count, self.encoder_count) * self.mm_per_count

    def has_told(self, due: Due) -> bool:
        """Whether all that was to be heard has been heard."""
        return self.exits >= due.exits and self.acks >= due.acks


@dataclass
class Totals:
    """Counts of the shift."""

    detected: int = 0
    sorted: int = 0
    others: int = 0
    missed: int = 0
    late: int = 0
    unaccounted: int = 0
    false_triggers: int = 0

    def count(self, bin_: str, reason: str, number: int = 1) -> None:
        """Adds batteries that have gone into ``bin_`` for ``reason``."""
        self.sorted += number * (bin_ not in {OTHERS, NOWHERE})
        self.others += number * (bin_ == OTHERS)
        self.missed += number * (reason == Reason.MISSED)
        self.unaccounted += number * (reason == Reason.UNACCOUNTED)
        self.false_triggers += number * (reason == Reason.FALSE_TRIGGER)


_FAILED = {
    EjectOutcome.LATE: Reason.LATE,
    EjectOutcome.REJECTED: Reason.EJECT_REJECTED,
    EjectOutcome.CANCELLED: Reason.EJECT_CANCELLED,
    EjectOutcome.VALVE_FAULT: Reason.VALVE_FAULT,
}
"""Outcomes after which a battery is bound for *others*, with the reason."""


@dataclass
class BeltLine:
    """The batteries on the belt and what is decided on them."""

    routing: Routing
    geometry: LineGeometry
    in_flight: dict[str, Battery] = field(default_factory=dict)
    totals: Totals = field(default_factory=Totals)
    boot_id: int = 0
    may_eject: bool = False
    _belt: BeltState = field(default_factory=lambda: BeltState(stamp=0.0))
    _finished: dict[str, None] = field(default_factory=dict)  # ordered set of the last ids
    _exits: dict[tuple[int, int], None] = field(default_factory=dict)  # ordered set of the last exits
    _early: dict[str, TypeResult] = field(default_factory=dict)  # verdicts that came before their detection
    _early_reports: dict[str, EjectReport] = field(default_factory=dict)
    _early_exits: list[ExitDetection] = field(default_factory=list)  # exits that came before their detection
    _runs: dict[int, PlcRun] = field(default_factory=dict)  # by boot id
    _replayed_at: float = 0.0  # infinite from a restart to the first state of the belt

    def restore(
        self,
        batteries: Iterable[Battery],
        finished: Iterable[str],
        exits: Iterable[tuple[int, int]] = (),
        totals: Totals | None = None,
    ) -> None:
        """Takes up the batteries that the ledger knows to be on the belt, and what is done with.

        Args:
            batteries: On the belt.
            finished: Ids of the batteries that have left it.
            exits: Number and encoder count of the exits that are recorded.
            totals: Counts of the shift that goes on; None: a new one.
        """
        self.totals = totals or Totals()
        self.in_flight = {battery.battery_id: battery for battery in batteries}
        self._finished = dict.fromkeys(finished)
        for battery_id in (*self.in_flight, *self._finished):
            run = self._run(boot_of(battery_id))
            run.detections = max(run.detections, number_of(battery_id))
        self._exits = dict.fromkeys(exits)
        self._replayed_at = math.inf

    def handle(self, event: Event, now: float) -> list[Action]:
        """Takes one event at time ``now`` (s) and returns what has to be done, in order.

        An event that is delivered again, as after a restart of a node, changes nothing.
        """
        if isinstance(event, BeltState):
            return self._on_belt(event, now)
        if isinstance(event, Detection):
            run = self._run(boot_of(event.battery_id))
            run.detections = max(run.detections, event.trigger_count)
            return [*self._on_detection(event), *self._take_early_exits()]
        if isinstance(event, TypeResult):
            return self._on_type(event)
        if isinstance(event, EjectReport):
            run = self._run(boot_of(event.battery_id))
            run.acks = max(run.acks, event.ack_total)
            return self._on_eject_report(event)
        return self._on_exit(event)

    def unheard(self, now: float) -> str:
        """Which reports of the belt's end have been missing for too long at ``now`` (s); empty if none.

        Until they come, what they tell of is kept open: it may lie in a bin.
        """
        for battery in self.in_flight.values():
            due, run = battery.due, self._run(battery.boot_id)
            if due is None or now - due.since <= REPORTS_S or run.has_told(due):
                continue
            # An exit that was reported may be waiting for the ejector's reports.
            exits_wait = run.acks < due.acks and bool(self._early_exits)
            told, of, node = (
                (f"exits are reported up to number {run.exits}", due.exits, "conveyor")
                if run.exits < due.exits and not exits_wait
                else (f"ejections are reported up to acknowledgement {run.acks}", due.acks, "ejector")
            )
            return f"{told}, the PLC has counted {of}: if it stays like this, end the node {node} to start it anew"
        return ""

    def _run(self, boot_id: int) -> PlcRun:
        """The run of the PLC; 0: the present one."""
        boot_id = boot_id or self.boot_id
        if boot_id not in self._runs:
            self._runs[boot_id] = PlcRun(mm_per_count=self._belt.mm_per_count)
            while len(self._runs) > RUNS_KEPT:
                del self._runs[next(boot for boot in self._runs if boot not in {boot_id, self.boot_id})]
        return self._runs[boot_id]

    def lose_positions(self) -> list[Action]:
        """The encoder can't be trusted: nothing that is on the belt may be ejected any more."""
        actions: list[Action] = []
        for battery in self.in_flight.values():
            if not battery.lost:
                battery.lost = True
                if battery.outcome is not EjectOutcome.FIRED:  # else it lies in its bin already
                    actions += self._reject(battery, Reason.LOST_POSITION)
        return actions

    def _on_detection(self, detection: Detection) -> list[Action]:
        if detection.battery_id in self.in_flight or detection.battery_id in self._finished:
            return []
        battery = Battery(detection)
        self.in_flight[battery.battery_id] = battery
        self.totals.detected += 1
        detected = Record(Detected.of(detection), battery.battery_id, detection.stamp)
        report = self._early_reports.pop(battery.battery_id, None)
        verdict = self._early.pop(battery.battery_id, None)
        return [
            detected,
            *(self._on_eject_report(report) if report else []),  # first: what was blown out is not ordered again
            *(self._on_type(verdict) if verdict else []),
        ]

    def _on_type(self, verdict: TypeResult) -> list[Action]:
        battery = self.in_flight.get(verdict.battery_id)
        if battery is None and verdict.battery_id not in self._finished:
            # Topics are delivered independently of one another, above all when events are delivered again.
            self._early.setdefault(verdict.battery_id, verdict)
            _keep_last(self._early)
        if battery is None or battery.verdict is not None:
            return []
        battery.verdict = verdict
        typed = Record(Typed.of(verdict), battery.battery_id, verdict.stamp)
        if battery.reason is not None:  # decided already, e.g. lost
            return [typed]
        return [typed, *self._decide(battery, verdict)]

    def _decide(self, battery: Battery, verdict: TypeResult) -> list[Action]:
        objection = self._objection(battery, verdict)
        if objection is not None:
            return self._reject(battery, objection)
        battery.bin = self.routing.routes[verdict.label]
        battery.reason = Reason.SORTED
        if battery.bin == OTHERS:
            return [self._decided(battery)]
        # Ids never repeat within a run of the PLC, so a command that is sent again is known as the same one.
        battery.token = battery.detection.trigger_count
        order = EjectOrder(
            battery.battery_id,
            battery.token,
            battery.bin,
            battery.detection.encoder_count,
            self._belt.mm_per_count,
            verdict.stamp,
        )
        return [
            self._decided(battery),
            Record(EjectOrdered(battery.token, battery.bin), battery.battery_id),
            Eject(order),
        ]

    def _objection(self, battery: Battery, verdict: TypeResult) -> Reason | None:
        """Why this battery must not be ejected; None if it may."""
        routing, detection = self.routing, battery.detection
        if not verdict.accepted:
            return _reason_of(verdict.reason)
        if verdict.label not in routing.routes:
            return Reason.NOT_IN_RECIPE
        if not detection.gate_seen:
            return Reason.UNCONFIRMED
        if min(_or_inf(detection.gap_ahead_mm), _or_inf(detection.gap_behind_mm)) < routing.min_gap_mm:
            return Reason.TOO_CLOSE
        if not self.may_eject:
            return Reason.LINE_FAULT
        return None

    def _reject(self, battery: Battery, reason: Reason) -> list[Action]:
        battery.bin, battery.reason = OTHERS, reason
        return [self._decided(battery)]

    def _decided(self, battery: Battery) -> Record:
        return Record(Decided(battery.bin, str(battery.reason)), battery.battery_id)

    def _on_eject_report(self, report: EjectReport) -> list[Action]:
        battery = self.in_flight.get(report.battery_id)
        if battery is None and report.battery_id not in self._finished:
            self._early_reports[report.battery_id] = report  # after the loss of a ledger, all comes in any order
            _keep_last(self._early_reports)
        if battery is not None and battery.reason is not None and report.token != battery.token:
            return []  # of an order that the line has not given
        if battery is None or report.outcome <= battery.outcome or battery.outcome > EjectOutcome.SCHEDULED:
            return []
        battery.outcome = report.outcome
        actions: list[Action] = [Record(EjectReported.of(report), battery.battery_id, report.stamp)]
        if report.outcome is EjectOutcome.FIRED and battery.bin != report.bin:
            # It was given up after the valve had opened, but before that was known.
            battery.bin, battery.reason = report.bin, Reason.SORTED
            actions.append(self._decided(battery))
        if report.outcome in _FAILED:
            if not battery.lost:
                battery.reason = _FAILED[report.outcome]
            self.totals.late += report.outcome is EjectOutcome.LATE
        if report.outcome is EjectOutcome.VALVE_FAULT:
            actions.append(Warn("valve_fault", f"valve of bin {report.bin} did not open"))
        return actions

    def _on_exit(self, exit_: ExitDetection) -> list[Action]:
        if exit_ in self._early_exits or (exit_.exit_count, exit_.encoder_count) in self._exits:
            self._hear_exit(exit_)
            return []
        self._early_exits.append(exit_)
        return self._take_early_exits()

    def _take_early_exits(self) -> list[Action]:
        """Takes the exits of which it can be told now whose they are."""
        waiting, self._early_exits = self._early_exits, []
        actions: list[Action] = []
        for exit_ in waiting:
            if self._is_early(exit_):
                self._early_exits.append(exit_)
            else:
                actions += self._take_exit(exit_)
        return actions

    def _is_early(self, exit_: ExitDetection) -> bool:
        """Whether its battery may not have been announced yet: topics are delivered independently."""
        run = self._run(exit_.boot_id)
        if len(self._early_exits) >= FINISHED_KEPT:
            return False
        if run.encoder_count is None:
            # Where it was on the belt can't be told yet; of a run that is over it never will be.
            return exit_.boot_id > 0 and exit_.boot_id >= self.boot_id
        if run is self._run(self.boot_id) and self._may_be_misplaced(exit_, run):
            return True
        if self._fitting(exit_) is not None:
            return False
        return run.detections < exit_.detection_total or (
            run.acks < run.ack_total and any(battery.may_be_fired for battery in self.in_flight.values())
        )

    def _may_be_misplaced(self, exit_: ExitDetection, run: PlcRun) -> bool:
        """Whether the encoder may have stood still while the belt went on: its count tells nothing then.

        The next state of the belt shows it counting on; else its fault is found, and positions are lost.
        """
        if not run.running or run.encoder_count is None:
            return False
        placed = any(not (battery.lost or battery.exited) for battery in self.in_flight.values())
        return placed and count_difference(run.encoder_count, exit_.encoder_count) <= 0

    def _hear_exit(self, exit_: ExitDetection) -> None:
        """All exits up to this one are known, but those that wait."""
        run = self._run(exit_.boot_id)
        early = [other.exit_count for other in self._early_exits if self._run(other.boot_id) is run]
        run.exits = max(run.exits, min([exit_.exit_count, *(number - 1 for number in early)]))

    def _take_exit(self, exit_: ExitDetection) -> list[Action]:
        self._exits[(exit_.exit_count, exit_.encoder_count)] = None  # the number alone starts over with the PLC
        _keep_last(self._exits)
        self._hear_exit(exit_)
        battery = self._expected_at_exit(exit_)
        record = Record(Exited.of(exit_), battery.battery_id if battery else None, exit_.stamp)
        if battery is None:
            return [record, Warn("unexpected_exit", "something fell into the last bin that no photo-eye announced")]
        battery.exited = True
        return [record]

    def _expected_at_exit(self, exit_: ExitDetection) -> Battery | None:
        """The battery whose place on the belt fits; if none does, the oldest one whose place is not known."""
        lost = (b for b in self.in_flight.values() if b.lost and not b.exited)
        return self._fitting(exit_) or next((b for b in lost if b.outcome is not EjectOutcome.FIRED), None)

    def _fitting(self, exit_: ExitDetection) -> Battery | None:
        """The battery that was at the exit eye by its place on the belt."""

        def miss_mm(battery: Battery) -> float:
            return abs(self._travel_mm(battery, exit_.encoder_count) - self.geometry.exit_offset_mm)

        boots = {0, exit_.boot_id or self.boot_id}
        placed = [b for b in self.in_flight.values() if not (b.exited or b.lost) and b.boot_id in boots]
        best = min(placed, key=miss_mm, default=None)
        return best if best is not None and miss_mm(best) <= self.geometry.exit_tolerance_mm else None

    def _on_belt(self, belt: BeltState, now: float) -> list[Action]:
        if belt.boot_id:
            self.boot_id = belt.boot_id
        self._belt = belt
        self._replayed_at = min(self._replayed_at, now + REPLAY_S)
        if not belt.connected:
            return []
        self._run(belt.boot_id).move(belt)
        actions = self._take_early_exits()
        for battery in list(self.in_flight.values()):
            if battery.boot_id == self.boot_id:
                actions += self._follow(battery, belt, now)
            else:
                actions += self._follow_stranded(battery, now)
        return actions

    def _follow(self, battery: Battery, belt: BeltState, now: float) -> list[Action]:
        """Says the last word on a battery when it must have left the belt and all that tells of it is known."""
        if now < self._replayed_at and not battery.exited:
            return []
        if battery.due is None and self._is_through(battery, belt):
            battery.due = Due(belt.exit_total, belt.ack_total, now)
        if battery.due is None or not self._run(battery.boot_id).has_told(battery.due):
            return []
        return self._finish(battery)

    def _is_through(self, battery: Battery, belt: BeltState) -> bool:
        travel_mm = self._travel_mm(battery, belt.encoder_count)
        end_mm = self.geometry.exit_offset_mm + self.geometry.grace_mm
        if battery.lost:
            # Its place is unknown: it is through when it was seen, or when the whole belt has been emptied.
            return battery.exited or travel_mm > 2 * end_mm
        return travel_mm > end_mm

    def _follow_stranded(self, battery: Battery, now: float) -> list[Action]:
        """The PLC has restarted: its counts mean something else now, and no ejection of before waits in it.

        What was neither seen at the end nor blown out is on the belt still, and will fall into the last bin.
        """
        run = self._run(battery.boot_id)
        if battery.due is None:
            battery.due = Due(run.exit_total, run.ack_total, now)
        # After a restart of ours nobody knows how much there is to hear. What was not asked of the PLC before it
        # restarted will never be heard.
        if now < self._replayed_at or not (run.has_told(battery.due) or now - battery.due.since > REPORTS_S):
            return []
        gone = battery.exited or battery.outcome is EjectOutcome.FIRED
        if not gone and not _looks_false(battery):
            battery.reason = Reason.LOST_POSITION
            battery.exited = True
        return self._finish(battery)

    def _travel_mm(self, battery: Battery, encoder_count: int) -> float:
        """How far the battery had come at an encoder count of its run of the PLC."""
        run = self._run(battery.boot_id)
        if battery.origin_mm is None:
            if run.encoder_count is None:
                return count_difference(encoder_count, battery.detection.encoder_count) * run.mm_per_count
            battery.origin_mm = run.travel_at(battery.detection.encoder_count)
        return run.travel_at(encoder_count) - battery.origin_mm

    def _finish(self, battery: Battery) -> list[Action]:
        """The battery has left the belt: says where it is, from what the eyes and the PLC saw."""
        bin_, reason = self._whereabouts(battery)
        verdict = battery.verdict
        placement = Placement(
            battery_id=battery.battery_id,
            bin=bin_,
            reason=reason,
            stamp=verdict.stamp if verdict else battery.detection.stamp,
            label=verdict.label if verdict else "",
            confidence=verdict.confidence if verdict else math.nan,
        )
        del self.in_flight[battery.battery_id]
        self._finished[battery.battery_id] = None
        _keep_last(self._finished)
        self.totals.count(bin_, reason)
        actions: list[Action] = [
            Record(Disposed(bin_, str(reason)), battery.battery_id),
            Dispose(placement),
        ]
        if reason is Reason.UNACCOUNTED:
            actions.append(
                Warn("unaccounted", f"battery {battery.battery_id} was neither ejected nor seen at the end")
            )
        return actions

    def _whereabouts(self, battery: Battery) -> tuple[str, Reason]:
        ordered = battery.reason is Reason.SORTED and battery.bin != OTHERS
        fired = battery.outcome is EjectOutcome.FIRED
        if battery.exited and battery.lost and fired:
            return NOWHERE, Reason.UNACCOUNTED  # whatever was seen at the end need not have been this one
        if battery.exited:
            if ordered and battery.outcome is EjectOutcome.UNKNOWN:
                return OTHERS, Reason.LINE_FAULT  # the order never reached the ejector, e.g. lost in a crash
            if ordered:
                return OTHERS, Reason.MISSED
            return OTHERS, battery.reason or Reason.NO_DECISION
        if fired:
            return battery.bin, Reason.SORTED
        if _looks_false(battery):
            return NOWHERE, Reason.FALSE_TRIGGER
        return NOWHERE, Reason.UNACCOUNTED


def _looks_false(battery: Battery) -> bool:
    """Neither the gate nor the camera has seen anything."""
    verdict = battery.verdict
    seen_by_camera = verdict is not None and verdict.reason not in {Reason.NO_IMAGE, Reason.BAD_IMAGE}
    return not battery.detection.gate_seen and not seen_by_camera


def _keep_last(kept: dict[Any, Any]) -> None:
    while len(kept) > FINISHED_KEPT:
        del kept[next(iter(kept))]


def _reason_of(text: str) -> Reason:
    try:
        return Reason(text)
    except ValueError:
        return Reason.LOW_CONFIDENCE


def _or_inf(gap_mm: float) -> float:
    return math.inf if math.isnan(gap_mm) else gap_mm
