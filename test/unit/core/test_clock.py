"""The clock by which a node judges the silence of others: issue 14, point 8."""

from __future__ import annotations

import pytest

from battery_sorting.belt.unit import BeltUnit
from battery_sorting.core.clock import STILL_S, ListeningClock, ReplayClock, ReplayWatch
from battery_sorting.core.types import BeltState
from battery_sorting.packml.fleet import Lifecycle

PERIOD_S = 0.05


class Host:
    """A host whose clock is set by the test."""

    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


class Listener:
    """A node with its timer."""

    def __init__(self) -> None:
        self.host = Host()
        self.clock = ListeningClock(self.host, self.host)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / PERIOD_S)):
            self.host.s += PERIOD_S
            self.clock()

    def stand_still(self, seconds: float) -> None:
        self.host.s += seconds


@pytest.fixture
def node() -> Listener:
    return Listener()


def test_time_goes_on_as_long_as_the_node_does(node):
    began = node.clock()
    node.run(7.0)
    assert node.clock() - began == pytest.approx(7.0)
    assert node.clock.stood_still_s() == 0.0


@pytest.mark.parametrize("stood_s", [0.4, 2.1, 3600.0])
def test_standing_still_counts_for_nothing_and_is_told_once(node, stood_s):
    node.run(1.0)
    before = node.clock()
    node.stand_still(stood_s)
    assert node.clock() == before
    assert node.clock.stood_still_s() == pytest.approx(stood_s)
    assert node.clock.stood_still_s() == 0.0
    node.run(0.25)
    assert node.clock() == before, "what waits is heard first"
    node.run(2.0)
    assert node.clock() - before == pytest.approx(1.95, abs=2 * PERIOD_S)


def test_it_never_goes_back(node):
    said = [node.clock()]
    for seconds in (0.1, 0.5, 0.02, 3.0, 0.31, 0.1):
        node.stand_still(seconds)
        said.append(node.clock())
        node.run(0.2)
        said.append(node.clock())
    assert said == sorted(said)


def test_replay_at_any_rate_stands_still_by_the_hosts_time_and_goes_on_by_its_own():
    host, replay = Host(), Host()
    clock = ListeningClock(replay, host)
    began = clock()
    for _ in range(100):
        host.s, replay.s = host.s + 0.05, replay.s + 0.5
        clock()
    assert clock() - began == pytest.approx(50.0)
    host.s, replay.s = host.s + 2.0, replay.s + 20.0
    assert clock() - began == pytest.approx(50.0)


def listening_cell(node: Listener) -> BeltUnit:
    cell = BeltUnit(("conveyor",), 1.0)
    hear(cell, node)
    assert cell.problems(node.clock()) == {}
    return cell


def hear(cell: BeltUnit, node: Listener) -> None:
    cell.heartbeat("conveyor", Lifecycle.ACTIVE, True, "", node.clock())
    cell.belt(BeltState(0.0, connected=True), node.clock())


@pytest.mark.parametrize("stood_s", [1.0, 2.5, 600.0])
def test_controller_that_stood_still_itself_blames_nobody(node, stood_s):
    cell = listening_cell(node)
    for _ in range(10):
        node.stand_still(stood_s)
        assert cell.problems(node.clock()) == {}
        node.run(0.25)
        assert cell.problems(node.clock()) == {}
        hear(cell, node)
        node.run(0.2)


def test_node_that_died_while_the_controller_stood_still_is_noticed_within_its_time(node):
    cell = listening_cell(node)
    node.stand_still(2.0)
    node.run(1.5)
    assert {"node_conveyor", "belt_state"} <= cell.problems(node.clock()).keys()


def test_node_that_is_dead_is_noticed_though_the_controller_stands_still_again_and_again(node):
    cell = listening_cell(node)
    for _ in range(8):
        node.stand_still(1.0)
        node.run(0.5)
    assert "node_conveyor" in cell.problems(node.clock())


# ---- the clock of a replay: issue 15, D14 ----


class Replay:
    """A host and the ROS clock on it, in the hands of the test, read by a node at 20 Hz."""

    def __init__(self) -> None:
        self.host, self.ros = Host(), Host()
        self.ros.s = 0.0
        self.clock = ReplayClock(self.ros, self.host)
        self._watch = ReplayWatch(self.host())
        self.problem = ""

    def run(self, seconds: float, rate: float = 1.0, every_s: float = PERIOD_S) -> None:
        """``seconds`` of the host pass, ``/clock`` comes ``every_s`` of them."""
        for number in range(1, round(seconds / PERIOD_S) + 1):
            self.host.s += PERIOD_S
            if number % round(every_s / PERIOD_S) == 0:
                self.ros.s += every_s * rate
            self.clock()
            self.problem = self._watch.problem(self.ros(), self.host())


@pytest.fixture
def replay() -> Replay:
    replay = Replay()
    replay.ros.s = 1.8e9
    assert replay.clock() < 1.0, "the first /clock is no time that has passed"
    return replay


@pytest.mark.parametrize("rate", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("every_s", [PERIOD_S, 1.0])
def test_waits_go_by_the_replay_at_any_rate(replay, rate, every_s):
    before = replay.clock()
    replay.run(20.0, rate, every_s)
    assert replay.clock() - before == pytest.approx(20.0 * rate, abs=0.01)
    assert replay.problem == ""


@pytest.mark.parametrize(("rate", "counted"), [(0.1, 0.1), (1.0, 1.0), (10.0, 1.0)])
@pytest.mark.parametrize("every_s", [PERIOD_S, 0.5])
def test_a_controller_gives_processes_the_hosts_time_however_fast_a_replay_is(rate, counted, every_s):
    """Before, a process that was kept from running for 0.1 s counted as dead at ten times the speed."""
    replay = Replay()
    replay.ros.s = 1.8e9
    replay.clock = ReplayClock(replay.ros, replay.host, at_most=1.0)
    replay.run(20.0, rate, every_s)
    assert replay.clock() == pytest.approx(20.0 * counted, abs=0.1)


def test_without_a_clock_waits_go_on_by_the_hosts_time_and_it_is_told_within_seconds():
    replay = Replay()
    replay.run(2.5, 0.0)
    assert replay.problem == ""
    replay.run(1.0, 0.0)
    assert replay.clock() == pytest.approx(3.5)
    assert "no /clock has come for 3 s" in replay.problem
    replay.ros.s = 1.8e9
    replay.run(1.0)
    assert replay.clock() == pytest.approx(4.5, abs=0.1)
    assert replay.problem == ""


def test_a_paused_replay_is_told_and_dead_nodes_are_noticed_all_the_same(replay):
    replay.run(5.0)
    before = replay.clock()
    replay.run(STILL_S + PERIOD_S, 0.0)
    assert replay.clock() - before == pytest.approx(0.0, abs=PERIOD_S), "a pause of a moment is no time"
    assert "/clock has stood still for 3 s" in replay.problem
    replay.run(10.0, 0.0)
    assert replay.clock() - before == pytest.approx(10.0, abs=0.1)
    replay.run(1.0)
    assert replay.problem == ""
    assert replay.clock() - before == pytest.approx(11.0, abs=0.1)


@pytest.mark.parametrize("leap_s", [-3600.0, -1.0, 3600.0, 1.8e9])
def test_a_replay_that_begins_anew_or_is_wound_on_does_not_move_what_is_waited_for(replay, leap_s):
    replay.run(5.0)
    before = replay.clock()
    replay.ros.s += leap_s
    replay.run(5.0)
    assert replay.clock() - before == pytest.approx(5.0, abs=2 * PERIOD_S)
    assert replay.problem == ""


def test_a_clock_that_is_asked_seldom_goes_as_far_as_the_replay_has(replay):
    before = replay.clock()
    replay.host.s, replay.ros.s = replay.host.s + 60.0, replay.ros.s + 600.0
    assert replay.clock() - before == pytest.approx(600.0)


def test_line_whose_bag_is_played_in_a_loop_does_not_stand_still(replay):
    """Before, a loop of an hour stopped the controller's clock for an hour."""
    clock = ListeningClock(replay.clock, replay.host)
    before = clock()
    for _ in range(3):
        for _ in range(100):
            replay.host.s, replay.ros.s = replay.host.s + PERIOD_S, replay.ros.s + PERIOD_S
            clock()
        replay.ros.s -= 5.0
    assert clock() - before == pytest.approx(15.0, abs=0.3)
