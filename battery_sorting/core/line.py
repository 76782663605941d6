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
    count_difference,
    make_battery_id,
)

FINISHED_KEPT = 1000
"""So many ids of batteries that are done with are remembered, to know an event that is delivered again. As many
exits are, and verdicts on batteries that were not announced yet."""

REPLAY_S = 2.0
"""After a restart what was published meanwhile is delivered within this time, each kind for itself: so long no
battery is given up that may have been seen at the end."""

Event = Detection | TypeResult | EjectReport | ExitDetection | BeltState


@dataclass(frozen=True, slots=True)
class Record:
    """A row for the ledger."""

    kind: str
    battery_id: str | None
    stamp: float
    payload: dict[str, Any]


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


@dataclass
class Battery:
    """State of one battery between the photo-eye and the end of the belt."""

    detection: Detection
    verdict: TypeResult | None = None
    bin: str = OTHERS
    reason: Reason | None = None  # None: not decided yet
    token: int = 0
    outcome: EjectOutcome = EjectOutcome.UNKNOWN
    exited: bool = False
    lost: bool = False

    @property
    def battery_id(self) -> str:
        """The battery's id."""
        return self.detection.battery_id


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
    _replayed_at: float = 0.0  # infinite from a restart to the first state of the belt

    def restore(
        self,
        batteries: Iterable[Battery],
        finished: Iterable[str],
        exits: Iterable[tuple[int, int]] = (),
    ) -> None:
        """Takes up the batteries that the ledger knows to be on the belt, and what is done with.

        Args:
            batteries: On the belt.
            finished: Ids of the batteries that have left it.
            exits: Number and encoder count of the exits that are recorded.
        """
        self.in_flight = {battery.battery_id: battery for battery in batteries}
        self._finished = dict.fromkeys(finished)
        self._exits = dict.fromkeys(exits)
        self._replayed_at = math.inf

    def handle(self, event: Event, now: float) -> list[Action]:
        """Takes one event at time ``now`` (s) and returns what has to be done, in order.

        An event that is delivered again, as after a restart of a node, changes nothing.
        """
        if isinstance(event, BeltState):
            return self._on_belt(event, now)
        if isinstance(event, Detection):
            return self._on_detection(event, now)
        if isinstance(event, TypeResult):
            return self._on_type(event, now)
        if isinstance(event, EjectReport):
            return self._on_eject_report(event, now)
        return self._on_exit(event)

    def lose_positions(self, now: float) -> list[Action]:
        """The encoder can't be trusted: nothing that is on the belt may be ejected any more."""
        actions: list[Action] = []
        for battery in self.in_flight.values():
            if not battery.lost:
                battery.lost = True
                if battery.outcome is not EjectOutcome.FIRED:  # else it lies in its bin already
                    actions += self._reject(battery, Reason.LOST_POSITION, now)
        return actions

    def _on_detection(self, detection: Detection, now: float) -> list[Action]:
        if detection.battery_id in self.in_flight or detection.battery_id in self._finished:
            return []
        battery = Battery(detection)
        self.in_flight[battery.battery_id] = battery
        self.totals.detected += 1
        detected = Record(
            "detected",
            battery.battery_id,
            detection.stamp,
            {
                "trigger_count": detection.trigger_count,
                "encoder_count": detection.encoder_count,
                "gap_ahead_mm": _finite(detection.gap_ahead_mm),
                "gap_behind_mm": _finite(detection.gap_behind_mm),
                "gate_seen": detection.gate_seen,
            },
        )
        early = self._early.pop(battery.battery_id, None)
        return [detected, *(self._on_type(early, now) if early else [])]

    def _on_type(self, verdict: TypeResult, now: float) -> list[Action]:
        battery = self.in_flight.get(verdict.battery_id)
        if battery is None and verdict.battery_id not in self._finished:
            # Topics are delivered independently of one another, above all when events are delivered again.
            self._early.setdefault(verdict.battery_id, verdict)
            _keep_last(self._early)
        if battery is None or battery.verdict is not None:
            return []
        battery.verdict = verdict
        typed = Record(
            "typed",
            battery.battery_id,
            verdict.stamp,
            {
                "label": verdict.label,
                "confidence": _finite(verdict.confidence),
                "accepted": verdict.accepted,
                "reason": verdict.reason,
                "scores": {label: round(score, 4) for label, score in verdict.scores.items()},
                "model": verdict.model,
                "inference_s": _finite(verdict.inference_s),
                "novelty": _finite(verdict.novelty),
                "views": verdict.views,
            },
        )
        if battery.reason is not None:  # decided already, e.g. lost
            return [typed]
        return [typed, *self._decide(battery, verdict, now)]

    def _decide(self, battery: Battery, verdict: TypeResult, now: float) -> list[Action]:
        objection = self._objection(battery, verdict)
        if objection is not None:
            return self._reject(battery, objection, now)
        battery.bin = self.routing.routes[verdict.label]
        battery.reason = Reason.SORTED
        if battery.bin == OTHERS:
            return [self._decided(battery, now)]
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
            self._decided(battery, now),
            Record("eject_ordered", battery.battery_id, now, {"token": battery.token, "bin": battery.bin}),
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

    def _reject(self, battery: Battery, reason: Reason, now: float) -> list[Action]:
        battery.bin, battery.reason = OTHERS, reason
        return [self._decided(battery, now)]

    def _decided(self, battery: Battery, now: float) -> Record:
        return Record("decided", battery.battery_id, now, {"bin": battery.bin, "reason": str(battery.reason)})

    def _on_eject_report(self, report: EjectReport, now: float) -> list[Action]:
        battery = self.in_flight.get(report.battery_id)
        if battery is None or report.outcome <= battery.outcome or battery.outcome > EjectOutcome.SCHEDULED:
            return []
        battery.outcome = report.outcome
        actions: list[Action] = [
            Record(
                "eject_reported",
                battery.battery_id,
                report.stamp,
                {
                    "token": report.token,
                    "outcome": report.outcome.name.lower(),
                    "fire_count": report.fire_count,
                    "reason": report.reason,
                    "latency_s": _finite(report.latency_s),
                },
            )
        ]
        if report.outcome is EjectOutcome.FIRED and battery.bin != report.bin:
            # It was given up after the valve had opened, but before that was known.
            battery.bin, battery.reason = report.bin, Reason.SORTED
            actions.append(self._decided(battery, now))
        if report.outcome in _FAILED:
            if not battery.lost:
                battery.reason = _FAILED[report.outcome]
            self.totals.late += report.outcome is EjectOutcome.LATE
        if report.outcome is EjectOutcome.VALVE_FAULT:
            actions.append(Warn("valve_fault", f"valve of bin {report.bin} did not open"))
        return actions

    def _on_exit(self, exit_: ExitDetection) -> list[Action]:
        edge = (exit_.exit_count, exit_.encoder_count)  # the number alone starts over with the PLC
        if edge in self._exits:
            return []
        self._exits[edge] = None
        _keep_last(self._exits)
        battery = self._expected_at_exit(exit_)
        record = Record(
            "exited",
            battery.battery_id if battery else None,
            exit_.stamp,
            {"exit_count": exit_.exit_count, "encoder_count": exit_.encoder_count},
        )
        if battery is None:
            return [record, Warn("unexpected_exit", "something fell into the last bin that no photo-eye announced")]
        battery.exited = True
        return [record]

    def _expected_at_exit(self, exit_: ExitDetection) -> Battery | None:
        """The battery whose place on the belt fits; if none does, the oldest one whose place is not known."""
        offset = self.geometry.exit_offset_mm

        def miss_mm(battery: Battery) -> float:
            return abs(self._travel_mm(battery, exit_.encoder_count) - offset)

        waiting = [battery for battery in self.in_flight.values() if not battery.exited]
        placed = [battery for battery in waiting if not battery.lost]
        best = min(placed, key=miss_mm, default=None)
        if best is not None and miss_mm(best) <= self.geometry.exit_tolerance_mm:
            return best
        return next((b for b in waiting if b.lost and b.outcome is not EjectOutcome.FIRED), None)

    def _on_belt(self, belt: BeltState, now: float) -> list[Action]:
        actions: list[Action] = []
        if belt.boot_id not in {0, self.boot_id}:
            self.boot_id = belt.boot_id
            actions += self._give_up_batteries_of_other_boots(now)
        self._belt = belt
        self._replayed_at = min(self._replayed_at, now + REPLAY_S)
        if not belt.connected:
            return actions
        end_mm = self.geometry.exit_offset_mm + self.geometry.grace_mm
        for battery in list(self.in_flight.values()):
            if now < self._replayed_at and not battery.exited:
                continue
            if battery.lost:
                # Its place is unknown: it is through when it was seen, or when the whole belt has been emptied.
                through = battery.exited or self._travel_mm(battery, belt.encoder_count) > 2 * end_mm
            else:
                through = self._travel_mm(battery, belt.encoder_count) > end_mm
            if through:
                actions += self._finish(battery, now)
        return actions

    def _give_up_batteries_of_other_boots(self, now: float) -> list[Action]:
        """The PLC has restarted: its counts mean something else now, and no ejection of before waits in it.

        What was neither seen at the end nor blown out is on the belt still, and will fall into the last bin.
        """
        actions: list[Action] = []
        for battery in list(self.in_flight.values()):
            if not battery.battery_id.startswith(make_battery_id(self.boot_id, 0).partition("-")[0]):
                gone = battery.exited or battery.outcome is EjectOutcome.FIRED
                if not gone and not _looks_false(battery):
                    battery.reason = Reason.LOST_POSITION
                    battery.exited = True
                actions += self._finish(battery, now)
        return actions

    def _travel_mm(self, battery: Battery, encoder_count: int) -> float:
        return count_difference(encoder_count, battery.detection.encoder_count) * self._belt.mm_per_count

    def _finish(self, battery: Battery, now: float) -> list[Action]:
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
        self._count(placement)
        actions: list[Action] = [
            Record("disposed", battery.battery_id, now, {"bin": bin_, "reason": str(reason)}),
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

    def _count(self, placement: Placement) -> None:
        totals = self.totals
        totals.sorted += placement.bin not in {OTHERS, NOWHERE}
        totals.others += placement.bin == OTHERS
        totals.missed += placement.reason is Reason.MISSED
        totals.unaccounted += placement.reason is Reason.UNACCOUNTED
        totals.false_triggers += placement.reason is Reason.FALSE_TRIGGER


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


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _or_inf(gap_mm: float) -> float:
    return math.inf if math.isnan(gap_mm) else gap_mm
