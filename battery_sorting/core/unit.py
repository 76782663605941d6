"""What the PackML units of all lines have in common: their nodes, states, faults and commands."""

from __future__ import annotations

from dataclasses import dataclass, field

from battery_sorting.core.fleet import Fleet, Patience
from battery_sorting.core.packml import LineStateId, PackML


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The line is in another state."""

    state: LineStateId
    reason: str


@dataclass
class LineUnit:
    """PackML unit of a line.

    Attributes:
        nodes: Names of the nodes that the line needs, in the order in which they are brought up.
        auto_start: Start as soon as everything is ready, without an operator's command.
        heartbeat_s: A node that was silent for longer is taken for dead (s).
        retry_s: Orders that did not take are repeated after this time (s).
        full: Places that a person must empty before the line goes on.
    """

    nodes: tuple[str, ...]
    auto_start: bool = field(default=False, kw_only=True)
    heartbeat_s: float = field(default=1.0, kw_only=True)
    retry_s: float = field(default=0.4, kw_only=True)
    reason: str = field(default="started", init=False)
    external_faults: dict[str, str] = field(default_factory=dict, init=False)  # code → text; gone when its cause is
    latched_faults: dict[str, str] = field(default_factory=dict, init=False)  # code → text; gone by unhold or clear
    full: list[str] = field(default_factory=list, init=False)
    _machine: PackML = field(default_factory=PackML, init=False)
    _fleet: Fleet = field(init=False)
    _patience: Patience = field(init=False)
    _held_by_fault: bool = field(default=False, init=False)
    _changed: list[StateChanged] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._patience = Patience(self.retry_s)
        self._fleet = Fleet(self.nodes, self.heartbeat_s, self._patience)

    @property
    def state(self) -> LineStateId:
        """The PackML state."""
        return self._machine.state

    def heartbeat(self, node: str, lifecycle: int, ok: bool, detail: str, now: float) -> None:
        """A node says how it is."""
        self._fleet.heartbeat(node, lifecycle, ok, detail, now)

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
            self.full = []

    def problems(self, now: float) -> dict[str, str]:
        """What keeps the line from running: code → text."""
        return {**self.external_faults, **self.latched_faults, **self._fleet.problems(now)}

    def _take_up(self) -> None:
        """The steps that need no operator once nothing is wrong: out of a hold by a fault, and the first start."""
        if self.state is LineStateId.HELD and self._held_by_fault:
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
