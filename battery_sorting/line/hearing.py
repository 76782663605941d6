"""Whether a process hears and is heard by those that it works with, or must end itself to be started anew.

A middleware that has given up a process which stood still for a while may never hear it again, nor be heard by it.
Silence alone proves nothing: the other may be dead, frozen, or still starting. So each process also leaves a
**mark** that changes as long as it speaks, on a way beside the middleware (`ros/hearing.py`: a file).
Who speaks and isn't heard for a while is proof of deafness. Nobody who stands still speaks, and who stood still
oneself has no proof.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

LOOK_S = 0.5
"""So often (s) marks are left, and `why_to_end` is asked."""
FRESH_S = 2.0
"""A mark that has not changed for so long is of one who does not speak."""
OWN_STANDSTILL_S = 2.0
"""Who was not asked for so long stood still oneself: what was missed meanwhile proves nothing."""
DEAF_NODE_S = 9.0
"""A node that does not hear the controller, or isn't heard by it, ends itself after this time (s).

Finding each other takes up to 2.7 s, several times that on a busy machine. Longer than the controller's, so that a
controller that hears nobody goes before all nodes do.
"""
DEAF_CONTROLLER_S = 6.0
"""A controller that hears none of those who speak ends itself after this time (s)."""
DEAF_TO_ONE_S = 25.0
"""As long may one node go unheard, whose successors end themselves in vain, until the controller does (s)."""


@dataclass
class Silence:
    """How long somebody who speaks has not been heard."""

    _mark: object = None
    _known: bool = False
    _changed_at: float = float("-inf")
    _since: float | None = None
    _asked_at: float | None = None

    def follow(self, now: float, mark: object, heard: bool) -> float:
        """Seconds for which the other has spoken without being heard, up to now.

        Args:
            now: Seconds on the waiting clock.
            mark: Something that changes while the other speaks; None where there is none.
            heard: Whether anything of the other was heard since the last call.
        """
        if self._asked_at is not None and now - self._asked_at > OWN_STANDSTILL_S:
            self._since = None
        self._asked_at = now
        if self._known and mark is not None and mark != self._mark:
            self._changed_at = now
        self._mark, self._known = mark, mark is not None
        if heard or now - self._changed_at > FRESH_S:
            self._since = None
        elif self._since is None:
            self._since = now
        return 0.0 if self._since is None else now - self._since


@dataclass
class NodeHearing:
    """The view of a node: does it hear the controller, and is it heard there?

    Args:
        name: The node's name, as the controller says whom it hears.
        controller: The controller's name.
    """

    name: str
    controller: str
    _hears: Silence = field(default_factory=Silence)
    _is_heard: Silence = field(default_factory=Silence)
    _states: int = 0
    _states_before: int = 0
    _in_last: bool = True

    def line_state(self, hears: Iterable[str]) -> None:
        """The controller was heard; ``hears`` are the nodes that it hears."""
        self._states += 1
        self._in_last = self.name in hears

    def why_to_end(self, now: float, mark: object) -> str:
        """Why the node must end itself, empty if it need not. To be asked several times per second.

        Args:
            now: Seconds on the waiting clock.
            mark: The controller's.
        """
        heard, self._states_before = self._states != self._states_before, self._states
        deaf_s = self._hears.follow(now, mark, heard)
        mute_s = self._is_heard.follow(now, self._states, self._in_last)
        if deaf_s > DEAF_NODE_S:
            return f"has not heard {self.controller}, which runs, for {deaf_s:.0f} s"
        if mute_s > DEAF_NODE_S:
            return f"has not been heard by {self.controller} for {mute_s:.0f} s"
        return ""


class ControllerHearing:
    """The view of the controller: does it hear the nodes that speak?

    Args:
        names: The nodes.
        observers: Those that the line runs without: for one of them alone the controller does not end itself.
    """

    def __init__(self, names: Iterable[str], observers: frozenset[str] = frozenset()) -> None:
        self._observers = observers
        self._silences = {name: Silence() for name in names}
        self._unheard_s = dict.fromkeys(self._silences, 0.0)
        self._heard_at = dict.fromkeys(self._silences, float("-inf"))
        self._asked_at: float | None = None

    def heartbeat(self, name: str, now: float) -> None:
        """A node was heard."""
        if name in self._heard_at:
            self._heard_at[name] = now

    def hears(self, now: float) -> list[str]:
        """The nodes that were heard lately."""
        return [name for name, at in self._heard_at.items() if now - at < FRESH_S]

    def why_to_end(self, now: float, marks: Mapping[str, object]) -> str:
        """Why the controller must end itself, empty if it need not. To be asked several times per second.

        Args:
            now: Seconds on the waiting clock.
            marks: Node → its mark; those without are left out or None.
        """
        passed_s = 0.0 if self._asked_at is None else min(now - self._asked_at, OWN_STANDSTILL_S)
        heard_since = {name for name, at in self._heard_at.items() if at >= (self._asked_at or float("-inf"))}
        self._asked_at = now
        silent_s = {
            name: silence.follow(now, marks.get(name), name in heard_since)
            for name, silence in self._silences.items()
        }
        for name, seconds in silent_s.items():  # over the lives of its successors, which end themselves meanwhile
            self._unheard_s[name] = 0.0 if name in heard_since else self._unheard_s[name] + passed_s * (seconds > 0)
        longest_s = max(silent_s.values(), default=0.0)
        last_heard_at = max(self._heard_at.values(), default=float("-inf"))
        if min(longest_s, now - last_heard_at) > DEAF_CONTROLLER_S:
            speaking = ", ".join(name for name, seconds in silent_s.items() if seconds > 0)
            return f"has heard no node for {longest_s:.0f} s, though these run: {speaking}"
        for name, seconds in self._unheard_s.items():
            if seconds > DEAF_TO_ONE_S and name not in self._observers:
                return f"has not heard {name}, which runs, for {seconds:.0f} s"
        return ""
