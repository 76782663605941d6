"""Whether another process speaks as the controller of the same line: on another host no claim keeps it out.

`Rivals` knows no clock and no I/O: it is told what is heard, and when.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

NEWCOMER_S = 5.0
"""Whoever hears another controller this soon after its own start has come second (s). Discovery takes up to 3 s."""
MESSAGES, SPAN_S = 3, 0.5
"""A controller is believed to live after so many messages over so long: the last words of a dying one are fewer."""
SILENCE_S = 1.0
"""After so long without a word it counts as gone (s)."""


class RivalVerdict(Enum):
    """What a controller does about others."""

    ALONE = "alone"
    LEAVE = "leave"
    HOLD = "hold"


@dataclass
class _Voice:
    first_at: float
    last_at: float
    messages: int = 1


class Rivals:
    """Hears the states of the line and tells whether they all are one's own.

    Args:
        own: Identifies this process.
        started_at: When it began to listen (s of any clock that does not jump).
    """

    def __init__(self, own: str, started_at: float) -> None:
        self.own = own
        self._started_at = started_at
        self._voices: dict[str, _Voice] = {}

    def heard(self, controller: str, now: float) -> None:
        """A state of the line, said by ``controller``."""
        if controller == self.own:
            return
        self._forget(now)
        voice = self._voices.setdefault(controller, _Voice(now, now, 0))
        voice.last_at = now
        voice.messages += 1

    def rival(self, now: float) -> str | None:
        """The other controller that lives; None if this one is alone."""
        self._forget(now)
        for controller, voice in self._voices.items():
            if voice.messages >= MESSAGES and voice.last_at - voice.first_at >= SPAN_S:
                return controller
        return None

    def verdict(self, now: float) -> RivalVerdict:
        """Who came second leaves. Two that met later, each with its own network before, hold until one has gone."""
        rival = self.rival(now)
        if rival is None:
            return RivalVerdict.ALONE
        second = self._voices[rival].first_at - self._started_at < NEWCOMER_S
        return RivalVerdict.LEAVE if second else RivalVerdict.HOLD

    def _forget(self, now: float) -> None:
        self._voices = {name: voice for name, voice in self._voices.items() if now - voice.last_at <= SILENCE_S}
