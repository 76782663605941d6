"""When a station's camera is to be connected anew, mostly to compare its clock with the host's."""

from __future__ import annotations

from dataclasses import dataclass

ODD_AGE_S = 0.25
"""A frame that seems older than the slowest before it by this comes late, or the camera's clock was set back."""
AHEAD_S = 0.05
"""By so much a frame may seem to be of the future: more than the clocks differ after `OUTDATED_S`."""
OUTDATED_S = 300.0
"""Clocks drift (75 ppm are usual): a comparison that is older is made anew when no picture is waited for."""
UNSEEN = 2
"""After so many orders without a frame, one after the other, the connection counts as dead: it may have died
without a word."""


@dataclass
class CameraClock:
    """What is known of a camera's clock since it was last compared with the host's. Connecting compares them.

    A sound camera that is slow is disconnected once for it, and not for each of its frames: a clock that was set
    back shows by the frames that seem older than their order, too.
    """

    _compared_at: float = 0.0
    _frame_at: float = 0.0
    _slow_s: float = 0.0
    _ahead_s: float = 0.0
    _doubted: bool = False
    _refused: bool = False
    _unseen: int = 0

    def compared(self, now: float) -> None:
        """The camera was connected at ``now`` (s)."""
        self._compared_at, self._refused, self._unseen = now, False, 0

    def frame(self, age_s: float, now: float) -> bool:
        """A frame has come. Returns whether its age (s) is so odd that the clocks must be compared at once."""
        self._frame_at, self._unseen = now, 0
        if age_s >= 0:
            self._ahead_s = 0.0
        doubted, self._doubted = self._doubted, age_s < -self._ahead_s - AHEAD_S
        if self._doubted and doubted:  # the comparison has changed nothing: it can't be made better than that
            self._ahead_s, self._doubted = -age_s, False
        if age_s > self._slow_s + ODD_AGE_S:
            self._slow_s = age_s
            return True
        return self._doubted

    def refused(self) -> None:
        """The last frame seems older than the order that waits for one; it may be of an order of before."""
        self._refused = self._frame_at > self._compared_at

    def missed(self) -> None:
        """The camera was triggered, and no frame has come."""
        self._unseen += 1

    def doubt(self) -> str:
        """Why to connect anew when no frame is under way; empty if there is no reason to."""
        if self._refused:
            return "a frame seems older than its order"
        return f"no frame came for {self._unseen} orders" if self._unseen >= UNSEEN else ""

    def is_outdated(self, now: float) -> bool:
        """Whether to compare when no picture is waited for."""
        return now - self._compared_at > OUTDATED_S
