"""Robot, tester and grader of the EV line, each on the simulated plant and over the real protocols."""

from __future__ import annotations

import math

import pytest
from action_msgs.msg import GoalStatus
from battery_sorting.action import MoveCell, RegroupCells
from battery_sorting.action import TestCell as CellTest
from battery_sorting.msg import CellMeasurement, LineState
from battery_sorting.srv import GradeCells
from harness import wait_for

pytestmark = pytest.mark.ros

TEST_S = 60.0


def place_of(bench, place: str) -> str | None:
    return bench.plant.state()["places"].get(place)


def put_a_cell_on_the_pick_place(bench) -> str:
    """Lets the plant's station release a cell, as the inspection would."""
    from battery_sorting.drivers.registry import find_driver
    from battery_sorting.drivers.station_plc.base import ActionResult, StationAction, StationCommand

    device = bench.plan.site.station_plc
    plc = find_driver("station_plc", device.driver).from_settings(device.settings)
    plc.connect()
    try:
        token = plc.read_status().done_token
        for action, argument in ((StationAction.LOAD, 0), (StationAction.RELEASE, 1)):
            token += 1
            plc.send(StationCommand(token, action, argument, 5000))

            def done(token: int = token) -> bool:
                plc.refresh_watchdog()
                status = plc.read_status()
                return status.done_token == token and status.done_result is ActionResult.DONE

            wait_for(done, f"{action.name} is done")
    finally:
        plc.disconnect()
    return wait_for(lambda: place_of(bench, "pick"), "a cell lies on the pick place")


def test_robot_carries_a_cell_and_says_where_it_is_whatever_happens(bench):
    peer = bench.set_up_ev()
    bench.bring_up("robot")
    serial = put_a_cell_on_the_pick_place(bench)

    def move(source: str, target: str) -> MoveCell.Result:
        return peer.act(MoveCell, "move_cell", battery_id="a", source=source, target=target)

    result = move("pick", "buffer-1")
    assert (result.success, result.place) == (True, "buffer-1")
    assert place_of(bench, "buffer-1") == serial

    result = move("pick", "buffer-2")
    assert (result.error_code, result.place) == (MoveCell.Result.EMPTY, "")
    result = move("buffer-1", "roof-1")
    assert (result.error_code, result.place) == (MoveCell.Result.UNKNOWN_PLACE, "buffer-1")

    put_a_cell_on_the_pick_place(bench)
    result = move("pick", "buffer-1")
    assert (result.error_code, result.place) == (MoveCell.Result.OCCUPIED, "pick")
    assert place_of(bench, "pick")

    bench.plant.set_faults(**{"robot.stall": True})
    result = move("buffer-1", "tray_1-1")
    assert (result.error_code, result.place) == (MoveCell.Result.STOPPED, "buffer-1")
    assert place_of(bench, "buffer-1") == serial

    bench.plant.set_faults(**{"robot.drop": 1})
    result = move("buffer-1", "tray_1-1")
    assert (result.error_code, result.place) == (MoveCell.Result.DROPPED, "")


def test_tester_measures_several_cells_at_once_and_leaves_each_safe(bench):
    peer = bench.set_up_ev(items=3)
    bench.bring_up("robot")
    bench.bring_up("tester")
    for channel in (1, 2):
        put_a_cell_on_the_pick_place(bench)
        target = f"channel-{channel}"
        assert peer.act(MoveCell, "move_cell", battery_id="a", source="pick", target=target).success
    goals = [peer.begin(CellTest, "test_cell", battery_id=f"cell {channel}", channel=channel) for channel in (1, 2)]
    results = [peer.result(goal, "test_cell", TEST_S) for goal in goals]
    electrical = {cell["index"]: cell["electrical"] for cell in bench.plant.record()["cells"]}
    for index, result in enumerate(results):
        assert result.success, result
        measured, true = result.measurement, electrical[index]
        assert measured.capacity_ah == pytest.approx(true["capacity_ah"], rel=0.01)
        # It was recorded when the cell was colder than after its test.
        assert measured.resistance_mohm == pytest.approx(true["resistance_mohm"], rel=0.06)
        assert measured.battery.present
        assert measured.instrument.startswith("SIMULATED")
    # Nothing was in this channel, and nothing is said about a cell.
    result = peer.act(CellTest, "test_cell", TEST_S, battery_id="cell 3", channel=3)
    assert (result.outcome, result.error_code) == ("bad_contact", CellTest.Result.BAD_CONTACT)
    assert math.isnan(result.measurement.capacity_ah)

    # issue 15, E16: goals that are refused say why, and what was cancelled is no success
    refused = (GoalStatus.STATUS_ABORTED, CellTest.Result.NOT_READY)
    assert peer.refusal(CellTest, "test_cell", channel=99) == (*refused, "there is no channel 99; there are 1 to 8")
    told = peer.refusal(CellTest, "test_cell", channel=1, programme="long")
    assert told[:2] == refused and "there is no programme 'long'; the recipe's is " in told[2]
    goal = peer.begin(CellTest, "test_cell", battery_id="cell 1", channel=1)
    assert peer.refusal(CellTest, "test_cell", channel=1) == (*refused, "channel 1 is busy with a test")
    peer.cancel(goal)
    result = peer.result(goal, "test_cell", TEST_S)
    assert (result.outcome, result.error_code) == ("cancelled", CellTest.Result.CANCELLED)
    assert (peer.status(goal), result.success) == (GoalStatus.STATUS_CANCELED, False)


# issue 15, E16
def test_a_cancelled_move_is_no_success_and_a_refused_one_says_why(bench):
    peer = bench.set_up_ev("plant.time_factor=1")
    bench.bring_up("robot")
    put_a_cell_on_the_pick_place(bench)
    there = {"battery_id": "a", "source": "pick", "target": "buffer-1"}
    goal = peer.begin(MoveCell, "move_cell", **there)
    wait_for(lambda: not place_of(bench, "pick"), "the robot has taken the cell")
    busy = (GoalStatus.STATUS_ABORTED, MoveCell.Result.REFUSED, "the robot carries another cell")
    assert peer.refusal(MoveCell, "move_cell", **there) == busy
    peer.cancel(goal)
    result = peer.result(goal, "move_cell")
    assert (peer.status(goal), result.success) == (GoalStatus.STATUS_CANCELED, False)
    assert (result.error_code, result.place) == (MoveCell.Result.STOPPED, "pick")

    goal = peer.begin(MoveCell, "move_cell", **there)
    assert (peer.result(goal, "move_cell").success, peer.status(goal)) == (True, GoalStatus.STATUS_SUCCEEDED)
    peer.repeat("line_state", LineState(state=LineState.HELD), 0.2)
    held = (GoalStatus.STATUS_ABORTED, MoveCell.Result.REFUSED)
    wait_for(
        lambda: (
            peer.refusal(MoveCell, "move_cell", **there)
            == (*held, "the line is Held: nothing is moved before it goes on")
        ),
        "it says that the line is held",
    )
    assert bench.change("robot", "deactivate")
    told = peer.refusal(MoveCell, "move_cell", **there)
    assert told == (*held, "the node is inactive: activate it")
    assert "move_cell: a goal was refused: the node is inactive: activate it" in bench.running["robot"].output


def measured(name: str, capacity_ah: float, resistance_mohm: float = 1.9, ocv_v: float = 3.29) -> CellMeasurement:
    return CellMeasurement(
        battery_id=name,
        capacity_ah=capacity_ah,
        resistance_mohm=resistance_mohm,
        ocv_v=ocv_v,
        capacity_uncertainty_ah=math.nan,
        resistance_uncertainty_mohm=math.nan,
        ocv_uncertainty_v=math.nan,
    )


def test_grader_grades_on_arrival_and_builds_packs(bench):
    peer = bench.set_up_ev(plant=False)
    bench.bring_up("grader")
    feedback = peer.listen(RegroupCells.Impl.FeedbackMessage, "regroup_cells/_action/feedback", "STREAM")
    cells = [measured(f"cell {index}", 18.0 + 0.01 * index) for index in range(17)]
    answer = peer.call(
        GradeCells, "grader/grade_cells", cells=[*cells, measured("milli", 18000.0), measured("dead", 3.0)]
    )
    assert answer.success
    grades = {grade.battery_id: (grade.status, grade.grade) for grade in answer.grades}
    assert grades["milli"] == ("invalid", "")
    assert grades["dead"] == ("ok", "D")
    assert {status for status, _ in grades.values()} <= {"ok", "invalid"}

    letters = [grade.grade for grade in answer.grades[:17]]
    result = peer.act(RegroupCells, "regroup_cells", cells=cells, grades=letters, across=True)
    assert result.success
    wait_for(lambda: feedback, "the progress of the search")
    assert feedback[-1].feedback.progress == 1.0
    packed = [name for name in result.group_of if name]
    assert len(packed) == 16 and len(set(packed)) == 2
    assert sum(bool(reason) for reason in result.leftover) == 1
    assert 0 <= result.objective_lower_bound <= result.objective

    result = peer.act(RegroupCells, "regroup_cells", method="dbscan-gmm", cells=cells, grades=letters)
    assert result.success and math.isnan(result.objective)
    result = peer.act(RegroupCells, "regroup_cells", layout="8x", cells=cells, grades=letters)
    assert (result.success, result.error_code) == (False, RegroupCells.Result.INVALID)
    assert "8s" in result.error_msg
