"""The clocks of a line, and which of them is for what.

Everything that waits goes by one clock that is handed in and never jumps: `Clock`. It is the monotonic clock of the
host, or, in a replay (``use_sim_time``), the ROS clock. Sockets and processes always wait by the host's monotonic
clock: `time.monotonic`. The wall clock is for stamps alone: people and daylight saving change it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

Clock = Callable[[], float]
"""Returns seconds since some moment of its own; only differences mean something."""

STILL_S = 3.0
"""Seconds of the host for which a replay's clock may stand still; then that is told."""
LEAP_S = 2.0
"""So far (s) a replay's clock may go in one step, however short that is."""
FASTEST = 50.0
"""Rate of a replay up to which its clock counts as running; what is faster leaps."""


class ReplayClock:
    """The ROS clock as one by which can be waited: it never goes back, and never stops.

    ``/clock`` leaps when a replay begins, begins anew or is wound on: what has passed is told by the host's clock
    then. As long as it has never come, and when it has stood still for `STILL_S`, time goes on by the host's clock,
    since nodes, devices and orders are real all the same: one that dies must be noticed. Threads may share it.

    Args:
        source: The ROS clock (s); 0 as long as there is none.
        monotonic: The host's clock (s).
        at_most: So many times as fast as the host's clock. With 1, a replay that is faster does not make processes
            seem dead which take the host's time to answer.
    """

    def __init__(self, source: Clock, monotonic: Clock = time.monotonic, at_most: float = FASTEST) -> None:
        self._at_most = at_most
        self._credit_s = 0.0
        self._source = source
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._replay, self._host = source(), monotonic()
        self._moved_at = float("-inf") if self._replay == 0 else self._host
        self._said = 0.0

    def __call__(self) -> float:
        """Seconds since it was made, by the replay."""
        with self._lock:
            replay, host = self._source(), self._monotonic()
            step_s, passed_s = replay - self._replay, host - self._host
            # /clock comes in jerks: what was not used of the rate is good for a moment.
            fastest_s = self._at_most * passed_s
            most_s = max(LEAP_S, self._at_most * (host - self._moved_at))
            self._credit_s = min(self._credit_s + fastest_s, most_s)
            if step_s == 0:
                self._said += max(0.0, min(passed_s, host - self._moved_at - STILL_S))
            elif 0 < step_s <= LEAP_S + FASTEST * (host - self._moved_at) and self._replay != 0:
                counted_s = min(step_s, self._credit_s)
                self._said += counted_s
                self._credit_s -= counted_s
            else:
                self._said += passed_s
            if step_s != 0:
                self._moved_at = host
            self._replay, self._host = replay, host
            return self._said


class ReplayWatch:
    """Says when the clock of a replay stands still. It must be asked every second or so.

    Args:
        now: The host's clock (s).
    """

    def __init__(self, now: float) -> None:
        self._replay = 0.0
        self._moved_at = now

    def problem(self, replay: float, now: float) -> str:
        """What is wrong with the ROS clock, which says ``replay`` (s) at ``now`` (s, host); empty: it runs."""
        if replay != self._replay:
            self._replay, self._moved_at = replay, now
        still_s = now - self._moved_at
        if still_s < STILL_S:
            return ""
        if self._replay == 0:
            return (
                f"use_sim_time is on, and no /clock has come for {STILL_S:g} s: start what publishes it (ros2 bag "
                "play --clock, a simulation) in this ROS domain, or start the cell without use_sim_time"
            )
        return (
            f"use_sim_time is on, and /clock has stood still for {STILL_S:g} s: is the replay paused, or at its "
            "end? Go on with it, or start the cell without use_sim_time"
        )


class ListeningClock:
    """The clock of a node that judges by what it hears: it stands still while the node itself does.

    A process that was stopped, or kept from running, has heard nobody; that tells nothing of the others. When it
    runs again, what was said meanwhile still has to reach it: so long the clock stands as well. It must be asked
    more often than every ``tolerance_s``.

    Args:
        clock: What is waited by (s).
        monotonic: By what the node's own standing still is noticed (s).
        tolerance_s: A longer pause between two questions is a standstill.
        settle_s: After a standstill, until all that waits has been heard.
    """

    def __init__(
        self,
        clock: Clock,
        monotonic: Clock = time.monotonic,
        tolerance_s: float = 0.3,
        settle_s: float = 0.3,
    ) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._tolerance_s = tolerance_s
        self._settle_s = settle_s
        self._asked_at = monotonic()
        self._said = clock()
        self._behind_s = 0.0
        self._settled_at = self._asked_at
        self._stood_s = 0.0

    def __call__(self) -> float:
        """Seconds that the node has listened since some moment of its own."""
        asked_at, clock = self._monotonic(), self._clock()
        paused_s, self._asked_at = asked_at - self._asked_at, asked_at
        if paused_s > self._tolerance_s:
            self._stood_s += paused_s
            self._settled_at = asked_at + self._settle_s
        if asked_at <= self._settled_at:
            self._behind_s = clock - self._said
        else:
            self._said = max(self._said, clock - self._behind_s)
        return self._said

    def stood_still_s(self) -> float:
        """For how long (s) the node has stood still since this was last asked, 0 if it has not."""
        stood_s, self._stood_s = self._stood_s, 0.0
        return stood_s
