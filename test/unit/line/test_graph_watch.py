"""Who may publish what a line acts on: strangers are told at once, the remains of a killed node are none."""
# issue 14, point 17

from __future__ import annotations

import itertools

import pytest

from battery_sorting.line.contract import BELT_CONTRACT, EV_CONTRACT, EV_NODES, MEASURING_NODES, NODES
from battery_sorting.line.graph_watch import (
    LEASE_S,
    NAMELESS_S,
    PERIOD_S,
    SECOND_S,
    GraphWatch,
    Publisher,
    decision_topics,
)

GIDS = (number.to_bytes(16, "big") for number in itertools.count())


def publisher(node: str, namespace: str = "/belt") -> Publisher:
    return Publisher(node, namespace, next(GIDS))


class Graph:
    """A graph in which time passes; nodes that are killed stay listed for the lease."""

    def __init__(self) -> None:
        nodes = tuple(name for name in NODES if name != "line_controller")
        topics = decision_topics(BELT_CONTRACT, nodes)
        self.watch = GraphWatch("/belt", topics)
        self.there = {topic: [publisher(name) for name in names] for topic, names in topics.items()}
        self.dead: list[tuple[float, Publisher]] = []
        self.now = 50.0

    def kill_and_respawn(self, name: str) -> None:
        for those in self.there.values():
            for one in [one for one in those if one.node == name and one not in {dead for _, dead in self.dead}]:
                self.dead.append((self.now, one))
                those.append(publisher(name))

    def run(self, seconds: float) -> list[str]:
        """What is said meanwhile."""
        said = []
        for _ in range(round(seconds / PERIOD_S)):
            self.now += PERIOD_S
            gone = {one for since, one in self.dead if self.now - since > LEASE_S}
            self.there = {topic: [one for one in those if one not in gone] for topic, those in self.there.items()}
            said.append(self.watch.look(self.there, self.now))
        return [text for text in said if text]


def test_nodes_of_the_plan_are_no_strangers():
    assert Graph().run(100) == []


@pytest.mark.parametrize("topic", decision_topics(BELT_CONTRACT, ("conveyor",)))
def test_a_publisher_that_the_plan_does_not_have_is_told_at_once(topic):
    graph = Graph()
    graph.there[topic].append(publisher("forger", "/"))
    (said,) = graph.run(PERIOD_S)
    assert said == f"node /forger publishes on {topic} and is not of this line: find and end it"
    graph.there[topic].pop()
    assert graph.run(100) == []


def test_a_node_of_the_plan_that_publishes_what_is_not_its_own_is_a_stranger():
    graph = Graph()
    graph.there["belt_state"].append(publisher("camera"))
    assert "node /belt/camera publishes on belt_state" in graph.run(1)[0]


# issue 15, E15
def test_ones_own_node_that_goes_by_another_name_is_told_which_it_should_have():
    graph = Graph()
    graph.there["battery_type"] = [publisher("my_classifier")]
    (said,) = graph.run(PERIOD_S)
    assert said == (
        "node /belt/my_classifier publishes on battery_type and is not of this line: find and end it, "
        "or, if it is your own /belt/classifier, start it by that name"
    )


def test_a_name_is_told_so_that_it_can_be_printed():
    graph = Graph()
    graph.there["exit_detection"].append(publisher("a\x1b[2J" + "x" * 1000, "/"))
    (said,) = graph.run(PERIOD_S)
    assert said.isprintable() and "/a?[2Jxxx" in said and len(said) < 200


def test_a_node_of_another_line_is_a_stranger():
    graph = Graph()
    graph.there["exit_detection"].append(publisher("conveyor", "/right"))
    assert "node /right/conveyor publishes on exit" in graph.run(1)[0]


def test_every_node_killed_in_turn_again_and_again_is_no_second_one():
    graph = Graph()
    for name in 3 * NODES:
        graph.kill_and_respawn(name)
        assert graph.run(7) == [], name


def test_a_second_node_of_the_same_name_is_told_when_it_outlives_the_lease():
    graph = Graph()
    graph.run(10)
    graph.there["eject_command"].append(publisher("line_controller"))
    assert graph.run(LEASE_S) == []
    said = graph.run(SECOND_S - LEASE_S + 2)
    assert said[0] == "a second node line_controller publishes on eject_command: find and end it"


def test_a_name_that_is_not_known_yet_has_its_time():
    graph = Graph()
    graph.there["exit_detection"].append(publisher("_NODE_NAME_UNKNOWN_", "_NODE_NAMESPACE_UNKNOWN_"))
    assert graph.run(NAMELESS_S) == []
    assert "no ROS node publishes on exit" in graph.run(2)[0]


def test_the_ev_line_watches_its_station_its_machines_and_its_actions():
    topics = decision_topics(EV_CONTRACT, (*EV_NODES, *MEASURING_NODES))
    assert topics["cell_appearance"] == topics["station_state"] == ("inspection",)
    assert topics["move_cell/_action/status"] == ("robot",)
    assert set(topics["heartbeat"]) == {"inspection", *MEASURING_NODES}
