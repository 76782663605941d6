"""Who hears whom: a process ends itself only when somebody who speaks is not heard, or does not hear it."""
# issue 14, point 13

from __future__ import annotations

import pytest

from battery_sorting.line.hearing import (
    DEAF_CONTROLLER_S,
    DEAF_NODE_S,
    DEAF_TO_ONE_S,
    LOOK_S,
    ControllerHearing,
    NodeHearing,
)


class NodeBench:
    """A node that is asked as its timer would ask."""

    def __init__(self) -> None:
        self.hearing = NodeHearing("camera", "line_controller")
        self.now = 100.0
        self.mark = 0

    def run(self, seconds: float, *, speaks: bool = True, reaches: bool = True, hears_me: bool = True) -> str:
        """Why the node ends itself within so many seconds; empty if it doesn't."""
        for _ in range(round(seconds / LOOK_S)):
            self.now += LOOK_S
            self.mark += speaks
            if speaks and reaches:
                self.hearing.line_state(["camera"] if hears_me else ["conveyor"])
            reason = self.hearing.why_to_end(self.now, self.mark)
            if reason:
                return reason
        return ""


def test_node_that_hears_and_is_heard_lives():
    assert NodeBench().run(600) == ""


def test_deaf_node_ends_itself_within_seconds():
    bench = NodeBench()
    bench.run(10)
    assert "has not heard line_controller, which runs" in bench.run(DEAF_NODE_S + 2 * LOOK_S, reaches=False)


def test_node_that_was_never_acquainted_ends_itself():
    assert NodeBench().run(DEAF_NODE_S + 3 * LOOK_S, reaches=False)


def test_node_that_nobody_hears_ends_itself_within_seconds():
    bench = NodeBench()
    bench.run(10)
    assert "has not been heard by line_controller" in bench.run(DEAF_NODE_S + 2 * LOOK_S, hears_me=False)


def test_dead_or_frozen_controller_is_no_proof():
    bench = NodeBench()
    bench.run(10)
    assert bench.run(600, speaks=False) == ""
    assert bench.run(10) == ""


def test_controller_that_is_started_again_and_again_is_no_proof():
    bench = NodeBench()
    for _ in range(20):
        assert bench.run(3, speaks=False) == ""
        assert bench.run(DEAF_NODE_S - 3, reaches=False) == "", "it takes its time to find the others"
        assert bench.run(1, hears_me=False) == ""
        assert bench.run(2) == ""


def test_lone_node_lives():
    hearing = NodeHearing("camera", "line_controller")
    assert not any(hearing.why_to_end(100 + step * LOOK_S, None) for step in range(1000))


def test_mark_of_a_controller_that_ended_long_ago_is_no_proof():
    hearing = NodeHearing("camera", "line_controller")
    assert not any(hearing.why_to_end(100 + step * LOOK_S, 17) for step in range(1000))


def test_node_that_stood_still_itself_has_no_proof():
    bench = NodeBench()
    bench.run(10)
    for _ in range(10):
        bench.now += 30.0
        bench.mark += 60
        assert bench.run(DEAF_NODE_S - 1, reaches=False) == ""


class ControllerBench:
    """A controller that is asked as its timer would ask."""

    def __init__(self, observers: frozenset[str] = frozenset()) -> None:
        self.names = ("conveyor", "camera", "classifier")
        self.hearing = ControllerHearing(self.names, observers)
        self.now = 100.0
        self.marks = dict.fromkeys(self.names, 0)

    def run(self, seconds: float, speaking: str = "all", reaching: str = "all") -> str:
        """Why the controller ends itself within so many seconds; empty if it doesn't."""
        for step in range(round(seconds / LOOK_S)):
            self.now += LOOK_S
            for number, name in enumerate(self.names):
                self.marks[name] += speaking == "all" or name in speaking
                heard = (speaking == "all" or name in speaking) and (reaching == "all" or name in reaching)
                if heard and (step + number) % 3:  # some beats come late
                    self.hearing.heartbeat(name, self.now)
            reason = self.hearing.why_to_end(self.now, self.marks)
            if reason:
                return reason
        return ""


def test_controller_that_hears_nobody_ends_itself_before_all_nodes_do():
    bench = ControllerBench()
    assert bench.run(60) == ""
    reason = bench.run(DEAF_CONTROLLER_S + 2 * LOOK_S, reaching="")
    assert reason.startswith("has heard no node") and "conveyor, camera, classifier" in reason
    assert DEAF_CONTROLLER_S + 4 * LOOK_S <= DEAF_NODE_S


def test_controller_leaves_one_deaf_node_to_itself_at_first():
    bench = ControllerBench()
    bench.run(10)
    assert bench.run(DEAF_TO_ONE_S - 1, reaching="conveyor camera") == ""
    assert bench.hearing.hears(bench.now) == ["conveyor", "camera"]
    assert "has not heard classifier" in bench.run(3, reaching="conveyor camera")


# issue 16, 4
def test_controller_does_not_end_itself_for_an_observer_alone_but_for_all_that_it_does_not_hear():
    bench = ControllerBench(frozenset({"classifier"}))
    bench.run(10)
    assert bench.run(10 * DEAF_TO_ONE_S, reaching="conveyor camera") == ""
    assert bench.hearing.hears(bench.now) == ["conveyor", "camera"], "it is told that it is not heard"
    assert "has heard no node" in bench.run(DEAF_CONTROLLER_S + 2 * LOOK_S, reaching="")


def test_controller_that_a_node_can_not_reach_in_several_lives_ends_itself():
    bench = ControllerBench()
    bench.run(10)
    reasons = []
    for _ in range(4):
        reasons.append(bench.run(DEAF_NODE_S, reaching="conveyor camera"))
        reasons.append(bench.run(3, speaking="conveyor camera"))
    assert "has not heard classifier" in "".join(reasons)


@pytest.mark.parametrize("speaking", ["", "camera", "conveyor camera"])
def test_dead_and_frozen_nodes_are_no_proof(speaking):
    bench = ControllerBench()
    bench.run(10)
    assert bench.run(600, speaking=speaking) == ""


def test_controller_that_stood_still_itself_has_no_proof():
    bench = ControllerBench()
    bench.run(10)
    for _ in range(10):
        bench.now += 30.0
        bench.marks = {name: mark + 60 for name, mark in bench.marks.items()}
        assert bench.run(DEAF_CONTROLLER_S - 1, reaching="") == ""
        assert bench.run(1) == ""


def test_controller_is_no_victim_of_its_own_respawn_limit():
    """Six deaths in 30 s end a cell: with its start, a process that ends itself each time stays below that."""
    start_s = 0.5
    for patience_s in (DEAF_CONTROLLER_S, DEAF_NODE_S):
        assert 30.0 / (patience_s + start_s) < 5
