"""How often and when a process that died is started again, whoever starts it."""

from __future__ import annotations

import signal
from collections import deque

MAX_RESPAWNS = 5
RESPAWN_WINDOW_S = 30.0
MAX_RESPAWN_DELAY_S = 5.0


class Deaths:
    """The deaths of one process and its successors within `RESPAWN_WINDOW_S`.

    Args:
        delay_s: Pause (s) after the first death; it doubles with each further one.
    """

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s
        self._times: deque[float] = deque()

    def __len__(self) -> int:
        return len(self._times)

    def count(self, now: float) -> float | None:
        """It died at ``now`` (s, monotonic). Returns the pause (s) until its successor; None: it is given up."""
        self._times.append(now)
        while self._times[0] < now - RESPAWN_WINDOW_S:
            self._times.popleft()
        if len(self._times) > MAX_RESPAWNS:
            return None
        return min(self._delay_s * 2.0 ** (len(self._times) - 1), MAX_RESPAWN_DELAY_S)

    def why_given_up(self, name: str, code: int) -> str:
        """What is said of a process that is not started again."""
        times = f"{len(self._times)} times in {RESPAWN_WINDOW_S:g} s"
        return f"{name} died {times} and is given up (it {describe_exit(code)} at last)"


def describe_exit(code: int) -> str:
    """An exit code in words; negative: the signal that ended the process."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
