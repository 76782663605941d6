"""What the PackML units of all lines have in common: their nodes, states, faults and commands."""

from __future__ import annotations

from dataclasses import dataclass, field

from battery_sorting.core.errors import BatterySortingError
from battery_sorting.core.types import LineStateId
from battery_sorting.packml.fleet import Fleet, Lifecycle, RetryTimer
from battery_sorting.packml.machine import CommandNotAllowedError, PackML
from battery_sorting.packml.restart import Restart


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The line is in another state."""

    state: LineStateId
    reason: str


class PlacesFullError(BatterySortingError):
    """The line can't go on before a person has emptied the places that are full, and said so."""

    code = "places_full"

    def __init__(self, places: list[str], command: str) -> None:
        told = ", ".join(f"'emptied {place}'" for place in places)
        super().__init__(
            f"the line is full: {', '.join(places)}: empty what is full, tell the line by {told}, then {command} it"
        )


class UnknownPlaceError(BatterySortingError):
    """The line has no such bin or outlet."""

    code = "unknown_place"

    def __init__(self, place: str, places: list[str]) -> None:
        super().__init__(f"there is no {place!r} to be emptied on this line; there are: {', '.join(places)}")


_TO_REST = {"stop", "abort", "complete", "hold", "suspend"}
_ON_AGAIN = {
    ("unsuspend", LineStateId.SUSPENDED),
    ("unhold", LineStateId.HELD),
    ("start", LineStateId.IDLE),
}


@dataclass
class LineUnit:
    """PackML unit of a line.

    Attributes:
        nodes: Names of the nodes, in the order in which they are brought up.
        observers: Those of them that the line runs without.
        auto_start: Start as soon as everything is ready, without an operator's command.
        heartbeat_s: A node that was silent for longer is taken for dead (s).
        retry_s: Orders that did not take are repeated after this time (s).
        full: Places that a person must empty before the line goes on.
    """

    nodes: tuple[str, ...]
    observers: frozenset[str] = field(default=frozenset(), kw_only=True)
    auto_start: bool = field(default=False, kw_only=True)
    heartbeat_s: float = field(default=1.0, kw_only=True)
    retry_s: float = field(default=0.4, kw_only=True)
    reason: str = field(default="started", init=False)
    external_faults: dict[str, str] = field(default_factory=dict, init=False)  # code → text; gone when its cause is
    external_warnings: dict[str, str] = field(default_factory=dict, init=False)  # as faults, and nothing holds
    latched_faults: dict[str, str] = field(default_factory=dict, init=False)  # code → text; gone by unhold or clear
    full: list[str] = field(default_factory=list, init=False)
    _machine: PackML = field(default_factory=PackML, init=False)
    _fleet: Fleet = field(init=False)
    _patience: RetryTimer = field(init=False)
    _held_by_fault: bool = field(default=False, init=False)
    _changed: list[StateChanged] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._patience = RetryTimer(self.retry_s)
        self._fleet = Fleet(self.nodes, self.heartbeat_s, self._patience, self.observers & set(self.nodes))

    @property
    def state(self) -> LineStateId:
        """The PackML state."""
        return self._machine.state

    @property
    def held_by_fault(self) -> bool:
        """Whether the line is held by a fault, and goes on by itself when that is gone."""
        return self._held_by_fault

    @property
    def deactivated(self) -> frozenset[str]:
        """Nodes that a person has deactivated."""
        return frozenset(self._fleet.deactivated)

    def begin(self, restart: Restart) -> None:
        """Go on where a controller before this one has ended. Call it before anything else."""
        self._machine = PackML(restart.state)
        self.auto_start = restart.auto_start
        self.reason = restart.reason
        self._held_by_fault = restart.held_by_fault
        self.latched_faults.update(restart.latched_faults)
        self._fleet.deactivated |= restart.deactivated

    def heartbeat(
        self,
        node: str,
        lifecycle: int,
        ok: bool,
        detail: str,
        now: float,
        *,
        emergency_stop: bool = False,
        deactivated: bool = False,
    ) -> None:
        """A node says how it is.

        Args:
            node: Its name.
            lifecycle: Number of its state, as in lifecycle_msgs/State.
            ok: Whether it can work.
            detail: Why not.
            now: The time (s).
            emergency_stop: Whether its device is in emergency stop.
            deactivated: Whether it was asked to deactivate, which this line never does.
        """
        self._fleet.heartbeat(
            node, lifecycle, ok, detail, now, emergency_stop=emergency_stop, deactivated=deactivated
        )

    def speaking(self, now: float) -> dict[str, Lifecycle]:
        """The nodes whose heartbeats were heard lately, and what they said of their life cycle."""
        return self._fleet.speaking(now)

    def command(self, name: str, reason: str) -> None:
        """A command by a person or another system, e.g. ``stop``.

        Raises:
            CommandNotAllowedError: Not allowed in this state; names what is.
            PlacesFullError: It waits for places to be emptied; names them.
        """
        taken_back = self.auto_start and name in _TO_REST
        if name in _TO_REST:  # even where refused: who stops a line that comes up does not want it to go on
            self.auto_start = self._held_by_fault = False
        if self.full and (name, self.state) in _ON_AGAIN:
            raise PlacesFullError(self.full, name)
        if name == "hold" and self.state in {LineStateId.HOLDING, LineStateId.HELD}:
            self.reason = reason  # the hold of a fault, perhaps: from now on it is a person's
        else:
            try:
                self._do(name, reason)
            except CommandNotAllowedError as error:
                if taken_back:
                    error.args = (f"{error}; it will not start by itself any more",)
                raise
        self._held_by_fault = False
        if name in {"unhold", "clear", "unsuspend", "reset"}:
            self.latched_faults.clear()

    def problems(self, now: float) -> dict[str, str]:
        """What keeps the line from running: code → text."""
        found = {**self.external_faults, **self.latched_faults, **self._fleet.problems(now)}
        stopped = self._fleet.emergency_stops()
        if stopped:
            found["emergency_stop"] = f"emergency stop: {', '.join(stopped)}"
        return found

    def warnings(self, now: float, *, came_up: bool = False) -> dict[str, str]:
        """What is an alarm and keeps the line from nothing, of its observers: code → text.

        Args:
            now: The time (s).
            came_up: Whether to leave out the observers that have never been active, as the line comes up.
        """
        return {**self.external_warnings, **self._fleet.warnings(now, came_up=came_up)}

    def alarms(self, now: float) -> dict[str, str]:
        """All that a person must see to, whether the line holds for it or not: code → text."""
        return {**self.warnings(now), **self.problems(now)}

    def _abort(self, reason: str) -> None:
        """After an abort nothing starts by itself."""
        self.auto_start = self._held_by_fault = False
        self._do("abort", reason)

    def _take_up(self) -> None:
        """The steps that need no operator once nothing is wrong: out of a hold by a fault, and the first start."""
        held, idle = self.state is LineStateId.HELD, self.state is LineStateId.IDLE
        if self.full and ((held and self._held_by_fault) or (idle and self.auto_start)):
            self.reason = f"full: {', '.join(self.full)}"
        elif self.state is LineStateId.HELD and self._held_by_fault:
            self._held_by_fault = False
            self._do("unhold", "fault is gone")
        elif self.auto_start and self.state is LineStateId.STOPPED:
            self._do("reset", "automatic start")
        elif self.auto_start and self.state is LineStateId.IDLE:
            self._do("start", "automatic start")

    def _do(self, command: str, reason: str) -> None:
        self._machine.command(command)
        self.reason = reason
        self._changed.append(StateChanged(self.state, reason))

    def _complete(self) -> None:
        self._machine.complete()
        self._changed.append(StateChanged(self.state, self.reason))

    def _changes(self) -> list[StateChanged]:
        """State changes since the last call."""
        changed, self._changed = self._changed, []
        return changed
