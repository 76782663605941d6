"""Runs the cell as a whole: start-up order of the nodes, PackML states, what the belt has to do.

`CellController` knows no clock and no I/O: it is told what happens and returns what to do. `tick` reconciles: it
compares what should be with what is and repeats its orders until they took, so a lost request is no special case.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from battery_sorting.core.packml import CommandNotAllowedError, LineStateId, PackML
from battery_sorting.core.types import BeltState

S = LineStateId


class Lifecycle(int, Enum):
    """The states of a ROS lifecycle node (values of lifecycle_msgs/State)."""

    UNKNOWN = 0
    UNCONFIGURED = 1
    INACTIVE = 2
    ACTIVE = 3
    FINALIZED = 4

    @classmethod
    def _missing_(cls, value: object) -> Lifecycle:
        """States on the way, e.g. 13 (activating), are neither here nor there."""
        del value
        return cls.UNKNOWN


@dataclass(frozen=True, slots=True)
class MoveBelt:
    """Order to run the belt at ``speed_mps``, or to stop it when that is 0."""

    speed_mps: float


@dataclass(frozen=True, slots=True)
class ResetPlc:
    """Order to acknowledge the faults of the PLC."""


@dataclass(frozen=True, slots=True)
class ClearQueue:
    """Order to cancel all ejections that have not fired."""


@dataclass(frozen=True, slots=True)
class Transition:
    """Order to bring a lifecycle node one step further: ``configure`` or ``activate``."""

    node: str
    transition: str


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The line is in another state."""

    state: LineStateId
    reason: str


CellAction = MoveBelt | ResetPlc | ClearQueue | Transition | StateChanged


@dataclass
class _Node:
    lifecycle: Lifecycle = Lifecycle.UNKNOWN
    ok: bool = False
    detail: str = "not started"
    seen_at: float = float("-inf")


_RUNNING = {S.STARTING, S.EXECUTE, S.UNHOLDING, S.UNSUSPENDING}
"""States in which the belt shall run."""

_COMING_TO_REST = {S.HOLDING, S.SUSPENDING, S.STOPPING, S.ABORTING, S.COMPLETING}
_ABORTED = {S.ABORTING, S.ABORTED, S.CLEARING}
_NO_EJECTION = _ABORTED | {S.STOPPED, S.RESETTING, S.IDLE}


@dataclass
class CellController:
    """PackML unit of the belt line.

    Attributes:
        nodes: Names of the nodes that the line needs, in the order in which they are brought up.
        speed_mps: Speed of the belt in production (m/s).
        auto_start: Start as soon as everything is ready, without an operator's command.
        heartbeat_s: A node that was silent for longer is taken for dead (s).
        retry_s: Orders that did not take are repeated after this time (s).
    """

    nodes: tuple[str, ...]
    speed_mps: float
    auto_start: bool = False
    heartbeat_s: float = 1.0
    retry_s: float = 0.4
    belt_state_s: float = 0.5
    reason: str = "started"
    external_faults: dict[str, str] = field(default_factory=dict)  # code → text; gone when its cause is
    latched_faults: dict[str, str] = field(default_factory=dict)  # code → text; gone when a person unholds the line
    full_bins: list[str] = field(default_factory=list)
    _machine: PackML = field(default_factory=PackML)
    _nodes: dict[str, _Node] = field(default_factory=dict)
    _belt: BeltState = field(default_factory=lambda: BeltState(stamp=float("-inf"), error="no belt state yet"))
    _belt_seen_at: float = float("-inf")
    _held_by_fault: bool = False
    _ordered_at: dict[str, float] = field(default_factory=dict)
    _changed: list[StateChanged] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._nodes = {name: _Node() for name in self.nodes}

    @property
    def state(self) -> LineStateId:
        """The PackML state."""
        return self._machine.state

    def may_eject(self, now: float) -> bool:
        """Whether an ejection may be ordered now."""
        return (
            self.state not in _NO_EJECTION
            and self._ready("ejector", now)
            and now - self._belt_seen_at <= self.belt_state_s
            and self._belt.connected
            and self._belt.encoder_ok
            and not self._belt.watchdog_tripped
            and not self._belt.emergency_stop
        )

    def heartbeat(self, node: str, lifecycle: int, ok: bool, detail: str, now: float) -> None:
        """A node says how it is."""
        if node in self._nodes:
            self._nodes[node] = _Node(Lifecycle(lifecycle), ok, detail, now)

    def belt(self, state: BeltState, now: float) -> None:
        """What the PLC says."""
        self._belt = state
        self._belt_seen_at = now

    def command(self, name: str, reason: str) -> None:
        """A command by a person or another system, e.g. ``stop``.

        Raises:
            CommandNotAllowedError: Not allowed in this state; names what is.
        """
        if name in {"stop", "abort", "complete"}:
            self.auto_start = False  # even where refused: who stops a cell that comes up does not want it to start
        self._do(name, reason)
        self._held_by_fault = False
        if name in {"unhold", "clear", "unsuspend"}:
            self.latched_faults.clear()
            self.full_bins = []

    def problems(self, now: float) -> dict[str, str]:
        """What keeps the line from running: code → text."""
        found = {**self.external_faults, **self.latched_faults}
        for name, node in self._nodes.items():
            if now - node.seen_at > self.heartbeat_s:
                found[f"node_{name}"] = f"node {name} is silent"
            elif node.lifecycle is not Lifecycle.ACTIVE:
                found[f"node_{name}"] = f"node {name} is {node.lifecycle.name.lower()}: {node.detail}"
            elif not node.ok:
                found[f"node_{name}"] = f"node {name}: {node.detail}"
        belt = self._belt
        if now - self._belt_seen_at > self.belt_state_s:
            found["belt_state"] = "no state of the belt arrives"
        elif not belt.connected:
            found["plc"] = belt.error or "the PLC does not answer"
        else:
            if belt.emergency_stop:
                found["emergency_stop"] = "emergency stop"
            if belt.watchdog_tripped:
                found["watchdog"] = "the PLC's watchdog has tripped"
            if not belt.encoder_ok:
                found["encoder"] = belt.error or "the encoder does not count"
        return found

    def tick(self, now: float) -> list[CellAction]:
        """Moves on; call it at about 20 Hz."""
        before, problems = self.state, self.problems(now)
        actions: list[CellAction] = self._bring_up_nodes(now)
        if self.state not in _ABORTED and ("emergency_stop" in problems or "encoder" in problems):
            self.auto_start = False  # after an emergency stop nothing starts by itself
            self._do("abort", problems.get("emergency_stop") or problems["encoder"])
        elif (self.state is S.EXECUTE and problems) or (self.state in _RUNNING and self.latched_faults):
            self._held_by_fault = True
            self._do("hold", "; ".join(problems.values()))
        elif self.state is S.EXECUTE and self.full_bins:
            self._do("suspend", f"full: {', '.join(self.full_bins)}")
        else:
            actions += self._progress(problems, now)
        for passage in {before, self.state} & {S.ABORTING, S.CLEARING}:
            if self._ready("ejector", now) and self._due(f"clear queue while {passage}", now):
                actions.append(ClearQueue())
        actions += self._drive_belt(problems, now)
        actions += self._changed
        self._changed = []
        return actions

    def _progress(self, problems: dict[str, str], now: float) -> list[CellAction]:
        """Finishes acting states and takes the steps that need no operator."""
        state, belt = self.state, self._belt
        at_rest = not belt.connected or abs(belt.speed_mps) < 0.005
        at_speed = belt.running and abs(belt.speed_mps - self.speed_mps) < 0.05 * self.speed_mps
        if state in _COMING_TO_REST and at_rest:
            self._complete()
        elif state in _RUNNING and state is not S.EXECUTE and at_speed and not problems:
            if state is S.STARTING:
                self.auto_start = False
            self._complete()
        elif state is S.RESETTING:
            self._complete()
        elif state is S.CLEARING:
            # An ejection of before must not outlive the fault: without the ejector its queue can't be cleared.
            causes = {"emergency_stop", "watchdog", "encoder", "plc", "belt_state", "node_ejector"}
            if not causes & problems.keys():
                self._complete()
            elif self._due("reset", now):
                return [ResetPlc()]
        elif set(problems) == {"watchdog"} and state not in _ABORTED and self._due("reset", now):
            return [ResetPlc()]
        elif not problems and state is S.HELD and self._held_by_fault:
            self._held_by_fault = False
            self._do("unhold", "fault is gone")
        elif not problems and self.auto_start and state is S.STOPPED:
            self._do("reset", "automatic start")
        elif not problems and self.auto_start and state is S.IDLE:
            self._do("start", "automatic start")
        return []

    def _drive_belt(self, problems: dict[str, str], now: float) -> list[CellAction]:
        belt = self._belt
        if not belt.connected or "belt_state" in problems or not self._ready("conveyor", now):
            return []
        run = self.state in _RUNNING and not problems
        speed = self.speed_mps if run else 0.0
        as_ordered = belt.running == run and (not run or abs(belt.speed_setpoint_mps - speed) < 1e-3)
        if as_ordered or not self._due(f"belt {speed}", now):
            return []
        return [MoveBelt(speed)]

    def _bring_up_nodes(self, now: float) -> list[CellAction]:
        """One step for each node that is alive but not active. All are configured at once, activated in order."""
        actions: list[CellAction] = []
        may_activate = True
        for name, node in self._nodes.items():
            if now - node.seen_at > self.heartbeat_s:
                may_activate = False
                continue
            step = {Lifecycle.UNCONFIGURED: "configure", Lifecycle.INACTIVE: "activate"}.get(node.lifecycle)
            if step and (step == "configure" or may_activate) and self._due(f"{name} {step}", now):
                actions.append(Transition(name, step))
            if node.lifecycle is not Lifecycle.ACTIVE:
                may_activate = False
        return actions

    def _ready(self, name: str, now: float) -> bool:
        node = self._nodes[name]
        return node.lifecycle is Lifecycle.ACTIVE and node.ok and now - node.seen_at <= self.heartbeat_s

    def _due(self, order: str, now: float) -> bool:
        """Whether ``order`` may be given (again) now."""
        if now - self._ordered_at.get(order, float("-inf")) < self.retry_s:
            return False
        self._ordered_at[order] = now
        return True

    def _do(self, command: str, reason: str) -> None:
        self._machine.command(command)
        self.reason = reason
        self._changed.append(StateChanged(self.state, reason))

    def _complete(self) -> None:
        self._machine.complete()
        self._changed.append(StateChanged(self.state, self.reason))


__all__ = [
    "CellAction",
    "CellController",
    "ClearQueue",
    "CommandNotAllowedError",
    "Lifecycle",
    "MoveBelt",
    "ResetPlc",
    "StateChanged",
    "Transition",
]
