"""Whether the nodes keep to the contract: one that was replaced by one's own may have been drawn wrongly.

`ContractWatch` knows no ROS: it is told what the graph holds and which nodes speak, and says what is wrong and how
to mend it. What is there and wrong (quality of service, type) is told at once; what is missing only after a while,
since nodes find each other bit by bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from battery_sorting.line.contract import CONTROLLER, QUALITIES, Contract, Quality, Service, Topic
from battery_sorting.packml.fleet import Lifecycle

MISSING_S = 5.0
"""Something that an active node must have, and hasn't for so long, is missing (s). Discovery takes up to 3 s."""
CODE = "contract"
"""Of the alarm that holds the line."""
OBSERVER_CODE = "contract_observer"
"""Of the alarm for an observer, with which the line goes on."""
PAGE = "docs/reference/contract.md"
_BROUGHT_UP = {Lifecycle.UNCONFIGURED, Lifecycle.INACTIVE}
"""In these the controller asks a node for the next step."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A publisher or subscriber in the graph.

    Attributes:
        type_hash: Of the type's definition; empty if it is not known.
        bounded: Names of what else it asks for or limits: ``deadline``, ``lifespan``, ``liveliness``.
    """

    node: str
    namespace: str
    type: str
    reliable: bool
    transient_local: bool
    type_hash: str = ""
    bounded: tuple[str, ...] = ()


@dataclass(frozen=True)
class SeenGraph:
    """What the graph holds now.

    Attributes:
        publishers: Topic → who publishes on it, whatever the type.
        subscribers: Topic → who subscribes to it, whatever the type.
        services: Service → the types under which it is offered.
    """

    publishers: Mapping[str, Sequence[Endpoint]] = field(default_factory=dict)
    subscribers: Mapping[str, Sequence[Endpoint]] = field(default_factory=dict)
    services: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Breaches:
    """Who does not keep to the contract, and what is to be done; empty if nobody is to be named.

    Attributes:
        faults: Of the nodes that the line needs.
        warnings: Of its observers.
    """

    faults: str
    warnings: str


_Breach = tuple[str, str]
"""The node, and what is wrong with it."""


class ContractWatch:
    """Follows the graph.

    Args:
        contract: Of the line.
        namespace: Of the line, with its leading slash.
        nodes: Names of the line's nodes, without the controller.
        observers: Those of them that the line runs without.
    """

    def __init__(
        self, contract: Contract, namespace: str, nodes: Iterable[str], observers: frozenset[str] = frozenset()
    ) -> None:
        self._namespace = namespace
        self._nodes = tuple(nodes)
        self._observers = observers
        line = {*self._nodes, CONTROLLER}
        self._topics = contract.topics_between(line)
        self._services = tuple(one for one in contract.services if one.node in self._nodes)
        self._since: dict[_Breach, float] = {}
        self._heard: set[str] = set()

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics to be looked at, in the line's namespace."""
        return tuple(topic.name for topic in self._topics)

    def look(self, seen: SeenGraph, speaking: Mapping[str, Lifecycle], now: float) -> Breaches:
        """What is wrong now.

        Args:
            seen: The graph.
            speaking: The nodes whose heartbeats were heard lately → what they said of their life cycle.
            now: Seconds on the waiting clock.
        """
        self._heard |= speaking.keys()
        wrong = [breach for topic in self._topics for breach in self._look_at_topic(topic, seen)]
        wrong += [breach for service in self._services for breach in self._wrong_service(service, seen)]
        missing = [(name, text) for name in self._nodes for text in self._missing(name, speaking.get(name), seen)]
        self._since = {breach: self._since.get(breach, now) for breach in missing}
        lasting = [breach for breach, since in self._since.items() if now - since > MISSING_S]
        breaches = dict.fromkeys([*wrong, *lasting])
        return Breaches(
            _told(text for node, text in breaches if node not in self._observers),
            _told(text for node, text in breaches if node in self._observers),
        )

    # ---- what is there ----

    def _look_at_topic(self, topic: Topic, seen: SeenGraph) -> Iterable[_Breach]:
        quality = QUALITIES[topic.quality]
        publishers = self._of_line(seen.publishers.get(topic.name, ()), topic.publishers)
        subscribers = self._of_line(seen.subscribers.get(topic.name, ()), topic.subscribers)
        for verb, endpoints in (("publishes", publishers), ("subscribes to", subscribers)):
            for one in endpoints:
                if one.type != topic.type:
                    yield one.node, f"{one.node} {verb} {topic.name} as {one.type}: it must be {topic.type}"
        fitting = [one for one in (*publishers, *subscribers) if one.type == topic.type]
        yield from _other_versions(topic, fitting)
        if quality.reliable:
            yield from _weak_publishers(topic, quality, publishers)
            yield from _odd_subscribers(topic, quality, subscribers)

    def _of_line(self, endpoints: Iterable[Endpoint], names: Sequence[str]) -> list[Endpoint]:
        """Those of the line's nodes; all others are the affair of `line.graph_watch`, or nobody's."""
        line = {*self._nodes, CONTROLLER} & set(names)
        return [one for one in endpoints if one.namespace == self._namespace and one.node in line]

    def _wrong_service(self, service: Service, seen: SeenGraph) -> Iterable[_Breach]:
        path, type_ = service.witness
        for other in sorted(seen.services.get(path, frozenset()) - {type_}):
            shown = other.removesuffix("_SendGoal")
            yield service.node, f"{service.node} offers {service.path} as {shown}: it must be {service.type}"

    # ---- what is missing ----

    def _missing(self, name: str, state: Lifecycle | None, seen: SeenGraph) -> Iterable[str]:
        if state is None:
            yield from self._no_heartbeat(name, seen)
        elif state is Lifecycle.ACTIVE:
            yield from self._missing_endpoints(name, seen)
        elif state in _BROUGHT_UP and f"{name}/change_state" not in seen.services:
            yield (
                f"{name} says in its heartbeats that it is {state.name.lower()} and has no service ~/change_state: "
                "let it be a lifecycle node, or say PRIMARY_STATE_ACTIVE"
            )

    def _no_heartbeat(self, name: str, seen: SeenGraph) -> Iterable[str]:
        def has(endpoints: Mapping[str, Sequence[Endpoint]], topic: str) -> bool:
            return any(one.node == name for one in self._of_line(endpoints.get(topic, ()), self._nodes))

        there = any(has(side, topic) for side in (seen.publishers, seen.subscribers) for topic in self.topics)
        if there and not has(seen.publishers, "heartbeat"):
            yield (
                f"{name} runs and sends no heartbeat: let it publish battery_sorting/msg/Heartbeat on heartbeat, "
                "5 times per second"
            )
        elif there and name not in self._heard:
            yield (
                f"{name} has a publisher on heartbeat, but none of its heartbeats is heard: let it send one 5 "
                f"times per second, with node: {name}"
            )

    def _missing_endpoints(self, name: str, seen: SeenGraph) -> Iterable[str]:
        for topic in self._topics:
            for must, side, verb in (
                (topic.must_publish(name), seen.publishers, "publish"),
                (topic.must_subscribe(name), seen.subscribers, "subscribe to"),
            ):
                if must and not any(one.node == name for one in self._of_line(side.get(topic.name, ()), (name,))):
                    yield f"{name} does not {verb} {topic.name} ({topic.type}), and must"
        for service in self._services:
            if service.decides and service.node == name and service.witness[0] not in seen.services:
                kind = "action" if service.is_action else "service"
                yield f"{name} does not offer the {kind} {service.path} ({service.type}), and must"


def _told(texts: Iterable[str]) -> str:
    told = "; ".join(texts)
    return f"{told} ({PAGE})" if told else ""


def _other_versions(topic: Topic, endpoints: Sequence[Endpoint]) -> Iterable[_Breach]:
    """Those whose type has the same name and other fields. Nothing keeps them from taking each other's bytes."""
    hashes = Counter(one.type_hash for one in endpoints if one.type_hash)
    own = [one.type_hash for one in endpoints if one.node == CONTROLLER and one.type_hash]
    right = own[0] if own else hashes.most_common(1)[0][0] if hashes else ""
    for one in endpoints:
        if one.type_hash and one.type_hash != right:
            text = f"{one.node} has another version of {topic.type} on {topic.name}: build it with this package"
            yield one.node, text


def _weak_publishers(topic: Topic, quality: Quality, publishers: Iterable[Endpoint]) -> Iterable[_Breach]:
    """What they offer must be at the least what the topic asks for, or nobody hears them."""
    for one in publishers:
        lacking = [
            word
            for lacks, word in (
                (not one.reliable, "best effort"),
                (quality.transient_local and not one.transient_local, "volatile"),
            )
            if lacks
        ]
        if lacking:
            text = f"{one.node} publishes {topic.name} {' and '.join(lacking)}: {_make_it(topic, quality)}"
            yield one.node, text
        if "lifespan" in one.bounded:
            text = f"{one.node} publishes {topic.name} with a lifespan: {_make_it(topic, quality)}, without one"
            yield one.node, text


def _odd_subscribers(topic: Topic, quality: Quality, subscribers: Iterable[Endpoint]) -> Iterable[_Breach]:
    """One that asks for less may lose messages; one that asks for more than is offered hears nothing."""
    for one in subscribers:
        odd = [
            word
            for is_odd, word in (
                (not one.reliable, "best effort"),
                (quality.transient_local and not one.transient_local, "volatile"),
                (one.transient_local and not quality.transient_local, "transient local, which nobody offers"),
            )
            if is_odd
        ]
        if odd:
            yield one.node, f"{one.node} subscribes to {topic.name} {' and '.join(odd)}: {_make_it(topic, quality)}"
        asked = [word for word in one.bounded if word != "lifespan"]
        if asked:
            words = " and ".join(asked)
            text = f"{one.node} asks for a {words} on {topic.name}, which nobody offers: {_make_it(topic, quality)}"
            yield one.node, text


def _make_it(topic: Topic, quality: Quality) -> str:
    return f"make it {quality} (qos.{topic.quality})"
