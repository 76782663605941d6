"""Runs the EV line as a whole: its nodes, its PackML states, and when the next cell may be loaded.

`EvController` knows no clock and no I/O, as `battery_sorting.core.cell.CellController` does for the belt line.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from battery_sorting.core.fleet import Transition
from battery_sorting.core.packml import LineStateId
from battery_sorting.core.unit import LineUnit, StateChanged

S = LineStateId


@dataclass(frozen=True, slots=True)
class Begin:
    """Order to inspect the next cell."""


EvAction = Transition | Begin | StateChanged

_COMING_TO_REST = {S.HOLDING, S.SUSPENDING, S.STOPPING, S.ABORTING, S.COMPLETING}
_STARTING_UP = {S.STARTING, S.UNHOLDING, S.UNSUSPENDING, S.RESETTING}
_ABORTED = {S.ABORTING, S.ABORTED, S.CLEARING}


@dataclass
class EvController(LineUnit):
    """PackML unit of the EV line.

    A cell that is being inspected is inspected to its end, whatever happens to the line: it must not stay in the
    station. Holding and stopping only keep the next one out.

    Attributes:
        empty_s: So long an empty loader is left alone before it is asked again (s).
        may_load: Whether there is room for another good cell behind the station.
    """

    empty_s: float = field(default=1.0, kw_only=True)
    may_load: bool = field(default=True, init=False)
    _inspecting: bool = field(default=False, init=False)
    _wait_until: float = field(default=float("-inf"), init=False)
    _emergency_stop: bool = field(default=False, init=False)

    @property
    def inspecting(self) -> bool:
        """Whether a cell is in the station."""
        return self._inspecting

    def gone(self, node: str, now: float) -> bool:
        """Whether nobody will answer what was asked of a node: it has died, or was started anew since."""
        return self._fleet.gone(node, now)

    def emergency_stop(self, pressed: bool) -> None:
        """What the station's PLC says of the emergency stop."""
        self._emergency_stop = pressed

    def inspection_ended(self, now: float, *, empty: bool) -> None:
        """The station is free again. ``empty``: the loader had no cell."""
        self._inspecting = False
        if empty:
            self._wait_until = now + self.empty_s

    def problems(self, now: float) -> dict[str, str]:
        """What keeps the line from running: code → text."""
        found = super().problems(now)
        if self._emergency_stop:
            found["emergency_stop"] = "emergency stop"
        return found

    def tick(self, now: float) -> list[EvAction]:
        """Moves on; call it at about 20 Hz."""
        problems = self.problems(now)
        actions: list[EvAction] = [*self._fleet.bring_up(now)]
        if self._emergency_stop and self.state not in _ABORTED:
            self.auto_start = False  # after an emergency stop nothing starts by itself
            self._do("abort", problems["emergency_stop"])
        elif self.state is S.EXECUTE and problems:
            self._held_by_fault = not self.latched_faults
            self._do("hold", "; ".join(problems.values()))
        elif self.state is S.EXECUTE and self.full:
            self._do("suspend", f"full: {', '.join(self.full)}")
        else:
            self._progress(problems)
        if self.state is S.EXECUTE and self.may_load and not self._inspecting and now >= self._wait_until:
            self._inspecting = True
            actions.append(Begin())
        return [*actions, *self._changes()]

    def _progress(self, problems: dict[str, str]) -> None:
        """Finishes acting states and takes the steps that need no operator."""
        state = self.state
        if state is S.STARTING and not problems:
            self.auto_start = False
        if (
            (state in _COMING_TO_REST and not self._inspecting)
            or (state in _STARTING_UP and not problems)
            or (state is S.CLEARING and not problems)
            or (state is S.ABORTING)
        ):
            self._complete()
        elif not problems:
            self._take_up()
