"""Hands eject orders to the PLC and reports what became of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from battery_sorting.core.ejection import aim, time_left_s
from battery_sorting.core.site import Ejector
from battery_sorting.core.types import EjectOrder, EjectOutcome, EjectReport, make_battery_id
from battery_sorting.drivers.plc.base import BeltPlc, PlcStatus
from battery_sorting.drivers.plc.register_map import RING_LENGTH, Ack, AckStatus, ValveCommand

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
    """

    plc: BeltPlc
    ejectors: Iterable[Ejector]
    min_lead_s: float
    wall_clock: Callable[[], float]
    mm_per_count: float = 0.1
    speed_mps: float = 0.0
    _by_bin: dict[str, Ejector] = field(init=False)
    _by_valve: dict[int, Ejector] = field(init=False)
    _reports: dict[int, EjectReport] = field(default_factory=dict)
    _seen_acks: int | None = None
    _boot_id: int = 0

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
        if order.token in self._reports:
            return [self._reports[order.token]]
        ejector = self._by_bin.get(order.bin)
        if ejector is None:
            return [
                self._remember(self._new_report(order, EjectOutcome.REJECTED, f"no ejector serves bin {order.bin}"))
            ]
        status = self.plc.read_status()
        reports = self._take_acks(status)
        if order.token in self._reports:  # fired before this process was started
            return reports
        shot = aim(ejector, order.encoder_count, self.mm_per_count, self.speed_mps or status.speed_mps)
        left_s = time_left_s(shot, status.encoder_count, self.mm_per_count, status.speed_mps)
        if left_s < self.min_lead_s:
            reason = f"{left_s * 1000:.0f} ms before the shot, {self.min_lead_s * 1000:.0f} are needed"
            return [*reports, self._remember(self._new_report(order, EjectOutcome.LATE, reason, shot.fire_count))]
        self._remember(self._new_report(order, EjectOutcome.UNKNOWN, "sent", shot.fire_count))
        self.plc.send(
            ValveCommand(order.token, ejector.valve, shot.fire_count, ejector.pulse_ms, shot.expiry_count)
        )
        return reports + self._take_acks(self.plc.read_status())

    def poll(self) -> list[EjectReport]:
        """New acknowledgements of the PLC, as reports.

        Raises:
            DeviceError: The PLC does not answer as it should.
        """
        return self._take_acks(self.plc.read_status())

    def clear(self) -> list[EjectReport]:
        """Cancels all orders that have not fired."""
        self.plc.clear_queue()
        return self.poll()

    def _take_acks(self, status: PlcStatus) -> list[EjectReport]:
        reports = self._forget_other_boot(status)
        since = max(0, status.ack_total - RING_LENGTH) if self._seen_acks is None else self._seen_acks
        acks = self.plc.read_acks(since, status.ack_total) if status.ack_total > since else []
        self._seen_acks = status.ack_total
        return reports + [self._remember(self._report(ack)) for ack in acks if ack.status in _OUTCOMES]

    def _forget_other_boot(self, status: PlcStatus) -> list[EjectReport]:
        """The PLC has restarted: what waited there is gone, and its tokens start over."""
        cancelled: list[EjectReport] = []
        if self._boot_id not in {0, status.boot_id}:
            now = self.wall_clock()
            cancelled = [
                replace(report, outcome=EjectOutcome.CANCELLED, stamp=now, reason="the PLC has restarted")
                for report in self._reports.values()
                if report.outcome in {EjectOutcome.UNKNOWN, EjectOutcome.SCHEDULED}
            ]
            self._reports.clear()
            self._seen_acks = 0
        self._boot_id = status.boot_id
        return cancelled

    def _report(self, ack: Ack) -> EjectReport:
        now = self.wall_clock()
        outcome = _OUTCOMES[ack.status]
        sent = self._reports.get(ack.token)
        if sent is None:
            ejector = self._by_valve.get(ack.valve)
            return EjectReport(
                battery_id=make_battery_id(self._boot_id, ack.token),
                token=ack.token,
                outcome=outcome,
                bin=ejector.bin if ejector else "",
                fire_count=ack.encoder_count,
                stamp=now,
                reason="found in the PLC",
            )
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

    def _new_report(
        self, order: EjectOrder, outcome: EjectOutcome, reason: str, fire_count: int = 0
    ) -> EjectReport:
        stamp = order.stamp if outcome is EjectOutcome.UNKNOWN else self.wall_clock()
        return EjectReport(order.battery_id, order.token, outcome, order.bin, fire_count, stamp, reason)

    def _remember(self, report: EjectReport) -> EjectReport:
        self._reports[report.token] = report
        while len(self._reports) > _KEPT:
            del self._reports[next(iter(self._reports))]
        return report
