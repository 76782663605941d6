"""Runs the EV line as a whole: its nodes, its PackML states, and when the next cell may be loaded.

`EvController` knows no clock and no I/O, as `battery_sorting.core.cell.CellController` does for the belt line.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from battery_sorting.core.cell import StateChanged
from battery_sorting.core.fleet import Fleet, Patience, Transition
from battery_sorting.core.packml import LineStateId, PackML

S = LineStateId


@dataclass(frozen=True, slots=True)
class Begin:
    """Order to inspect the next cell."""


EvAction = Transition | Begin | StateChanged

_COMING_TO_REST = {S.HOLDING, S.SUSPENDING, S.STOPPING, S.ABORTING, S.COMPLETING}
_STARTING_UP = {S.STARTING, S.UNHOLDING, S.UNSUSPENDING, S.RESETTING}
_ABORTED = {S.ABORTING, S.ABORTED, S.CLEARING}


@dataclass
class EvController:
    """PackML unit of the EV line.

    A cell that is being inspected is inspected to its end, whatever happens to the line: it must not stay in the
    station. Holding and stopping only keep the next one out.

    Attributes:
        nodes: Names of the nodes that the line needs, in the order in which they are brought up.
        auto_start: Start as soon as everything is ready, without an operator's command.
        heartbeat_s: A node that was silent for longer is taken for dead (s).
        retry_s: Orders that did not take are repeated after this time (s).
        empty_s: So long an empty loader is left alone before it is asked again (s).
    """

    nodes: tuple[str, ...]
    auto_start: bool = False
    heartbeat_s: float = 1.0
    retry_s: float = 0.4
    empty_s: float = 1.0
    reason: str = "started"
    external_faults: dict[str, str] = field(default_factory=dict)  # code → text; gone when its cause is
    latched_faults: dict[str, str] = field(default_factory=dict)  # code → text; gone when a person unholds the line
    full_outlets: list[str] = field(default_factory=list)
    may_load: bool = True  # whether there is room for another good cell behind the station
    _machine: PackML = field(default_factory=PackML)
    _fleet: Fleet = field(init=False)
    _inspecting: bool = False
    _wait_until: float = float("-inf")
    _held_by_fault: bool = False
    _emergency_stop: bool = False
    _changed: list[StateChanged] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._fleet = Fleet(self.nodes, self.heartbeat_s, Patience(self.retry_s))

    @property
    def state(self) -> LineStateId:
        """The PackML state."""
        return self._machine.state

    @property
    def inspecting(self) -> bool:
        """Whether a cell is in the station."""
        return self._inspecting

    def heartbeat(self, node: str, lifecycle: int, ok: bool, detail: str, now: float) -> None:
        """A node says how it is."""
        self._fleet.heartbeat(node, lifecycle, ok, detail, now)

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

    def command(self, name: str, reason: str) -> None:
        """A command by a person or another system, e.g. ``stop``.

        Raises:
            CommandNotAllowedError: Not allowed in this state; names what is.
        """
        if name in {"stop", "abort", "complete"}:
            self.auto_start = False  # even where refused: who stops a line that comes up does not want it to start
        self._do(name, reason)
        self._held_by_fault = False
        if name in {"unhold", "clear", "unsuspend"}:
            self.latched_faults.clear()
            self.full_outlets = []

    def problems(self, now: float) -> dict[str, str]:
        """What keeps the line from running: code → text."""
        found = {**self.external_faults, **self.latched_faults, **self._fleet.problems(now)}
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
        elif self.state is S.EXECUTE and self.full_outlets:
            self._do("suspend", f"full: {', '.join(self.full_outlets)}")
        else:
            self._progress(problems)
        if self.state is S.EXECUTE and self.may_load and not self._inspecting and now >= self._wait_until:
            self._inspecting = True
            actions.append(Begin())
        actions += self._changed
        self._changed = []
        return actions

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
            self._machine.complete()
            self._changed.append(StateChanged(self.state, self.reason))
        elif not problems and state is S.HELD and self._held_by_fault:
            self._held_by_fault = False
            self._do("unhold", "fault is gone")
        elif not problems and self.auto_start and state is S.STOPPED:
            self._do("reset", "automatic start")
        elif not problems and self.auto_start and state is S.IDLE:
            self._do("start", "automatic start")

    def _do(self, command: str, reason: str) -> None:
        self._machine.command(command)
        self.reason = reason
        self._changed.append(StateChanged(self.state, reason))
