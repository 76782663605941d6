"""The nodes of a line: whether they are well, and bringing them up in order.

`Fleet` knows no clock and no I/O: it is told what the nodes say and returns what to order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


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
class Transition:
    """Order to bring a lifecycle node one step further: ``configure`` or ``activate``."""

    node: str
    transition: str


@dataclass
class _Node:
    lifecycle: Lifecycle = Lifecycle.UNKNOWN
    ok: bool = False
    detail: str = "not started"
    seen_at: float = float("-inf")
    emergency_stop: bool = False


_STEPS = {Lifecycle.UNCONFIGURED: "configure", Lifecycle.INACTIVE: "activate"}


def _remedy(name: str, lifecycle: Lifecycle) -> str:
    steps = " and then ".join(
        f"'ros2 lifecycle set /<line>/{name} {step}'"
        for state, step in _STEPS.items()
        if state is lifecycle or step == "activate"
    )
    return f"node {name} was deactivated by a person: {steps} lets it work again"


class RetryTimer:
    """Keeps an order from being repeated before it can have taken.

    Args:
        retry_s: Orders that did not take are repeated after this time (s).
    """

    def __init__(self, retry_s: float) -> None:
        self._retry_s = retry_s
        self._ordered_at: dict[str, float] = {}

    def due(self, order: str, now: float) -> bool:
        """Whether ``order`` may be given (again) now. If so, it counts as given."""
        if now - self._ordered_at.get(order, float("-inf")) < self._retry_s:
            return False
        self._ordered_at[order] = now
        return True


class Fleet:
    """The nodes of a line.

    Args:
        names: Names of the nodes, in the order in which they are brought up.
        heartbeat_s: A node that was silent for longer is taken for dead (s).
        patience: Says when a transition may be asked for again.
        observers: Those of the nodes that the line runs without.
    """

    def __init__(
        self,
        names: Iterable[str],
        heartbeat_s: float,
        patience: RetryTimer,
        observers: frozenset[str] = frozenset(),
    ) -> None:
        self._heartbeat_s = heartbeat_s
        self._patience = patience
        self._observers = observers
        self._came_up: set[str] = set()
        self._nodes = {name: _Node() for name in names}
        self.deactivated: set[str] = set()

    def heartbeat(
        self,
        name: str,
        lifecycle: int,
        ok: bool,
        detail: str,
        now: float,
        *,
        emergency_stop: bool = False,
        deactivated: bool = False,
    ) -> None:
        """A node says how it is. One that does not belong to the line is not listened to."""
        if name not in self._nodes:
            return
        before, state = self._nodes[name], Lifecycle(lifecycle)
        self._nodes[name] = _Node(state, ok, detail, now, emergency_stop)
        # Nobody here orders that, so a person has: by a service call, which ROS does not sign.
        taken_down = before.lifecycle is Lifecycle.ACTIVE and state in {Lifecycle.INACTIVE, Lifecycle.FINALIZED}
        if state is Lifecycle.ACTIVE:
            self._came_up.add(name)
            self.deactivated.discard(name)
        elif deactivated or taken_down or state is Lifecycle.FINALIZED:
            self.deactivated.add(name)

    def emergency_stops(self) -> list[str]:
        """Nodes whose device is in emergency stop, as far as it was last heard."""
        return [name for name, node in self._nodes.items() if node.emergency_stop]

    def ready(self, name: str, now: float) -> bool:
        """Whether a node is alive, active and well."""
        node = self._nodes[name]
        return node.lifecycle is Lifecycle.ACTIVE and node.ok and not self._silent(node, now)

    def gone(self, name: str, now: float) -> bool:
        """Whether a node has died, or is its own successor that knows nothing of what was asked of it."""
        node = self._nodes[name]
        return self._silent(node, now) or node.lifecycle is Lifecycle.UNCONFIGURED

    def started_anew(self, name: str) -> bool:
        """Whether a node is its own successor, as far as it was last heard."""
        return self._nodes[name].lifecycle is Lifecycle.UNCONFIGURED

    def speaking(self, now: float) -> dict[str, Lifecycle]:
        """The nodes that were heard lately, and what they said of their life cycle."""
        return {name: node.lifecycle for name, node in self._nodes.items() if not self._silent(node, now)}

    def problems(self, now: float) -> dict[str, str]:
        """What is wrong with the nodes that the line needs: code → text."""
        return self._problems((name for name in self._nodes if name not in self._observers), now)

    def warnings(self, now: float, *, came_up: bool = False) -> dict[str, str]:
        """What is wrong with the observers: code → text. ``came_up``: only with those that have been active yet."""
        names = (name for name in self._nodes if name in self._observers)
        return self._problems((name for name in names if name in self._came_up or not came_up), now)

    def _problems(self, names: Iterable[str], now: float) -> dict[str, str]:
        found = {}
        for name in names:
            node = self._nodes[name]
            if self._silent(node, now):
                found[f"node_{name}"] = f"node {name} is silent"
            elif node.lifecycle is Lifecycle.FINALIZED:
                found[f"node_{name}"] = f"node {name} was shut down: end its process, and it is started anew"
            elif name in self.deactivated and node.lifecycle in _STEPS:
                found[f"node_{name}"] = _remedy(name, node.lifecycle)
            elif node.lifecycle is not Lifecycle.ACTIVE:
                found[f"node_{name}"] = f"node {name} is {node.lifecycle.name.lower()}: {node.detail}"
            elif not node.ok:
                found[f"node_{name}"] = f"node {name}: {node.detail}"
        return found

    def bring_up(self, now: float) -> list[Transition]:
        """One step for each node that is alive but not active. All are configured at once, activated in order.

        An observer waits for nobody, and nobody waits for it. A node that a person has deactivated is left alone
        until a person activates it.
        """
        steps = []
        may_activate = True
        for name, node in self._nodes.items():
            observes, silent = name in self._observers, self._silent(node, now)
            step = None if silent or name in self.deactivated else _STEPS.get(node.lifecycle)
            free = step == "configure" or may_activate or observes
            if step and free and self._patience.due(f"{name} {step}", now):
                steps.append(Transition(name, step))
            if not observes and (silent or node.lifecycle is not Lifecycle.ACTIVE):
                may_activate = False
        return steps

    def _silent(self, node: _Node, now: float) -> bool:
        return now - node.seen_at > self._heartbeat_s
