"""How often and when a process that died is started again, whoever starts it."""

from __future__ import annotations

import signal
from collections import deque

MAX_RESPAWNS = 5
RESPAWN_WINDOW_S = 30.0
MAX_RESPAWN_DELAY_S = 5.0
OBSERVER_WINDOW_S = 600.0
MAX_OBSERVER_DELAY_S = 60.0
"""One that the line runs without is never given up: it is tried again ever more seldom, so that it takes no CPU."""
LIVED_S = 30.0
"""One that has lived for so long is not one that dies at once (s)."""


class Deaths:
    """The deaths of one process and its successors within the last time.

    Args:
        delay_s: Pause (s) after the first death; it doubles with each further one.
        required: Whether the line can't run without it.
    """

    def __init__(self, delay_s: float, required: bool = True) -> None:
        self._delay_s = delay_s
        self._required = required
        self._window_s = RESPAWN_WINDOW_S if required else OBSERVER_WINDOW_S
        self._times: deque[float] = deque()
        self._lived_at = float("inf")  # from then on its last life was a long one

    def __len__(self) -> int:
        return len(self._times)

    def count(self, now: float) -> float | None:
        """It died at ``now`` (s, monotonic). Returns the pause (s) until its successor; None: it is given up."""
        if not self._required and now > self._lived_at:
            self._times.clear()
        self._times.append(now)
        while self._times[0] < now - self._window_s:
            self._times.popleft()
        if self._required and len(self._times) > MAX_RESPAWNS:
            return None
        longest_s = MAX_RESPAWN_DELAY_S if self._required else MAX_OBSERVER_DELAY_S
        pause_s = min(self._delay_s * 2.0 ** (len(self._times) - 1), longest_s)
        self._lived_at = now + pause_s + LIVED_S
        return pause_s

    def next_life(self, how: str, delay_s: float) -> str:
        """What is said of a process that ended, ``how`` in words, and is started again after ``delay_s``."""
        return f"{how}; {'' if self._required else 'the line goes on without it; '}started again in {delay_s:g} s"

    def why_given_up(self, name: str, how: str) -> str:
        """What is said of a process that is not started again; ``how`` it ended at last, in words."""
        times = f"{len(self._times)} times in {RESPAWN_WINDOW_S:g} s"
        return f"{name} died {times} and is given up (it {how} at last)"


def describe_exit(code: int) -> str:
    """An exit code in words; negative: the signal that ended the process."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
