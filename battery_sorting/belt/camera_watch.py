"""The camera over a belt: which frame shows which battery, and when the camera must be connected anew."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from battery_sorting.belt.frames import CapturedFrame, Expected, FrameMatcher, Pair

COMPARE_S = 0.5
"""Between two comparisons of the clocks at the least."""
IN_VAIN = 2
"""So many comparisons one after the other without a pair since the first are a fault of the line."""
AHEAD_S = 1.0
"""No edge is seen so long before it happened."""
UNSEEN = 3
"""After so many batteries without a frame of any kind the connection counts as dead."""
IDLE_S = 10.0
OUTDATED_S = 300.0
"""While nothing has come for `IDLE_S`, the clocks are compared that often: nothing is lost by it then, the camera's
clock doesn't drift away from ours in a long pause, and a camera that has died meanwhile is noticed."""

_SILENT = f"no frame of {UNSEEN} batteries: the camera is connected anew"
_DOUBTFUL = "frames don't fit the batteries by counts and times: the camera's clock is compared anew"
_FAULT = (
    "which frame shows which battery can't be told: counts and times of camera and PLC don't agree. "
    "Check the camera's trigger, its clock, and how long its frames take"
)


@dataclass(frozen=True, slots=True)
class Reconnection:
    """The camera is to be connected anew.

    Attributes:
        why: For people; empty where nothing is wrong.
        fault: Why the line must hold; empty if it needs not.
    """

    why: str = ""
    fault: str = ""


class CameraWatch:
    """Pairs frames and batteries, and watches the connection. All times in s, by the host's monotonic clock.

    Connecting compares the camera's clock with the host's. Frames come by one thread, batteries by another.
    """

    def __init__(self, matcher: FrameMatcher) -> None:
        self._matcher, self._lock = matcher, threading.Lock()
        self._frames = self._bad_frames = self._comparisons = 0
        self._in_vain = 0
        self._unseen = 0  # batteries since the last frame, good or bad
        self._compared_at = self._busy_at = 0.0

    def figures(self) -> dict[str, int]:
        """What has been counted, for people."""
        return {
            "frames": self._frames,
            "bad_frames": self._bad_frames,
            "clock_comparisons": self._comparisons,
        }

    def connected(self, now: float) -> None:
        """The camera was connected, and its clock compared."""
        with self._lock:
            self._matcher.compared(now)
        self._compared_at = now
        self._busy_at = max(self._busy_at, now)

    def offer(self, shot: CapturedFrame) -> list[Pair]:
        """A frame has come; returns what can be paired now."""
        self._frames += 1
        self._unseen = 0
        self._busy_at = shot.arrived_at
        with self._lock:
            return self._paired(self._matcher.offer(shot))

    def miss(self) -> None:
        """A frame has come that can't be used."""
        self._bad_frames += 1
        self._unseen = 0

    def expect(self, battery: Expected, now: float) -> list[Pair]:
        """A battery was at the photo-eye; returns what can be paired now.

        One of another clock, or of a detection that was delivered again after a restart, is none: its frame went by
        while nobody read.
        """
        if not -AHEAD_S <= now - battery.seen_at <= self._matcher.timeout_s:
            return []
        self._busy_at = now
        with self._lock:
            return self._paired(self._matcher.expect(battery))

    def expire(self, now: float) -> list[Expected]:
        """Batteries that get no frame any more."""
        with self._lock:
            missing = self._matcher.expire(now)
        self._unseen += len(missing)
        return missing

    def reconnection(self, now: float) -> Reconnection | None:
        """Whether the camera, which is connected, must be connected anew, and why."""
        if self._unseen >= UNSEEN:  # who only listens never hears that a connection has died without a word
            self._unseen = 0
            return Reconnection(_SILENT)
        if now - self._compared_at < COMPARE_S:
            return None
        with self._lock:
            doubtful = self._matcher.is_doubtful(now)
        if doubtful:
            self._comparisons += 1
            self._in_vain += 1
            return Reconnection(_DOUBTFUL, _FAULT if self._in_vain > IN_VAIN else "")
        idle = now - self._busy_at > IDLE_S and now - self._compared_at > OUTDATED_S
        return Reconnection() if idle else None

    def _paired(self, pairs: list[Pair]) -> list[Pair]:
        if pairs:
            self._in_vain = 0
        return pairs
