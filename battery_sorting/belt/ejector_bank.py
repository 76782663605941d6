"""Hands eject orders to the PLC and reports what became of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from battery_sorting.belt.ejection import aim, time_left_s
from battery_sorting.belt.site import Ejector
from battery_sorting.core.types import Detection, EjectOrder, EjectOutcome, EjectReport, make_battery_id
from battery_sorting.drivers.plc.base import EVENTS_KEPT, Ack, AckStatus, BeltPlc, Eye, PlcStatus, ValveCommand

_OUTCOMES = {
    AckStatus.QUEUED: EjectOutcome.SCHEDULED,
    AckStatus.FIRED: EjectOutcome.FIRED,
    AckStatus.EXPIRED: EjectOutcome.LATE,
    AckStatus.REJECTED: EjectOutcome.REJECTED,
    AckStatus.CANCELLED: EjectOutcome.CANCELLED,
    AckStatus.VALVE_FAULT: EjectOutcome.VALVE_FAULT,
}
"""DUPLICATE is not among them: the outcome of a token is that of its first command."""

_KEPT = 200


@dataclass
class EjectorBank:
    """The air ejectors of a line behind one PLC.

    A token that is known, here or to the PLC, is never sent to fire again; its last report is repeated instead.
    ``speed_mps`` is the belt's speed in production, for orders that are given while it stands.

    ROS names no sender of an order, so its content is compared with what the PLC itself says: only what has passed
    the photo-eye at the count that the order names can be a battery. ``refused`` counts the orders for others.
    """

    plc: BeltPlc
    ejectors: Iterable[Ejector]
    min_lead_s: float
    wall_clock: Callable[[], float]
    speed_mps: float
    _by_bin: dict[str, Ejector] = field(init=False)
    _by_valve: dict[int, Ejector] = field(init=False)
    _reports: dict[int, EjectReport] = field(default_factory=dict)
    _news: list[EjectReport] = field(default_factory=list)
    _seen_acks: int | None = None
    _boot_id: int = 0
    refused: int = field(default=0, init=False)
    _edges: dict[int, int] = field(default_factory=dict)  # number of the edge → encoder count; the last ones
    _seen_edges: int | None = None
    _heard: dict[str, int] = field(default_factory=dict)  # battery_id → encoder count, as others told it

    def __post_init__(self) -> None:
        # Where several ejectors serve one bin, the first that a battery meets is used.
        ordered = sorted(self.ejectors, key=lambda ejector: -ejector.offset_mm)
        self._by_bin = {ejector.bin: ejector for ejector in ordered}
        self._by_valve = {ejector.valve: ejector for ejector in ordered}

    def order(self, order: EjectOrder) -> list[EjectReport]:
        """Sends an order to the PLC unless it is too late or known.

        Raises:
            DeviceError: The PLC can't be asked; whether it has taken the order is unknown until the next `poll`.
        """
        ejector = self._by_bin.get(order.bin)
        if ejector is None:
            return [self._new_report(order, EjectOutcome.REJECTED, f"no ejector serves bin {order.bin}")]
        if not order.mm_per_count > 0:
            reason = f"mm_per_count is {order.mm_per_count}: the way to the valve can't be counted"
            return [self._new_report(order, EjectOutcome.REJECTED, reason)]
        status = self.plc.read_status()
        self._take_news(status)
        if order.battery_id != make_battery_id(status.boot_id, order.token):
            # Its place is in counts of a run of the PLC that has ended; its token may be another battery's now.
            return [*self._drain(), self._new_report(order, EjectOutcome.CANCELLED, "the PLC has restarted")]
        if order.token in self._reports:  # given before, to this process or to one before it
            return self._drain() or [self._reports[order.token]]
        objection = self._objection(order)
        if objection:
            self.refused += 1
            return [*self._drain(), self._new_report(order, EjectOutcome.REJECTED, objection)]
        speed_mps = status.speed_setpoint_mps if status.running else self.speed_mps
        shot = aim(ejector, order.encoder_count, order.mm_per_count, speed_mps)
        left_s = time_left_s(shot, status.encoder_count, order.mm_per_count, status.speed_mps)
        if left_s < self.min_lead_s:
            reason = f"{left_s * 1000:.0f} ms before the shot, {self.min_lead_s * 1000:.0f} are needed"
            late = self._new_report(order, EjectOutcome.LATE, reason, shot.fire_count)
            self._tell(replace(late, ack_total=self._seen_acks or 0))
            return self._drain()
        self._remember(self._new_report(order, EjectOutcome.UNKNOWN, "sent", shot.fire_count))
        self.plc.send(
            ValveCommand(order.token, ejector.valve, shot.fire_count, ejector.pulse_ms, shot.expiry_count)
        )
        return self.poll()

    def heard(self, detection: Detection) -> None:
        """Others say that a battery has passed: it counts for one that had left the PLC's ring before the start."""
        self._heard.setdefault(detection.battery_id, detection.encoder_count)
        _keep_last(self._heard)

    def poll(self) -> list[EjectReport]:
        """New acknowledgements of the PLC, as reports.

        Raises:
            DeviceError: The PLC does not answer as it should.
        """
        self._take_news(self.plc.read_status())
        return self._drain()

    def clear(self) -> list[EjectReport]:
        """Cancels all orders that have not fired."""
        self.plc.clear_queue()
        return self.poll()

    def _objection(self, order: EjectOrder) -> str:
        """Why the order can't be one for a battery that has passed the photo-eye; empty if it can."""
        count = self._edges.get(order.token)
        if count is None and order.token < min(self._edges, default=0):
            count = self._heard.get(order.battery_id)
        if count is None:
            return f"the PLC's photo-eye has seen no battery {order.token} lately: who orders that?"
        if count != order.encoder_count:
            return f"battery {order.token} was at the photo-eye at count {count}, not {order.encoder_count}"
        return ""

    def _take_news(self, status: PlcStatus) -> None:
        self._take_acks(status)
        self._take_edges(status)

    def _take_edges(self, status: PlcStatus) -> None:
        """Reads which batteries have passed the photo-eye since the last look."""
        oldest = max(0, status.eye_total - EVENTS_KEPT)
        since = oldest if self._seen_edges is None else self._seen_edges
        if status.eye_total > since:
            for latch in self.plc.read_latches(Eye.CAMERA, since, status.eye_total):
                self._edges[latch.number] = latch.encoder_count
        self._seen_edges = status.eye_total
        _keep_last(self._edges)

    def _take_acks(self, status: PlcStatus) -> None:
        """Reads the acknowledgements that are new; their reports wait in ``_news`` until they can be handed out."""
        if self._boot_id not in {0, status.boot_id}:
            self._cancel_waiting("the PLC has restarted")
            self._reports.clear()
            self._edges.clear()
            self._seen_acks = self._seen_edges = 0  # its tokens start over as well
        self._boot_id = status.boot_id
        since = max(0, status.ack_total - EVENTS_KEPT) if self._seen_acks is None else self._seen_acks
        acks = self.plc.read_acks(since, status.ack_total) if status.ack_total > since else []
        self._seen_acks = status.ack_total
        for number, ack in enumerate(acks, start=status.ack_total - len(acks) + 1):
            # One that tells nothing of its token is reported as well: who listens waits for their number.
            report = self._report(ack) if ack.status in _OUTCOMES else self._repetition(ack)
            self._tell(replace(report, ack_total=number))
        if status.ack_total - since > EVENTS_KEPT and status.queue_length == 0:
            self._cancel_waiting("its acknowledgement is lost, and nothing waits in the PLC")

    def _cancel_waiting(self, reason: str) -> None:
        """Whatever should wait in the PLC does not any more."""
        for report in list(self._reports.values()):
            if report.outcome in {EjectOutcome.UNKNOWN, EjectOutcome.SCHEDULED}:
                self._tell(replace(report, outcome=EjectOutcome.CANCELLED, stamp=self.wall_clock(), reason=reason))

    def _drain(self) -> list[EjectReport]:
        """Reports that were not handed out yet, as the connection broke just then."""
        news, self._news = self._news, []
        return news

    def _report(self, ack: Ack) -> EjectReport:
        now = self.wall_clock()
        outcome = _OUTCOMES[ack.status]
        sent = self._reports.get(ack.token)
        if sent is None:
            return self._found(ack, outcome)
        scheduled = outcome is EjectOutcome.SCHEDULED
        return replace(
            sent,
            outcome=outcome,
            fire_count=sent.fire_count if scheduled else ack.encoder_count,
            # While an order is under way its report carries the time of the picture that led to it.
            latency_s=now - sent.stamp if scheduled else float("nan"),
            stamp=now,
            reason="" if outcome in {EjectOutcome.SCHEDULED, EjectOutcome.FIRED} else ack.status.name.lower(),
        )

    def _repetition(self, ack: Ack) -> EjectReport:
        """Of an acknowledgement that changes nothing, as that of a token which the PLC knows already."""
        return self._reports.get(ack.token) or self._found(ack, EjectOutcome.UNKNOWN)

    def _found(self, ack: Ack, outcome: EjectOutcome) -> EjectReport:
        ejector = self._by_valve.get(ack.valve)
        return EjectReport(
            battery_id=make_battery_id(self._boot_id, ack.token),
            token=ack.token,
            outcome=outcome,
            bin=ejector.bin if ejector else "",
            fire_count=ack.encoder_count,
            stamp=self.wall_clock(),
            reason="found in the PLC",
        )

    def _new_report(
        self, order: EjectOrder, outcome: EjectOutcome, reason: str, fire_count: int = 0
    ) -> EjectReport:
        stamp = order.stamp if outcome is EjectOutcome.UNKNOWN else self.wall_clock()
        return EjectReport(order.battery_id, order.token, outcome, order.bin, fire_count, stamp, reason)

    def _tell(self, report: EjectReport) -> None:
        self._remember(report)
        self._news.append(report)

    def _remember(self, report: EjectReport) -> None:
        self._reports[report.token] = report
        _keep_last(self._reports)


def _keep_last(kept: dict[Any, Any]) -> None:
    while len(kept) > _KEPT:
        del kept[next(iter(kept))]
