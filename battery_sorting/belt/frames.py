"""Which frame shows which battery."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median

from battery_sorting.core.types import count_difference

FRAME_TOLERANCE_S = 0.02
"""A frame and the edge that triggered it differ by less. Batteries must come further apart than twice this."""

MAX_DRIFT = 150e-6
"""So much may the camera's clock gain or lose against the host's, in s per s: 100 ppm, and room."""

CLOCK_ERROR_S = 0.005
"""By how much edges and receipts may be misjudged: the PLC's clock counts in ms and is asked over a network."""

SHARE_OF_GAP = 0.6
"""A frame that takes longer than usual by this share of the shortest gap could be the next battery's."""

WITNESSES = 2
WITNESS_S = 0.008
"""So many frames in a row, each as near to an edge as this, must say that the constant between the counters is
another one."""

DOUBTS = 2
DOUBT_S = 0.25
"""After so many frames in a row that don't fit, or so long (s) after one with none that fits, the clocks are
compared anew: so soon that at 2 batteries/s right pairs are back within 2 s, even if that costs a frame."""

LATE = 3
LATE_S = 0.3
"""So are they after so many frames in a row, over such a time (s), that fit, but come so late that a clock set back
would explain it."""

RECENT = 8
"""Gaps between batteries that are looked at for the shortest."""

SLOW = 8
"""Frames between two comparisons of the clocks that must say alike how slow the camera is."""


@dataclass(frozen=True, slots=True)
class Expected:
    """A battery whose frame is awaited.

    Attributes:
        battery_id: Its id.
        seen_at: Time of its edge at the photo-eye (s, monotonic clock of the host).
        count: Number of that edge as the PLC counts them; 32 bits, wraps.
        series: What changes when the PLC begins to count anew: its boot id.
    """

    battery_id: str
    seen_at: float
    count: int
    series: str = ""


@dataclass(frozen=True, slots=True)
class CapturedFrame:
    """A frame that has come.

    Attributes:
        exposed_at: End of its exposure by the camera's clock, turned into the host's monotonic clock (s) by the
            last comparison of the two.
        arrived_at: When it was received (s, monotonic clock of the host).
        count: Number of its trigger as the camera counts them, or of the frame where the camera doesn't.
        frame: The frame itself.
    """

    exposed_at: float
    arrived_at: float
    count: int
    frame: object


@dataclass(frozen=True, slots=True)
class Pair:
    """A frame, and the battery that it shows."""

    battery: Expected
    shot: CapturedFrame


@dataclass(eq=False, slots=True)
class _Battery:
    expected: Expected
    open: bool = True  # its frame may still come


@dataclass(eq=False, slots=True)
class _Waiting:
    shot: CapturedFrame
    doubted: bool = False
    late: bool = False
    slow: bool = False
    witness: bool = False  # it fits a battery, but by other counts


@dataclass
class FrameMatcher:
    """Decides which frame shows which battery. What can't be told for sure is not paired.

    An unnamed frame costs a battery its bin, a wrongly named one sends it into the wrong bin. So three witnesses
    are heard, none of which knows the clock on the wall:

    - the **counts**: PLC and camera count the same edges, so their difference is a constant,
    - the **camera's clock**, by which the exposure must meet the edge,
    - the **receipt**: no frame comes before its exposure, nor usually later than others did.

    A pair needs count and clock. When the clock is set, they disagree: no picture, and after `DOUBTS` such frames
    `is_doubtful` asks for a new comparison of the clocks (`compared`). When a counter has begun anew or has missed
    an edge, they disagree as well, but clock and receipt agree on another constant: after `WITNESSES` such frames
    it holds, for those frames too. So a single liar is always found out. A camera that counts its frames only,
    and so is wrong about the constant after each lost one, is served by the same rules.

    Attributes:
        tolerance_s: Largest difference of a pair (s). Must be below half the shortest time between batteries.
        timeout_s: A battery that has no frame after this time gets none any more (s).
        bias_s: Exposure minus edge as it was last, by the clocks as compared (s).
    """

    tolerance_s: float = FRAME_TOLERANCE_S
    timeout_s: float = 0.5
    bias_s: float = 0.0
    _batteries: deque[_Battery] = field(default_factory=lambda: deque(maxlen=64))
    _frames: deque[_Waiting] = field(default_factory=lambda: deque(maxlen=16))
    _constant: int | None = None
    _series: str | None = None
    _witnesses: dict[int, int] = field(default_factory=dict)  # count of a frame → the constant that it speaks for
    _latencies: deque[float] = field(default_factory=lambda: deque(maxlen=4 * RECENT))
    _doubts: int = 0
    _doubted_at: float = 0.0
    _late: int = 0
    _late_since: float = math.inf
    _slow: list[float] = field(default_factory=list)  # receipt minus exposure of frames since the last comparison
    _slow_before: float | None = None
    _known_at: float | None = None  # when bias_s was last right
    _settled: bool = False  # a pair has been made since the clocks were compared

    def is_doubtful(self, now: float) -> bool:
        """Whether the camera's clock should be compared anew."""
        if self._doubts >= DOUBTS or len(self._slow) >= SLOW:
            return True
        if self._late >= LATE and now - self._late_since > LATE_S:
            return True
        return self._doubts > 0 and now - self._doubted_at > DOUBT_S

    def compared(self, now: float) -> None:
        """The camera's clock was compared with the host's, at ``now``. Frames of before are given up."""
        self._frames.clear()
        self._slow_before = min(self._slow) if len(self._slow) >= SLOW else None
        self._slow.clear()
        if self._late >= LATE:
            self._latencies.clear()  # they are longer now
        self._doubts = self._late = 0
        self.bias_s, self._known_at, self._settled = 0.0, now, False

    def expect(self, battery: Expected) -> list[Pair]:
        """A battery was at the photo-eye; returns what can be paired now."""
        if battery.series != self._series:
            self._series, self._constant = battery.series, None
            self._witnesses.clear()
        self._batteries.append(_Battery(battery))
        return self._look_at(self._frames)

    def offer(self, shot: CapturedFrame) -> list[Pair]:
        """A frame has come; returns what can be paired now."""
        waiting = _Waiting(shot)
        self._frames.append(waiting)
        return self._look_at([waiting])

    def expire(self, now: float) -> list[Expected]:
        """Gives up on batteries and frames older than the time-out; returns the batteries."""
        while self._frames and now - self._frames[0].shot.arrived_at > self.timeout_s:
            waiting = self._frames.popleft()
            if not (waiting.witness or waiting.late or waiting.slow) and any(
                0.0 <= waiting.shot.arrived_at - seen_at <= self.timeout_s for seen_at in self._edges()
            ):
                self._doubt(waiting)
        missing = [
            battery
            for battery in self._batteries
            if battery.open and now - battery.expected.seen_at > self.timeout_s
        ]
        for battery in missing:
            battery.open = False
        return [battery.expected for battery in missing]

    def _edges(self) -> list[float]:
        return [battery.expected.seen_at for battery in self._batteries]

    def _look_at(self, frames: Iterable[_Waiting]) -> list[Pair]:
        pairs: list[Pair] = []
        looking = list(frames)
        while looking:
            waiting = looking.pop(0)
            if waiting not in self._frames:
                continue
            before = self._constant
            battery = self._battery_of(waiting)
            if battery is not None:
                pairs.append(self._take(waiting, battery))
                # What came late between frames that came in time, all by the same counts, is late and nothing else.
                for held in [held for held in self._frames if held.late]:
                    if (owner := self._by_count(held.shot)) is not None and self._fits(held.shot, owner):
                        pairs.append(self._take(held, owner))
            if self._constant != before:
                looking = list(self._frames)  # other counts fit now
        return sorted(pairs, key=lambda pair: pair.battery.seen_at)

    def _battery_of(self, waiting: _Waiting) -> _Battery | None:
        shot = waiting.shot
        counted = self._by_count(shot)
        if counted is not None and self._fits(shot, counted):
            if self._is_late(shot, counted):
                self._hold(waiting)
                return None
            return counted
        witness = self._witness(waiting)
        if witness is not None:
            constant = count_difference(shot.count, witness.expected.count)
            return witness if self._is_enough(waiting, constant) else None
        if counted is not None and not waiting.witness:
            self._doubt(waiting)
        return None

    def _hold(self, waiting: _Waiting) -> None:
        if waiting.late:
            return
        waiting.late = True
        self._late += 1
        if self._late == 1:
            self._late_since = waiting.shot.arrived_at

    def _by_count(self, shot: CapturedFrame) -> _Battery | None:
        if self._constant is None:
            return None
        for battery in self._batteries:
            expected = battery.expected
            if expected.series == self._series and count_difference(shot.count, expected.count) == self._constant:
                return battery
        return None

    def _near(self, shot: CapturedFrame) -> list[_Battery]:
        """The batteries that the frame may show by the camera's clock."""
        reach_s = self.tolerance_s + self._drift_s(shot)
        at = shot.exposed_at - self.bias_s
        return [battery for battery in self._batteries if abs(at - battery.expected.seen_at) <= reach_s]

    def _drift_s(self, shot: CapturedFrame) -> float:
        if self._known_at is None:
            return 0.0
        return MAX_DRIFT * max(shot.arrived_at - self._known_at, 0.0)

    def _fits(self, shot: CapturedFrame, battery: _Battery) -> bool:
        """Whether clock and receipt allow this battery, and the clock no other one."""
        latency_s = shot.arrived_at - battery.expected.seen_at
        return battery.open and latency_s >= -CLOCK_ERROR_S and self._near(shot) == [battery]

    def _is_late(self, shot: CapturedFrame, battery: _Battery) -> bool:
        if not self._latencies or not self._settled:
            return False
        latency_s = shot.arrived_at - battery.expected.seen_at
        return latency_s - median(self._latencies) > SHARE_OF_GAP * self._shortest_gap_s()

    def _shortest_gap_s(self) -> float:
        edges = self._edges()[-RECENT - 1 :]
        gaps = (later - earlier for earlier, later in itertools.pairwise(edges))
        return max(min(gaps, default=math.inf), 2 * self.tolerance_s)

    # ---- another constant ----

    def _witness(self, waiting: _Waiting) -> _Battery | None:
        """The battery that the frame shows by clock and receipt, whatever the counts say."""
        shot = waiting.shot
        near = self._near(shot)
        if len(near) != 1 or near[0].expected.series != self._series or not self._fits(shot, near[0]):
            return None
        [battery] = near
        apart_s = abs(shot.exposed_at - self.bias_s - battery.expected.seen_at)
        if apart_s > WITNESS_S + self._drift_s(shot):
            return None
        return battery if self._is_usual(shot, battery) or self._is_slow(waiting) else None

    def _is_usual(self, shot: CapturedFrame, battery: _Battery) -> bool:
        """Whether the frame took as long as others, so that it shows no other battery."""
        latency_s = shot.arrived_at - battery.expected.seen_at
        least_s = usual_s = 0.0
        if self._latencies:
            ordered = sorted(self._latencies)
            least_s, usual_s, most_s = ordered[0], median(ordered), ordered[9 * len(ordered) // 10]
            if most_s - least_s > SHARE_OF_GAP * self._shortest_gap_s():
                return False  # frames take now so long, now so long: that tells nothing
        elif next(other for other in self._batteries if other.open) is not battery:
            return False  # nobody knows how long frames take, and the first one skips a battery
        # Where nobody knows yet, it is enough that the frame came before the next battery's could.
        share = SHARE_OF_GAP if self._latencies else 0.9
        latest_s = usual_s + share * self._shortest_gap_s()
        return least_s - CLOCK_ERROR_S <= latency_s <= latest_s

    def _is_slow(self, waiting: _Waiting) -> bool:
        """Whether the camera is slower than the receipt allows, as two comparisons of its clock say alike."""
        if not waiting.slow:
            self._slow.append(waiting.shot.arrived_at - waiting.shot.exposed_at)
            waiting.slow = True
        if len(self._slow) < SLOW or self._slow_before is None:
            return False
        if abs(min(self._slow) - self._slow_before) > self.tolerance_s:
            return False
        self._latencies.clear()
        return True

    def _is_enough(self, waiting: _Waiting, constant: int) -> bool:
        """Notes that a frame speaks for ``constant``; whether that holds from now on."""
        if any(other != constant for other in self._witnesses.values()):
            self._witnesses.clear()
            self._doubt(waiting)
        waiting.witness = True
        self._witnesses[waiting.shot.count] = constant
        if self._constant is not None and len(self._witnesses) < WITNESSES:
            return False
        self._constant = constant
        self._witnesses.clear()
        return True

    # ---- what is made of it ----

    def _doubt(self, waiting: _Waiting) -> None:
        if waiting.doubted:
            return
        waiting.doubted = True
        self._doubts += 1
        if self._doubts == 1:
            self._doubted_at = waiting.shot.arrived_at

    def _take(self, waiting: _Waiting, battery: _Battery) -> Pair:
        shot, expected = waiting.shot, battery.expected
        battery.open = False
        self._frames.remove(waiting)
        residual_s = shot.exposed_at - expected.seen_at - self.bias_s
        steady = self._settled and self._drift_s(shot) < CLOCK_ERROR_S
        self.bias_s += (0.05 if steady else 1.0) * residual_s
        self._known_at, self._settled = max(shot.arrived_at, self._known_at or 0.0), True
        if not waiting.late:
            self._latencies.append(shot.arrived_at - expected.seen_at)
        self._doubts = self._late = 0
        self._slow.clear()
        self._witnesses.clear()
        return Pair(expected, shot)
