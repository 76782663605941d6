"""A move of the robot, from its order to its end: the simulated arm in this process, on a clock of its own."""
# issue 16, 6

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.station_host import NodeStandIn

from battery_sorting.core.errors import DeviceConnectionError, DeviceError
from battery_sorting.core.types import LineStateId
from battery_sorting.drivers.base import DriverSettings
from battery_sorting.drivers.robot.base import MoveJob, MoveResult, Robot, RobotState
from battery_sorting.ev.stations.carrying import MOVE_S, Carrier, MoveEnd, MoveError, MoveRequest
from battery_sorting.plant.robot import SimulatedRobot, Slot

HALF_S = 1.0


class RobotInProcess(Robot):
    """The arm without a socket. ``lose`` orders get lost on their way; ``cut_off``: it can't be reached."""

    Settings = DriverSettings

    def __init__(self) -> None:
        super().__init__(DriverSettings())
        self.events: list[dict[str, Any]] = []
        places = {"pick": Slot("cell"), "buffer-1": Slot(), "buffer-2": Slot("another")}
        self.arm = SimulatedRobot(places, self.events.append, 7, HALF_S)
        self.cut_off, self.lose = False, 0
        self.stops = self.resets = 0

    def connect(self, timeout_s: float = 2.0) -> None:  # noqa: ARG002
        self._reach()

    def disconnect(self) -> None: ...

    @property
    def connected(self) -> bool:
        return not self.cut_off

    def describe(self) -> str:
        return "SIMULATED arm"

    def _reach(self) -> None:
        if self.cut_off:
            raise DeviceConnectionError("the robot is cut off")

    def places(self) -> frozenset[str]:
        return frozenset(self.arm.places)

    def read_state(self) -> RobotState:
        self._reach()
        state = self.arm.state()
        return RobotState(**{**state, "result": MoveResult(state["result"])})

    def send(self, job: MoveJob) -> None:
        self._reach()
        if self.lose:
            self.lose -= 1
            return
        refusal = self.arm.begin(job.token, job.source, job.target)
        if refusal:
            raise DeviceError(refusal)

    def stop(self) -> None:
        self._reach()
        self.stops += 1
        self.arm.stop()

    def reset(self) -> None:
        self._reach()
        self.resets += 1
        refusal = self.arm.reset()
        if refusal:
            raise DeviceError(refusal)

    def moved(self) -> list[str]:
        return [event["event"] for event in self.events]


class Bench:
    """Node, arm and time. ``at`` lets something happen at a time."""

    def __init__(self) -> None:
        self.host, self.robot, self.now = NodeStandIn(), RobotInProcess(), 0.0
        self.ends, self.cancelled = False, False
        self.holding: list[bool] = []
        self.carrier = Carrier(self.host, self.robot, self._wait, lambda: self.now)
        self._due: list[tuple[float, Callable[[], object]]] = []

    def at(self, time_s: float, happens: Callable[[], object]) -> None:
        self._due.append((time_s, happens))

    def _wait(self, seconds: float) -> bool:
        self.now += seconds
        for entry in [entry for entry in self._due if entry[0] <= self.now]:
            self._due.remove(entry)
            entry[1]()
        self.robot.arm.advance(self.now)
        assert self.now < 10 * MOVE_S, "the move never ends"
        return self.ends

    def carry(self, source: str = "pick", target: str = "buffer-1") -> MoveEnd:
        self.carrier.ordered()
        request = MoveRequest(
            source, target, lambda: self.cancelled, lambda state: self.holding.append(state.holding)
        )
        return self.carrier.carry(request)

    def lies(self, place: str) -> Any:
        return self.robot.arm.places[place].cell()

    def press(self, pressed: bool = True) -> None:
        self.robot.arm.faults.estop = pressed

    def line_is(self, state: LineStateId) -> None:
        self.host.line_is(state)

    def deactivate(self) -> None:
        self.host.active = False
        self.carrier.rest()


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_cell_is_carried_and_told_on_its_way(bench):
    assert bench.carry() == MoveEnd(MoveError.NONE, "", "buffer-1")
    assert (bench.lies("pick"), bench.lies("buffer-1")) == (None, "cell")
    assert bench.holding[0] is False and True in bench.holding


@pytest.mark.parametrize(
    ("faults", "move", "error", "place"),
    [
        ({}, ("buffer-1", "pick"), MoveError.EMPTY, ""),
        ({}, ("pick", "buffer-2"), MoveError.OCCUPIED, "pick"),
        ({}, ("pick", "roof"), MoveError.UNKNOWN_PLACE, "pick"),
        ({"drop": 1}, ("pick", "buffer-1"), MoveError.DROPPED, ""),
        ({"refuse": 1}, ("pick", "buffer-1"), MoveError.NOT_READY, "pick"),
        ({"stall": True}, ("pick", "buffer-1"), MoveError.STOPPED, "pick"),
        ({"restart": True}, ("pick", "buffer-1"), MoveError.UNKNOWN, ""),
    ],
)
def test_where_the_cell_is_follows_from_what_the_robot_says(bench, faults, move, error, place):
    for name, value in faults.items():
        setattr(bench.robot.arm.faults, name, value)
    end = bench.carry(*move)
    assert (end.error, end.place) == (error, place) and end.text


def test_an_order_that_was_lost_is_given_again_and_carried_out_once(bench):
    bench.robot.lose = 3
    assert bench.carry().error is MoveError.NONE
    assert bench.robot.moved().count("robot_job") == 1


def test_a_robot_that_is_cut_off_on_the_way_is_waited_for(bench):
    bench.at(0.5, lambda: setattr(bench.robot, "cut_off", True))
    bench.at(5.0, lambda: setattr(bench.robot, "cut_off", False))
    assert bench.carry() == MoveEnd(MoveError.NONE, "", "buffer-1")
    assert bench.now > 5.0 and bench.host.ok


def test_a_cancelled_move_is_stopped_and_brought_back(bench):
    bench.at(1.5, lambda: setattr(bench, "cancelled", True))
    assert bench.carry() == MoveEnd(MoveError.STOPPED, "the robot answered stopped", "pick")
    assert bench.lies("pick") == "cell"


def test_a_move_that_takes_too_long_is_stopped(bench):
    bench.robot.arm.half_s = MOVE_S
    assert bench.carry().error is MoveError.STOPPED
    assert bench.robot.stops == 1 and bench.lies("pick") == "cell"


def test_a_move_ends_with_the_node_and_says_that_nobody_has_seen_it(bench):
    bench.at(0.5, lambda: setattr(bench, "ends", True))
    assert bench.carry() == MoveEnd(MoveError.UNKNOWN, "the node ends", "")


# ---- what no person has allowed ----


def test_an_emergency_stop_on_the_way_stops_the_arm_for_good(bench):
    bench.at(1.5, bench.press)
    end = bench.carry()
    assert (end.error, end.place) == (MoveError.UNKNOWN, "") and "emergency stop" in end.text
    bench.press(False)
    assert "emergency stop" in bench.carrier.why_not_now()
    assert bench.carry().error is MoveError.NOT_READY
    bench.line_is(LineStateId.ABORTED)
    assert bench.carry().error is MoveError.NOT_READY
    assert bench.robot.resets == 0 and bench.robot.moved() == ["robot_job"]
    bench.line_is(LineStateId.EXECUTE)
    assert bench.carry() == MoveEnd(MoveError.NONE, "", "buffer-1"), "what it held was put back first"
    assert bench.robot.resets == 1


def test_a_press_between_two_looks_is_not_missed(bench):
    bench.carrier.read()
    bench.press()
    bench.robot.arm.look_at_the_button()
    bench.press(False)
    bench.robot.arm.reset()
    bench.carrier.read()
    assert bench.host.emergency.standing and not bench.host.ok


@pytest.mark.parametrize("halt", ["line", "silence", "deactivation"])
def test_a_robot_that_gets_ready_after_the_line_has_halted_is_not_sent(bench, halt):
    bench.robot.arm.begin(1, "buffer-2", "buffer-1")  # by hand, at the robot
    halts = {
        "line": lambda: bench.line_is(LineStateId.HELD),
        "silence": lambda: setattr(bench.host, "line_is_silent", True),
        "deactivation": bench.deactivate,
    }
    bench.at(0.5, halts[halt])
    end = bench.carry()
    assert end == MoveEnd(MoveError.WITHDRAWN, "the line halted before the move was done", "pick")
    assert bench.robot.moved().count("robot_job") == 1


def test_an_order_that_was_lost_is_not_given_again_when_the_line_has_halted(bench):
    bench.robot.lose = 1000
    bench.at(0.5, lambda: bench.line_is(LineStateId.HELD))
    end = bench.carry()
    assert (end.error, end.place) == (MoveError.UNKNOWN, ""), "it may still arrive"


def test_a_robot_that_failed_while_the_line_was_held_goes_home_when_it_goes_on(bench):
    bench.robot.arm.faults.stall = True
    bench.at(0.5, lambda: bench.line_is(LineStateId.HELD))
    bench.at(9.0, lambda: bench.line_is(LineStateId.EXECUTE))
    assert bench.carry() == MoveEnd(MoveError.STOPPED, "the robot answered stopped", "pick")
    assert bench.now > 9.0 and bench.robot.resets == 1


def test_a_deactivation_stops_the_arm_which_goes_home_when_the_line_goes_on(bench):
    bench.at(1.5, bench.deactivate)
    bench.at(9.0, lambda: setattr(bench.host, "active", True))
    assert bench.carry() == MoveEnd(MoveError.WITHDRAWN, "the line halted before the move was done", "pick")
    assert (bench.robot.stops, bench.robot.resets) == (1, 1)
    assert [event for event in bench.robot.events if event["t_s"] < 9.0 and event["event"] == "robot_home"] == []


@pytest.mark.parametrize("clings", [False, True])
def test_a_gripper_that_holds_something_is_emptied_once_before_a_job(bench, clings):
    bench.robot.arm.faults.restart = True
    assert bench.carry().error is MoveError.UNKNOWN
    bench.robot.arm.faults.cling = clings
    end = bench.carry()
    if clings:
        assert end.error is MoveError.NOT_READY and "lay it on pick" in end.text
    else:
        assert end == MoveEnd(MoveError.NONE, "", "buffer-1")
    assert bench.robot.resets == 1


def test_no_order_is_taken_while_the_line_stands_or_the_robot_is_lost(bench):
    assert bench.carrier.why_not_now() == ""
    bench.line_is(LineStateId.HELD)
    assert bench.carrier.why_not_now().startswith("the line is ")
    bench.host.line_is_silent = True
    assert bench.carrier.why_not_now() == "the line controller is not heard: start the line"
    bench.robot.cut_off = True
    bench.carrier.read()
    assert bench.carrier.why_not_now() == "the robot is cut off"
