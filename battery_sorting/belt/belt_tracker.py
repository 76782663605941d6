"""Turns what the PLC holds into belt states and detections."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from battery_sorting.belt.tracking import ClockOffset, Gate, SlipEstimator
from battery_sorting.core.types import BeltState, Detection, ExitDetection, count_difference, make_battery_id
from battery_sorting.drivers.plc.base import EVENTS_KEPT, BeltPlc, Eye, Latch, PlcStatus

ENCODER_PATIENCE_S = 0.3
"""A drive that runs for this long without a count has lost its encoder."""

MOST_OF_A_POLL_S = 0.1
"""So much of `ENCODER_PATIENCE_S` one poll can use up, however late it is: in a longer pause, of ours or of the
PLC's answers, the drive may have been stopped and started again."""


@dataclass(frozen=True, slots=True)
class BeltReading:
    """What one poll has found."""

    state: BeltState
    detections: list[Detection]
    exits: list[ExitDetection]


@dataclass
class BeltTracker:
    """Polls the PLC for the belt's state and the edges of its eyes.

    On the first poll, and after a restart of the PLC, it delivers again whatever the PLC's rings still hold: a
    battery that passed while nobody listened is late, but not lost.

    ``sign_of_life`` is called before each request: a poll may take several, and a PLC whose answers are slow would
    miss its host between two polls.

    All times, stamps too, are of the clock of the PLC's status: monotonic. Who publishes them turns stamps into
    wall time.
    """

    plc: BeltPlc
    nominal_mm_per_count: float
    gate_distance_mm: float
    sign_of_life: Callable[[], None] = lambda: None
    slip: SlipEstimator = field(init=False)
    gate: Gate = field(init=False)
    _clock: ClockOffset = field(default_factory=ClockOffset)
    _boot_id: int | None = None
    _seen: dict[Eye, int] = field(default_factory=dict)
    _last_eye_count: int | None = None
    _polled: PlcStatus | None = None
    _driven_s: float = 0.0  # how long the drive is known to have run since the encoder's last count
    _encoder_ok: bool = True

    def __post_init__(self) -> None:
        self._start_over()

    def poll(self) -> BeltReading:
        """Reads the PLC.

        Raises:
            DeviceError: The PLC does not answer as it should.
        """
        self.sign_of_life()
        status = self.plc.read_status()
        if status.boot_id != self._boot_id:
            self._start_over()
            self._boot_id = status.boot_id
            self._moved = (status.encoder_count, status.host_time)
        self._clock.update(status.time_ms, status.host_time, status.round_trip_s)
        self._watch_encoder(status)
        totals = {Eye.GATE: status.gate_total, Eye.CAMERA: status.eye_total, Eye.EXIT: status.exit_total}
        # All is read before anything counts as seen: what a cut connection leaves over is read again.
        latches = {eye: self._new_latches(eye, total) for eye, total in totals.items()}
        self._seen = totals
        for latch in latches[Eye.GATE]:
            self.gate.add(latch.encoder_count)
        detections = [self._detection(latch) for latch in latches[Eye.CAMERA]]
        exits = [
            ExitDetection(
                latch.number,
                latch.encoder_count,
                self._clock.to_host(latch.time_ms),
                boot_id=status.boot_id,
                detection_total=status.eye_total,
            )
            for latch in latches[Eye.EXIT]
        ]
        return BeltReading(self._state(status), detections, exits)

    def reset(self) -> None:
        """Acknowledges the faults, the PLC's and our own."""
        self.plc.reset_faults()
        self._encoder_ok = True
        self._driven_s = 0.0

    def _start_over(self) -> None:
        self.slip = SlipEstimator(self.nominal_mm_per_count, self.gate_distance_mm)
        self.gate = Gate(self.gate_distance_mm)
        self._clock = ClockOffset()
        self._seen = {}
        self._last_eye_count = None
        self._polled = None
        self._encoder_ok = True

    def _new_latches(self, eye: Eye, total: int) -> list[Latch]:
        since = self._seen.get(eye, max(0, total - EVENTS_KEPT))
        if total <= since:
            return []
        self.sign_of_life()
        return self.plc.read_latches(eye, since, total)

    def _detection(self, latch: Latch) -> Detection:
        mm_per_count = self.slip.mm_per_count
        stamp = self._clock.to_host(latch.time_ms)
        since_gate = self.gate.match(latch.encoder_count, mm_per_count)
        gap_behind_mm = self.gate.gap_behind_mm(latch.encoder_count, mm_per_count)
        if since_gate is not None:
            self.slip.update(since_gate, stamp)
        previous, self._last_eye_count = self._last_eye_count, latch.encoder_count
        # The gate knows a battery ahead that the photo-eye has missed, the photo-eye one that the gate has missed.
        gaps_ahead_mm = [self.gate.gap_ahead_mm(latch.encoder_count, mm_per_count)]
        if previous is not None:
            gaps_ahead_mm.append(count_difference(latch.encoder_count, previous) * mm_per_count)
        return Detection(
            battery_id=make_battery_id(self._boot_id or 0, latch.number),
            trigger_count=latch.number,
            encoder_count=latch.encoder_count,
            stamp=stamp,
            gap_ahead_mm=min((gap for gap in gaps_ahead_mm if not math.isnan(gap)), default=math.nan),
            gap_behind_mm=gap_behind_mm,
            gate_seen=since_gate is not None,
            seen_at=stamp,
        )

    def _watch_encoder(self, status: PlcStatus) -> None:
        before, self._polled = self._polled, status
        if before and _drives(before) and _drives(status) and status.encoder_count == before.encoder_count:
            self._driven_s += min(status.host_time - before.host_time, MOST_OF_A_POLL_S)
        else:
            self._driven_s = 0.0
        if self._driven_s > ENCODER_PATIENCE_S:
            self._encoder_ok = False

    def _state(self, status: PlcStatus) -> BeltState:
        return BeltState(
            stamp=status.host_time,
            connected=True,
            running=status.running,
            emergency_stop=status.emergency_stop,
            watchdog_tripped=status.watchdog_tripped,
            encoder_ok=self._encoder_ok,
            boot_id=status.boot_id,
            encoder_count=status.encoder_count,
            speed_mps=status.speed_mps,
            speed_setpoint_mps=status.speed_setpoint_mps,
            mm_per_count=self.slip.mm_per_count,
            slip=self.slip.slip,
            error="" if self._encoder_ok else "the drive runs, but the encoder does not count",
            exit_total=status.exit_total,
            ack_total=status.ack_total,
        )


def _drives(status: PlcStatus) -> bool:
    return status.running and status.speed_setpoint_mps > 0
