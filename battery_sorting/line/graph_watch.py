"""Who publishes what the line acts on: a publisher that the plan doesn't have holds the line.

rclpy names no sender of a message, but the graph names the node of every publisher. So the names are watched.
`GraphWatch` knows no ROS: it is told who publishes now and says what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from battery_sorting.line.contract import CONTROLLER, Contract

LEASE_S = 20.0
"""So long the middleware lists a process that was killed (config/fastdds.xml)."""
SECOND_S = LEASE_S + 5.0
"""A second publisher of the same name is a stranger when the first is still there after this time (s)."""
NAMELESS_S = 5.0
"""A publisher's name is known a moment after the publisher itself; one without a name for longer has none (s)."""
NAMELESS = frozenset({"", "_NODE_NAME_UNKNOWN_", "_CREATED_BY_BARE_DDS_APP_"})
"""What the middleware calls a node whose name it doesn't know."""
PERIOD_S = 1.0
"""So often the graph is looked at."""
MAX_NAME = 100
_END_IT = "find and end it"
CODE = "stranger"
"""Of the alarm."""


@dataclass(frozen=True, slots=True)
class Publisher:
    """A publisher in the graph: the node that it belongs to, and what identifies it for ever."""

    node: str
    namespace: str
    gid: bytes


def decision_topics(contract: Contract, nodes: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Topics by which a line decides → names of the nodes that may publish on them, all in the line's namespace.

    Args:
        contract: Of the line.
        nodes: Names of the line's nodes.
    """
    line = {*nodes, CONTROLLER}
    topics = {topic.name: topic.publishers for topic in contract.topics if topic.decides}
    heartbeat = {"heartbeat": tuple(name for name in nodes if name != CONTROLLER)}
    answers = {
        f"{action.path}/_action/{part}": (action.node,)
        for action in contract.services
        if action.is_action and action.node in line
        for part in ("status", "feedback")
    }
    return {**topics, **answers, **heartbeat}


class GraphWatch:
    """Follows who publishes.

    Args:
        namespace: Of the line, with its leading slash.
        expected: Topic → nodes that may publish on it, from `decision_topics`.
    """

    def __init__(self, namespace: str, expected: Mapping[str, tuple[str, ...]]) -> None:
        self._namespace = namespace
        self._expected = expected
        self._first_seen: dict[tuple[str, bytes], float] = {}

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics to be looked at, in the line's namespace."""
        return tuple(self._expected)

    def look(self, publishers: Mapping[str, Iterable[Publisher]], now: float) -> str:
        """What is wrong with those who publish now, empty if nothing is.

        Args:
            publishers: Topic → its publishers now.
            now: Seconds on the waiting clock.
        """
        now_there = {(topic, one.gid) for topic, those in publishers.items() for one in those}
        self._first_seen = {key: self._first_seen.get(key, now) for key in now_there}
        problems = (
            problem
            for topic, those in publishers.items()
            for problem in (*self._strangers(topic, those, now), *self._doubles(topic, those, now))
        )
        return "; ".join(dict.fromkeys(problems))

    def _strangers(self, topic: str, those: Iterable[Publisher], now: float) -> Iterable[str]:
        those = tuple(those)
        there = {one.node for one in those if one.namespace == self._namespace}
        missing = [name for name in self._expected[topic] if name not in there]
        places = " or ".join(f"{self._namespace.rstrip('/')}/{name}" for name in missing)
        remedy = f"find and end it, or, if it is your own {places}, start it by that name" if places else _END_IT
        for one in those:
            if one.node in NAMELESS:
                if now - self._first_seen[topic, one.gid] > NAMELESS_S:
                    yield f"something that is no ROS node publishes on {topic}: {_END_IT}"
            elif one.namespace != self._namespace or one.node not in self._expected[topic]:
                name = f"{one.namespace.rstrip('/')}/{one.node}"[:MAX_NAME]  # a stranger's: it may hold anything
                name = "".join(letter if letter.isprintable() else "?" for letter in name)
                yield f"node {name} publishes on {topic} and is not of this line: {remedy}"

    def _doubles(self, topic: str, those: Iterable[Publisher], now: float) -> Iterable[str]:
        by_name: dict[str, list[float]] = {}
        for one in those:
            if one.node in self._expected[topic] and one.namespace == self._namespace:
                by_name.setdefault(one.node, []).append(self._first_seen[topic, one.gid])
        for name, seen in by_name.items():
            seen.sort()
            # Each but the youngest is the remains of a node that was killed, from when its successor came.
            if any(now - successor > SECOND_S for successor in seen[1:]):
                yield f"a second node {name} publishes on {topic}: {_END_IT}"
