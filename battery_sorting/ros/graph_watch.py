"""Looks at the graph: holds the line for a stranger, and for a node that does not keep to the contract."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rclpy._rclpy_pybind11 import NodeNameNonExistentError
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, LivelinessPolicy, ReliabilityPolicy

from battery_sorting.core.clock import Clock
from battery_sorting.core.types import LineStateId
from battery_sorting.line import contract_watch
from battery_sorting.line.contract import Contract
from battery_sorting.line.contract_watch import ContractWatch, Endpoint, SeenGraph
from battery_sorting.line.graph_watch import CODE, PERIOD_S, GraphWatch, Publisher, decision_topics
from battery_sorting.packml.alarms import follow_fault
from battery_sorting.packml.unit import LineUnit

ENDLESS_NS = 100 * 365 * 86400 * 10**9
"""Durations above this mean none: middlewares differ in what is their largest."""

AT_REST = frozenset(
    {
        LineStateId.STOPPING,
        LineStateId.STOPPED,
        LineStateId.RESETTING,
        LineStateId.IDLE,
        LineStateId.COMPLETE,
        LineStateId.ABORTING,
        LineStateId.ABORTED,
        LineStateId.CLEARING,
    }
)
"""In these nothing moves: that the stranger is gone is enough, and nobody need have looked."""


def watch_graph(node: Node, contract: Contract, unit: LineUnit, clock: Clock) -> None:
    """Raises the alarm `CODE` at ``unit`` for a publisher that the line doesn't have.

    As long as it is there the line can't go on; after that a person must have looked (the fault is latched).
    """
    watch = GraphWatch(node.get_namespace(), decision_topics(contract, unit.nodes))

    def look() -> None:
        problem = watch.look({topic: publishers_of(node, topic) for topic in watch.topics}, clock())
        follow_fault(unit.external_faults, CODE, problem)
        if problem and unit.state not in AT_REST:
            unit.latched_faults[CODE] = problem

    node.create_timer(PERIOD_S, look)


def watch_contract(node: Node, contract: Contract, unit: LineUnit, clock: Clock) -> None:
    """Raises the alarm `line.contract_watch.CODE` at ``unit`` for a node that does not keep to the contract.

    The line holds as long as that is so, and goes on by itself when it is mended. For an observer it does not hold.
    """
    watch = ContractWatch(contract, node.get_namespace(), unit.nodes, unit.observers)
    told = ""

    def look() -> None:
        nonlocal told
        found = watch.look(seen_by(node, watch.topics, unit.nodes), unit.speaking(clock()), clock())
        follow_fault(unit.external_faults, contract_watch.CODE, found.faults)
        follow_fault(unit.external_warnings, contract_watch.OBSERVER_CODE, found.warnings)
        problem = "; ".join(filter(None, (found.faults, found.warnings)))
        if problem and problem != told:
            node.get_logger().error(problem)
        told = problem

    node.create_timer(PERIOD_S, look)


def publishers_of(node: Node, topic: str) -> list[Publisher]:
    """Who publishes on a topic (relative to the node's namespace) now."""
    return [
        Publisher(info.node_name, info.node_namespace, bytes(info.endpoint_gid))
        for info in node.get_publishers_info_by_topic(topic)
    ]


def seen_by(node: Node, topics: Iterable[str], names: Iterable[str]) -> SeenGraph:
    """What the graph holds on ``topics``, and the services of the nodes ``names``, all in the node's namespace."""
    topics = tuple(topics)
    return SeenGraph(
        {topic: [_endpoint(info) for info in node.get_publishers_info_by_topic(topic)] for topic in topics},
        {topic: [_endpoint(info) for info in node.get_subscriptions_info_by_topic(topic)] for topic in topics},
        dict(service for name in names for service in _services_of(node, name)),
    )


def _services_of(node: Node, name: str) -> list[tuple[str, frozenset[str]]]:
    """Asked by node: a list of all services has those, too, that somebody would only like to call."""
    space = node.get_namespace()
    try:
        found = node.get_service_names_and_types_by_node(name, space)
    except NodeNameNonExistentError:
        return []
    return [(path.removeprefix(f"{space.rstrip('/')}/"), frozenset(types)) for path, types in found]


def _endpoint(info: Any) -> Endpoint:
    quality = info.qos_profile
    bounded = {
        "deadline": _is_finite(quality.deadline),
        "lifespan": _is_finite(quality.lifespan),
        "liveliness": quality.liveliness is LivelinessPolicy.MANUAL_BY_TOPIC
        or _is_finite(quality.liveliness_lease_duration),
    }
    return Endpoint(
        info.node_name,
        info.node_namespace,
        info.topic_type,
        quality.reliability is ReliabilityPolicy.RELIABLE,
        quality.durability is DurabilityPolicy.TRANSIENT_LOCAL,
        bytes(info.topic_type_hash.value).hex() if any(info.topic_type_hash.value) else "",
        tuple(name for name, is_so in bounded.items() if is_so),
    )


def _is_finite(duration: Any) -> bool:
    """Whether it is a limit: the middleware says 0 or its largest number where there is none."""
    return 0 < duration.nanoseconds < ENDLESS_NS
