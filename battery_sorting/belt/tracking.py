"""Where batteries are: slip of the belt, gaps between batteries, the PLC's clock. `frames` has the pictures."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from battery_sorting.core.types import count_add, count_difference

MAX_SLIP = 0.03
"""Larger differences between encoder and belt are not slip but a wrong pairing."""

MAX_SIGMAS = 5.0
"""So is what lies further from the estimate than this many standard deviations."""


CLOCK_SLACK_S = 0.006
"""By so much two samples of a device's clock may differ beyond their round trips: whole ms, and drift in 10 s."""


@dataclass
class SlipEstimator:
    """Estimates belt travel per encoder count from batteries that pass two eyes a known distance apart.

    The slip is modelled as a random walk seen through the jitter of the eyes, and filtered by a scalar Kalman
    filter. Without a measurement for a while it falls back on what it knew, with growing uncertainty: up to that
    of the start, since slip has its limits however long the belt stood.

    Attributes:
        nominal_mm_per_count: Travel per count without slip (mm).
        baseline_mm: Distance of the two eyes (mm).
        eye_jitter_mm: Standard deviation of an eye's position of the edge (mm).
        drift_per_sqrt_s: Standard deviation of the change of slip in one second.
    """

    nominal_mm_per_count: float
    baseline_mm: float
    eye_jitter_mm: float = 0.5
    drift_per_sqrt_s: float = 0.002
    slip: float = 0.0
    variance: float = MAX_SLIP**2
    _last_stamp: float | None = None

    @property
    def mm_per_count(self) -> float:
        """Belt travel per encoder count as estimated now (mm)."""
        return self.nominal_mm_per_count * (1.0 + self.slip)

    def update(self, counts: int, stamp: float) -> None:
        """Takes one battery that went from the first eye to the second in ``counts`` counts, at ``stamp`` (s)."""
        measured = self.baseline_mm / (counts * self.nominal_mm_per_count) - 1.0
        if abs(measured) > MAX_SLIP:
            return
        if self._last_stamp is not None:
            grown = self.variance + self.drift_per_sqrt_s**2 * max(stamp - self._last_stamp, 0.0)
            self.variance = min(grown, MAX_SLIP**2)
        self._last_stamp = stamp
        noise = 2.0 * (self.eye_jitter_mm / self.baseline_mm) ** 2
        if (measured - self.slip) ** 2 > MAX_SIGMAS**2 * (self.variance + noise):
            return  # should it be real, the growing variance lets it in soon
        gain = self.variance / (self.variance + noise)
        self.slip += gain * (measured - self.slip)
        self.variance *= 1.0 - gain


@dataclass
class Gate:
    """Pairs edges of the gate eye with edges of the camera's photo-eye, ``baseline_mm`` further on.

    It tells how many counts a battery needed between the two (for the slip), whether an edge at the photo-eye was
    announced by the gate at all, and how close the follower is, before a decision on the battery is made.
    """

    baseline_mm: float
    tolerance_mm: float = 9.0
    _edges: deque[int] = field(default_factory=lambda: deque(maxlen=64))

    def add(self, encoder_count: int) -> None:
        """An edge at the gate eye."""
        self._edges.append(encoder_count)

    def match(self, encoder_count: int, mm_per_count: float) -> int | None:
        """Counts since the gate edge of the battery now at the photo-eye; None if the gate did not see it."""
        best = min(self._edges, key=lambda edge: self._error(encoder_count, edge, mm_per_count), default=None)
        if best is None or self._error(encoder_count, best, mm_per_count) > self.tolerance_mm:
            return None
        return count_difference(encoder_count, best)

    def gap_behind_mm(self, encoder_count: int, mm_per_count: float) -> float:
        """Distance from the battery at the photo-eye to its follower (mm); NaN if none has passed the gate yet."""
        gaps = self._gaps(encoder_count, mm_per_count)
        return min((gap * mm_per_count for gap in gaps if gap > 0), default=math.nan)

    def gap_ahead_mm(self, encoder_count: int, mm_per_count: float) -> float:
        """Distance from the battery at the photo-eye to the one before it (mm); NaN if the gate knows of none."""
        gaps = self._gaps(encoder_count, mm_per_count)
        return min((-gap * mm_per_count for gap in gaps if gap < 0), default=math.nan)

    def _gaps(self, encoder_count: int, mm_per_count: float) -> list[int]:
        """Counts from the gate edge of the battery at the photo-eye to each edge; nothing if it has none."""
        own = self.match(encoder_count, mm_per_count)
        if own is None:
            return []
        gate_count = count_add(encoder_count, -own)
        return [count_difference(edge, gate_count) for edge in self._edges]

    def _error(self, encoder_count: int, edge: int, mm_per_count: float) -> float:
        return abs(count_difference(encoder_count, edge) * mm_per_count - self.baseline_mm)


@dataclass
class ClockOffset:
    """Maps the milliseconds of a device to the host's monotonic clock, which nobody can set.

    Each sample is the device's time and the middle of the request that asked for it, so it is wrong by half of the
    round trip at most. The sample with the shortest round trip of the last ``window_s`` is the best one. Samples
    that contradict each other show that the device's clock has been set, or has begun anew: only the newest holds
    then.
    """

    window_s: float = 10.0
    _samples: deque[tuple[float, float, int]] = field(default_factory=deque)  # host time, round trip, device time

    def update(self, device_ms: int, host_time: float, round_trip_s: float) -> None:
        """Takes one sample; times in s, ``device_ms`` in ms, 32 bits, wrapping."""
        if self._samples:
            best = min(self._samples, key=lambda sample: sample[1])
            apart_s = abs(_on_host(device_ms, best) - host_time)
            if apart_s > CLOCK_SLACK_S + (round_trip_s + best[1]) / 2:
                self._samples.clear()
        while self._samples and (
            self._samples[0][0] < host_time - self.window_s or self._samples[0][1] >= round_trip_s
        ):
            self._samples.popleft()
        self._samples.append((host_time, round_trip_s, device_ms))

    def to_host(self, device_ms: int) -> float:
        """Host time (s) of a device time (ms).

        Raises:
            ValueError: No sample was taken yet.
        """
        if not self._samples:
            raise ValueError("the device's clock has not been read yet")
        return _on_host(device_ms, min(self._samples, key=lambda sample: sample[1]))


def _on_host(device_ms: int, sample: tuple[float, float, int]) -> float:
    """Host time (s) of a device time (ms), both running on from ``sample``."""
    host_time, _, sampled_ms = sample
    return host_time + count_difference(device_ms, sampled_ms) * 1e-3
