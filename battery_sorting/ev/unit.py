"""Runs the EV line as a whole: its nodes, its PackML states, and when the next cell may be loaded.

`EvUnit` knows no clock and no I/O, as `battery_sorting.belt.unit.BeltUnit` does for the belt line.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from battery_sorting.core.types import LineStateId
from battery_sorting.packml.fleet import Transition
from battery_sorting.packml.unit import LineUnit, StateChanged

S = LineStateId


@dataclass(frozen=True, slots=True)
class BeginInspection:
    """Order to inspect the next cell."""


EvAction = Transition | BeginInspection | StateChanged

MOVING = frozenset({S.EXECUTE, S.COMPLETING})
"""States in which robot and tester may be given something new to do, and the robot sent home. While the line is
suspended a person may have the hands in a tray."""
STARTED = MOVING | {S.STARTING, S.UNHOLDING, S.UNSUSPENDING}
"""States of a line that a person has started or let go on, and nobody has halted since."""

_COMING_TO_REST = {S.HOLDING, S.SUSPENDING, S.STOPPING, S.ABORTING, S.COMPLETING}
_RUNNING = {S.STARTING, S.EXECUTE, S.UNHOLDING, S.UNSUSPENDING}
_STARTING_UP = {S.STARTING, S.UNHOLDING, S.UNSUSPENDING}
_ABORTED = {S.ABORTING, S.ABORTED, S.CLEARING}
_HALTING = _COMING_TO_REST - {S.COMPLETING}
"""In these a stuck station stands still until the line goes on. While it completes, the station is sent home."""


@dataclass
class EvUnit(LineUnit):
    """PackML unit of the EV line.

    A cell that is being inspected is inspected to its end, whatever happens to the line: it must not stay in the
    station. Holding and stopping only keep the next one out. A stuck station alone is left as it is: the line rests
    with the cell in it, and goes on with it when it is started again.

    Attributes:
        empty_s: So long an empty loader is left alone before it is asked again (s).
        stuck_s: So long a station must be stuck after the line was halted, before the line rests with a cell in it
            (s). By then the station has heard that the line is halted, and does not move any more.
        may_load: Whether there is room for another good cell behind the station.
    """

    empty_s: float = field(default=1.0, kw_only=True)
    stuck_s: float = field(default=1.5, kw_only=True)
    may_load: bool = field(default=True, init=False)
    _inspecting: bool = field(default=False, init=False)
    _wait_until: float = field(default=float("-inf"), init=False)
    _emergency_stop: bool = field(default=False, init=False)
    _station_stuck: bool = field(default=False, init=False)
    _stuck_since: float | None = field(default=None, init=False)  # and the line is halted

    @property
    def inspecting(self) -> bool:
        """Whether a cell is in the station."""
        return self._inspecting

    def gone(self, node: str, now: float) -> bool:
        """Whether nobody will answer what was asked of a node: it has died, or was started anew since."""
        return self._fleet.gone(node, now)

    def started_anew(self, node: str) -> bool:
        """Whether a node knows nothing of what was asked of it. One that is only silent may still be at it."""
        return self._fleet.started_anew(node)

    def station(self, *, emergency_stop: bool, stuck: bool) -> None:
        """What the station says.

        Args:
            emergency_stop: Whether its PLC is in emergency stop.
            stuck: Whether it is stuck with a cell, and moves nothing unless the line is started.
        """
        self._emergency_stop, self._station_stuck = emergency_stop, stuck

    def inspection_ended(self, now: float, *, empty: bool) -> None:
        """The station is free again. ``empty``: the loader had no cell."""
        self._inspecting = False
        if empty:
            self._wait_until = now + self.empty_s

    def problems(self, now: float) -> dict[str, str]:
        """What keeps the line from running: code → text."""
        found = super().problems(now)
        if self._emergency_stop:
            found.setdefault("emergency_stop", "emergency stop")
        return found

    def tick(self, now: float) -> list[EvAction]:
        """Moves on; call it at about 20 Hz."""
        problems = self.problems(now)
        self._watch_stuck_station(now)
        actions: list[EvAction] = [*self._fleet.bring_up(now)]
        if "emergency_stop" in problems and self.state not in _ABORTED:
            self._abort(problems["emergency_stop"])
        elif (self.state is S.EXECUTE and problems) or (self.state in _RUNNING and self.latched_faults):
            self._held_by_fault = not self.latched_faults
            self._do("hold", "; ".join(problems.values()))
        elif self.state is S.EXECUTE and self.full:
            self._do("suspend", f"full: {', '.join(self.full)}")
        else:
            self._progress(problems, now)
        if self.state is S.EXECUTE and self.may_load and not self._inspecting and now >= self._wait_until:
            self._inspecting = True
            actions.append(BeginInspection())
        return [*actions, *self._changes()]

    def _watch_stuck_station(self, now: float) -> None:
        if not (self._inspecting and self._station_stuck and self.state in _HALTING):
            self._stuck_since = None
        elif self._stuck_since is None:
            self._stuck_since = now

    def _progress(self, problems: dict[str, str], now: float) -> None:
        """Finishes acting states and takes the steps that need no operator."""
        state = self.state
        rests = not self._inspecting or (self._stuck_since is not None and now - self._stuck_since > self.stuck_s)
        if state is S.STARTING and not problems:
            self.auto_start = False
        if (
            (state in _COMING_TO_REST and rests)
            or (state in _STARTING_UP and not problems)
            or (state is S.CLEARING and "emergency_stop" not in problems)
            or (state in {S.ABORTING, S.RESETTING})
        ):
            self._complete()
        elif not problems:
            self._take_up()
