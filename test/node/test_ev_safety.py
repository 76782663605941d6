"""Nothing stays live and nothing moves that no person has allowed: the EV line's nodes on the simulated plant."""

from __future__ import annotations

import json
import random
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from battery_sorting.action import InspectCell, MoveCell
from battery_sorting.action import TestCell as CellTest
from battery_sorting.msg import Heartbeat, LineState, StationState
from harness import ROOT, Process, start_spec, wait_for
from test_ev_nodes import place_of, put_a_cell_on_the_pick_place

from battery_sorting.drivers.registry import find_driver
from battery_sorting.drivers.robot.base import MoveJob
from battery_sorting.ledger.store import Ledger
from battery_sorting.line.paths import ledger_location

pytestmark = pytest.mark.ros

RUNS = 12
SEED = 14
TEST_S = 60.0


def events(bench, *kinds: str, since: int = 0) -> list[dict[str, Any]]:
    """The plant's record so far: events of these kinds, from the line ``since`` on."""
    whole = (bench.plan.run_dir / "plant.jsonl").read_text().rpartition("\n")[0]
    return [event for event in map(json.loads, whole.splitlines()[since:]) if event["event"] in kinds]


def recorded(bench) -> int:
    return (bench.plan.run_dir / "plant.jsonl").read_text().count("\n")


def line_is(bench, state: int) -> None:
    bench.peer.repeat("line_state", LineState(state=state), 0.05)


def listen_anew(bench) -> None:
    """A peer that never knew the node that died, so that it does not ask it."""
    bench.peer = bench.join(bench.plan)
    bench.heartbeats = bench.peer.listen(Heartbeat, "heartbeat")


def with_parameters(bench, name: str, **parameters: Any) -> None:
    nodes = [
        replace(spec, parameters={**spec.parameters, **parameters}) if spec.name == name else spec
        for spec in bench.plan.nodes
    ]
    bench.plan = replace(bench.plan, nodes=tuple(nodes))


def cells_in_channels(bench, *channels: int) -> None:
    bench.bring_up("robot")
    for channel in channels:
        put_a_cell_on_the_pick_place(bench)
        goal = {"battery_id": "a", "source": "pick", "target": f"channel-{channel}"}
        assert bench.peer.act(MoveCell, "move_cell", **goal).success


def beats_go_by(bench, count: int = 5) -> list[Any]:
    """So many heartbeats from now on."""
    begin = len(bench.heartbeats)
    wait_for(lambda: len(bench.heartbeats) >= begin + count, "heartbeats")
    return bench.heartbeats[begin:]


# ---- signals (issue 14, point 2) ----


def begin_tests(bench) -> int:
    """Both channels run; returns where the plant's record stood before."""
    begin = recorded(bench)
    for channel in (1, 2):
        bench.peer.begin(CellTest, "test_cell", battery_id=f"cell {channel}", channel=channel)
    wait_for(lambda: len({e["channel"] for e in events(bench, "tester_start", since=begin)}) == 2, "both tests run")
    return begin


def every_channel_is_off_by_command(bench, begin: int) -> str:
    """What is wrong; empty if every contact that was closed was opened by a command, with no current before."""
    return every_channel_is_off_by_command_of(bench, begin, 1, 2)


def every_channel_is_off_by_command_of(bench, begin: int, *channels: int) -> str:
    for channel in channels:
        told = events(
            bench, "tester_start", "tester_stop", "tester_open", "tester_close", "tester_fault", since=begin
        )
        mine = [event for event in told if event["channel"] == channel]
        if not mine or mine[-1]["event"] != "tester_open" or mine[-1]["by"] != "command":
            return f"channel {channel}: {mine[-3:]}"
        if any(event["event"] == "tester_fault" for event in mine):
            return f"channel {channel}: {mine}"
    return ""


def test_whenever_a_signal_comes_every_channel_is_switched_off_by_command(bench):
    bench.set_up_ev("plant.test_time_factor=500", items=3)
    with_parameters(bench, "tester", feedback_s=0.0)
    cells_in_channels(bench, 1, 2)
    chance = random.Random(SEED)
    wrong = []
    for run in range(RUNS):
        listen_anew(bench)
        tester = bench.bring_up("tester")
        begin = begin_tests(bench)
        time.sleep(chance.uniform(0.0, 0.3))  # the moment is what is tried
        number = chance.choice((signal.SIGINT, signal.SIGTERM))
        tester.signal(number)
        if chance.random() < 0.5:
            time.sleep(chance.uniform(0.0, 0.02))
            tester.signal(number)  # who is impatient presses Ctrl-C twice
        tester.wait()
        problem = every_channel_is_off_by_command(bench, begin)
        if problem or tester.exit_code != 0 or "Traceback" in tester.output:
            wrong.append(
                f"run {run}, {number.name}: exit code {tester.exit_code}, {problem}\n{tester.output[-1500:]}"
            )
            bench.plant.set_faults(**{"tester.open_contact": [1, 2]})
            bench.plant.set_faults(**{"tester.open_contact": []})
        tester.log.write_text("")
    assert not wrong, f"{len(wrong)} of {RUNS}:\n" + "\n".join(wrong)


def test_a_full_disk_for_logs_keeps_no_channel_live(bench):
    bench.set_up_ev("plant.test_time_factor=500", items=2)
    cells_in_channels(bench, 1, 2)
    spec = next(spec for spec in bench.plan.nodes if spec.name == "tester")

    def start(name: str) -> Process:
        assert name == "tester"
        tester = start_spec(replace_log(bench.plan), spec)
        bench._stack.enter_context(tester)
        return tester

    def replace_log(plan):
        log = plan.run_dir / "log" / "tester.log"
        log.unlink(missing_ok=True)
        log.symlink_to(Path("/dev/full"))
        return plan

    bench.start = start
    tester = bench.bring_up("tester")
    begin = begin_tests(bench)
    bench.plant.set_faults(**{"cycler.disconnect": True})  # so that there is much to be said
    bench.wait_for_heartbeat(lambda beat: beat.node == "tester" and not beat.ok, "the cycler is missed")
    bench.plant.set_faults(**{"cycler.disconnect": False})
    bench.wait_for_heartbeat(lambda beat: beat.node == "tester" and beat.ok, "the cycler is back")
    tester.signal(signal.SIGINT)
    assert tester.wait() == 0
    assert every_channel_is_off_by_command(bench, begin) == ""


# ---- emergency stops (issue 14, point 4) ----


def test_after_an_emergency_stop_of_the_robot_nothing_moves_until_the_line_was_aborted_and_started(bench):
    peer = bench.set_up_ev("plant.move_s=20")
    bench.bring_up("robot")
    put_a_cell_on_the_pick_place(bench)
    move = {"battery_id": "a", "source": "pick", "target": "buffer-1"}
    goal = peer.begin(MoveCell, "move_cell", **move)
    wait_for(lambda: events(bench, "robot_job"), "the robot is on its way")
    begin = recorded(bench)

    bench.plant.set_faults(**{"robot.estop": True})
    bench.wait_for_heartbeat(lambda beat: beat.emergency_stop and not beat.ok, "the line hears of it")
    result = peer.result(goal, "move_cell")
    assert (result.success, result.error_code, result.place) == (False, MoveCell.Result.UNKNOWN, "")
    assert "emergency stop" in result.error_msg
    assert peer.act(MoveCell, "move_cell", **move) is None, "no order is taken"

    bench.plant.set_faults(**{"robot.estop": False})
    beats = beats_go_by(bench)
    assert all(beat.emergency_stop and not beat.ok for beat in beats), "it stands until the line is aborted"
    line_is(bench, LineState.ABORTED)
    bench.wait_for_heartbeat(lambda beat: beat.ok and not beat.emergency_stop, "the line is aborted")
    for state in (LineState.CLEARING, LineState.STOPPED, LineState.RESETTING, LineState.IDLE):
        line_is(bench, state)
        beats_go_by(bench, 3)
        assert peer.act(MoveCell, "move_cell", **move) is None, state
    assert events(bench, "robot_job", "robot_home", "placed", since=begin) == [], "something has moved"

    line_is(bench, LineState.EXECUTE)
    result = wait_for(lambda: peer.act(MoveCell, "move_cell", **move), "orders are taken again")
    assert (result.success, result.place) == (True, "buffer-1")
    assert place_of(bench, "buffer-1")


def test_an_emergency_stop_of_a_few_milliseconds_is_not_missed(bench):
    bench.set_up_ev()
    bench.bring_up("robot")
    bench.plant.set_faults(**{"robot.estop": True})
    bench.plant.set_faults(**{"robot.estop": False})
    bench.wait_for_heartbeat(lambda beat: beat.emergency_stop, "the line hears of it")
    assert all(beat.emergency_stop for beat in beats_go_by(bench)), "and goes on hearing of it"


def test_an_emergency_stop_while_no_node_watched_the_robot_aborts_the_line(bench):
    # Pressed and released between the node's death and its successor's first look.
    bench.set_up_ev()
    bench.bring_up("robot")
    put_a_cell_on_the_pick_place(bench)
    bench.running["robot"].signal(9)
    bench.running["robot"].wait()
    bench.plant.set_faults(**{"robot.estop": True})
    bench.plant.set_faults(**{"robot.estop": False})
    begin = recorded(bench)
    bench.peer.repeat("line_state", LineState(), 0)
    listen_anew(bench)
    bench.start("robot")
    bench.peer.advertise(LineState, "line_state")
    line_is(bench, LineState.EXECUTE)
    for transition in ("configure", "activate"):
        assert bench.change("robot", transition)
    bench.wait_for_heartbeat(lambda beat: beat.emergency_stop and not beat.ok, "the line hears of it")
    move = {"battery_id": "a", "source": "pick", "target": "buffer-1"}
    assert bench.peer.act(MoveCell, "move_cell", **move) is None, "no order is taken"
    assert events(bench, "robot_job", "robot_home", since=begin) == [], "something has moved"
    line_is(bench, LineState.ABORTED)
    bench.wait_for_heartbeat(lambda beat: beat.ok and not beat.emergency_stop, "the line is aborted")
    line_is(bench, LineState.EXECUTE)
    result = wait_for(lambda: bench.peer.act(MoveCell, "move_cell", **move), "orders are taken again")
    assert (result.success, result.place) == (True, "buffer-1")


def test_a_pressed_emergency_stop_of_the_tester_says_nothing_about_its_cells(bench):
    peer = bench.set_up_ev("plant.test_time_factor=2000", items=2)
    cells_in_channels(bench, 1)
    bench.bring_up("tester")
    goal = peer.begin(CellTest, "test_cell", battery_id="cell 1", channel=1)
    wait_for(lambda: events(bench, "tester_start"), "the test runs")
    bench.plant.set_faults(**{"tester.estop": True})

    def of_tester(fits: Any) -> Any:
        return lambda beat: beat.node == "tester" and fits(beat)

    bench.wait_for_heartbeat(of_tester(lambda beat: beat.emergency_stop and not beat.ok), "the line hears of it")
    result = peer.result(goal, "test_cell", TEST_S)
    assert (result.error_code, result.code) == (CellTest.Result.EMERGENCY_STOP, "emergency_stop")
    line_is(bench, LineState.CLEARING)
    assert all(beat.emergency_stop for beat in beats_go_by(bench, 10) if beat.node == "tester"), (
        "it is still pressed"
    )
    line_is(bench, LineState.ABORTED)
    beats_go_by(bench, 5)  # by then the tester has heard it
    bench.plant.set_faults(**{"tester.estop": False})
    assert all(beat.emergency_stop for beat in beats_go_by(bench, 10) if beat.node == "tester"), (
        "nobody has cleared"
    )
    line_is(bench, LineState.CLEARING)
    bench.wait_for_heartbeat(of_tester(lambda beat: not beat.emergency_stop and beat.ok), "the line is cleared")
    assert peer.act(CellTest, "test_cell", battery_id="cell 1", channel=1) is None, "nobody has started the line"
    line_is(bench, LineState.EXECUTE)

    def again() -> Any:
        return peer.act(CellTest, "test_cell", TEST_S, battery_id="cell 1", channel=1)

    assert wait_for(again, "the cell is tested again", TEST_S).success


@pytest.mark.skipif(not (ROOT / "models" / "lug").is_dir(), reason="the models of the station are not here")
def test_after_an_emergency_stop_of_the_station_it_goes_home_only_when_a_person_has_started_the_line(bench):
    peer = bench.set_up_ev("plant.time_factor=1", items=2)
    with Ledger.open(ledger_location(bench.plan.site, bench.plan.run_dir)) as ledger:
        ledger.begin_shift(bench.plan.site.line, bench.plan.site.name, time.time())
    states = peer.listen(StationState, "station_state", "STATE")
    bench.bring_up("inspection")
    wait_for(lambda: states and states[-1].connected, "the PLC has been heard")
    goal = peer.begin(InspectCell, "inspect_cell")
    wait_for(lambda: states[-1].step in {"lug_verdict", "flip"}, "the cell is being inspected", TEST_S)
    bench.plant.set_faults(estop=True)
    bench.wait_for_heartbeat(lambda beat: beat.emergency_stop, "the line hears of it")
    wait_for(lambda: states[-1].emergency_stop, "which its state says, too")
    begin, flipper = recorded(bench), states[-1].flipper
    line_is(bench, LineState.CLEARING)
    assert all(beat.emergency_stop for beat in beats_go_by(bench)), "it is still pressed"
    line_is(bench, LineState.ABORTED)
    bench.plant.set_faults(estop=False)
    assert all(beat.emergency_stop for beat in beats_go_by(bench)), "nobody has cleared the line"
    assert states[-1].emergency_stop and states[-1].flipper == flipper
    line_is(bench, LineState.CLEARING)
    bench.wait_for_heartbeat(lambda beat: not beat.emergency_stop, "the line is cleared")
    wait_for(lambda: not states[-1].emergency_stop, "which its state says, too")
    line_is(bench, LineState.STOPPED)
    beats_go_by(bench, 8)
    assert events(bench, "outlet", since=begin) == [], "the cell has been moved on"
    line_is(bench, LineState.EXECUTE)
    result = peer.result(goal, "inspect_cell", TEST_S)
    assert result.outlet == "quarantine" and "emergency_stop" in result.faults


# ---- what a person has halted or deactivated ----


@pytest.fixture
def arm(bench):
    """A robot with a cell on the pick place, whose moves take 2 s; and a teach pendant, which needs no line."""
    bench.set_up_ev("plant.move_s=20")
    bench.bring_up("robot")
    put_a_cell_on_the_pick_place(bench)
    device = bench.plan.site.measuring.robot
    pendant = find_driver("robot", device.driver).from_settings(device.settings)
    pendant.connect()
    yield pendant
    pendant.disconnect()


def test_a_robot_that_gets_ready_after_a_persons_hold_is_not_sent(bench, arm):
    move = {"battery_id": "a", "source": "buffer-1", "target": "buffer-2"}
    arm.send(MoveJob(arm.read_state().done_token + 1, "pick", "buffer-1"))
    goal = bench.peer.begin(MoveCell, "move_cell", **move)
    beats_go_by(bench, 3)  # it was taken, and waits for the robot
    line_is(bench, LineState.HELD)
    result = bench.peer.result(goal, "move_cell")
    assert (result.success, result.error_code, result.place) == (False, MoveCell.Result.WITHDRAWN, "buffer-1")
    wait_for(lambda: place_of(bench, "buffer-1"), "the robot is ready")
    beats_go_by(bench)
    assert bench.peer.act(MoveCell, "move_cell", **move) is None, "no order is taken"
    assert len(events(bench, "robot_job")) == 1, "it was sent after the hold"
    line_is(bench, LineState.EXECUTE)
    assert wait_for(lambda: bench.peer.act(MoveCell, "move_cell", **move), "orders are taken again").success


def test_a_robot_in_protective_stop_is_not_sent_home_while_a_person_holds_the_line(bench, arm):
    bench.plant.set_faults(**{"robot.stall": True})
    goal = bench.peer.begin(MoveCell, "move_cell", battery_id="a", source="pick", target="buffer-1")
    wait_for(lambda: events(bench, "robot_job"), "the robot is on its way")
    line_is(bench, LineState.HELD)
    wait_for(lambda: arm.read_state().fault, "the arm has stopped")
    beats_go_by(bench)
    assert events(bench, "robot_home") == []
    line_is(bench, LineState.EXECUTE)
    result = bench.peer.result(goal, "move_cell")
    assert (result.error_code, result.place) == (MoveCell.Result.STOPPED, "pick")


def test_a_robot_whose_node_is_deactivated_stands_still_until_the_line_goes_on(bench, arm):
    told = bench.peer.listen(MoveCell.Impl.FeedbackMessage, "move_cell/_action/feedback", "STREAM")
    goal = bench.peer.begin(MoveCell, "move_cell", battery_id="a", source="pick", target="buffer-1")
    wait_for(lambda: events(bench, "robot_job") and told, "the robot is on its way")
    begin = recorded(bench)
    assert bench.change("robot", "deactivate")
    wait_for(lambda: arm.read_state().fault == "stopped", "the arm has stopped")
    line_is(bench, LineState.HELD)
    count = len(told)
    beats_go_by(bench)
    assert len(told) == count, "nothing is published while the node is inactive"  # issue 16, 6
    assert bench.change("robot", "activate")
    beats_go_by(bench)
    assert events(bench, "robot_job", "robot_home", "placed", since=begin) == [], "something has moved"
    line_is(bench, LineState.EXECUTE)
    result = bench.peer.result(goal, "move_cell")
    assert (result.error_code, result.place) == (MoveCell.Result.WITHDRAWN, "pick")
    assert len(events(bench, "robot_home", since=begin)) == 1


# issue 14, point 6
def test_a_move_that_was_ordered_before_a_deactivation_is_not_carried_out_after_the_activation(bench):
    peer = bench.set_up_ev("measuring.robot.settings.timeout_s=3")
    bench.bring_up("robot")
    put_a_cell_on_the_pick_place(bench)
    bench.plant.set_faults(**{"robot.mute": True})
    beats_go_by(bench, 2)  # by then the robot's thread waits for an answer, and sees nothing else
    move = {"battery_id": "a", "source": "pick", "target": "buffer-1"}
    goal = peer.begin(MoveCell, "move_cell", **move)
    assert peer.act(MoveCell, "move_cell", **move) is None, "since the first was taken"
    assert bench.change("robot", "deactivate")
    assert bench.change("robot", "activate")
    bench.plant.set_faults(**{"robot.mute": False})
    result = peer.result(goal, "move_cell")
    assert (result.error_code, result.place) == (MoveCell.Result.WITHDRAWN, "pick"), result
    assert events(bench, "robot_job") == []


# issue 14, point 5
def test_a_robot_that_is_ready_with_a_cell_in_its_gripper_puts_it_back_when_the_line_goes_on(bench):
    peer = bench.set_up_ev()
    bench.bring_up("robot")
    serial = put_a_cell_on_the_pick_place(bench)
    move = {"battery_id": "a", "source": "pick", "target": "buffer-1"}
    bench.plant.set_faults(**{"robot.restart": True, "robot.cling": True})
    result = peer.act(MoveCell, "move_cell", **move)
    assert (result.error_code, result.place) == (MoveCell.Result.UNKNOWN, ""), result
    line_is(bench, LineState.HELD)
    beats_go_by(bench)
    assert events(bench, "robot_home") == [], "nothing moves while a person holds the line"
    line_is(bench, LineState.EXECUTE)

    def again() -> Any:
        return wait_for(lambda: peer.act(MoveCell, "move_cell", **move), "orders are taken again")

    result = again()
    assert (result.error_code, result.place) == (MoveCell.Result.NOT_READY, "pick"), result
    assert "lay it on pick" in result.error_msg
    assert len(events(bench, "robot_home")) == 1, "it was asked once to put the cell back"
    bench.plant.set_faults(**{"robot.cling": False})
    result = again()
    assert (result.success, result.place) == (True, "buffer-1"), result
    assert place_of(bench, "buffer-1") == serial


def test_a_tester_whose_node_is_deactivated_switches_every_channel_off(bench):
    bench.set_up_ev("plant.test_time_factor=500", items=3)
    cells_in_channels(bench, 1, 2)
    bench.bring_up("tester")
    begin = recorded(bench)
    goals = [
        bench.peer.begin(CellTest, "test_cell", battery_id=f"cell {channel}", channel=channel) for channel in (1, 2)
    ]
    wait_for(lambda: len(events(bench, "tester_start", since=begin)) == 2, "both tests run")
    assert bench.change("tester", "deactivate")
    results = [bench.peer.result(goal, "test_cell") for goal in goals]
    assert [result.error_code for result in results] == 2 * [CellTest.Result.CANCELLED]
    assert every_channel_is_off_by_command(bench, begin) == ""
    assert bench.change("tester", "activate")
    assert bench.peer.begin(CellTest, "test_cell", battery_id="cell 1", channel=1) is not None
    wait_for(lambda: len(events(bench, "tester_start", since=begin)) == 3, "cells are tested again")


# ---- a channel that could not be shown to be off (issue 14) ----


def test_a_channel_that_may_be_live_is_told_before_its_result_and_switched_off_when_the_tester_is_back(bench):
    bench.set_up_ev("plant.test_time_factor=500", items=2)
    cells_in_channels(bench, 1)
    with_parameters(bench, "tester", safe_s=1.0)
    bench.bring_up("tester")
    begin = recorded(bench)
    peer = bench.peer
    goal = peer.begin(CellTest, "test_cell", battery_id="cell 1", channel=1)
    wait_for(lambda: events(bench, "tester_start", since=begin), "the test runs")
    bench.plant.set_faults(**{"cycler.disconnect": True})
    peer.cancel(goal)
    result = peer.result(goal, "test_cell", TEST_S)
    told = [beat for beat in list(bench.heartbeats) if beat.node == "tester"]
    assert not told[-1].ok and told[-1].detail.startswith("channel 1 may be live: "), "before the result"
    assert (result.success, result.error_code) == (False, CellTest.Result.NOT_SAFE)
    assert events(bench, "tester_open", since=begin)[1:] == [], "the current is on: nobody has opened the contacts"
    assert peer.act(CellTest, "test_cell", battery_id="cell 1", channel=1) is None, "no test is begun there"

    bench.plant.set_faults(**{"cycler.disconnect": False})
    bench.wait_for_heartbeat(lambda beat: beat.node == "tester" and beat.ok, "the tester is well again")
    assert every_channel_is_off_by_command_of(bench, begin, 1) == ""
    wait_for(lambda: peer.act(CellTest, "test_cell", TEST_S, battery_id="cell 1", channel=1), "it is used", TEST_S)


# ---- answers that nobody asked for (issue 14, point 5) ----


@pytest.mark.parametrize(
    "faults",
    [{"robot.twice": 30}, {"robot.late": 1, "robot.late_s": 1.5}, {"robot.other": 1}, {"robot.disconnect": True}],
    ids=lambda faults: next(iter(faults)).partition(".")[2],
)
def test_a_cell_that_is_being_carried_is_never_reported_lost(bench, faults):
    peer = bench.set_up_ev("plant.move_s=20", "measuring.robot.settings.timeout_s=0.7")
    bench.bring_up("robot")
    put_a_cell_on_the_pick_place(bench)
    goal = peer.begin(MoveCell, "move_cell", battery_id="a", source="pick", target="buffer-1")
    wait_for(lambda: events(bench, "robot_job"), "the robot is on its way")
    bench.plant.set_faults(**faults)
    if "robot.disconnect" in faults:
        bench.wait_for_heartbeat(lambda beat: not beat.ok, "the robot is missed")
        bench.plant.set_faults(**{"robot.disconnect": False})
    result = peer.result(goal, "move_cell")
    assert (result.success, result.place) == (True, "buffer-1"), result
    assert len(events(bench, "robot_job")) == 1, "it was carried once"
    bench.plant.set_faults(**{"robot.twice": 0})
    result = peer.act(MoveCell, "move_cell", battery_id="a", source="buffer-1", target="buffer-2")
    assert (result.success, result.place) == (True, "buffer-2"), result


@pytest.mark.parametrize("lost", ["robot.lose", "robot.hush"])
def test_an_order_that_is_lost_on_its_way_or_whose_answer_is_lost_is_carried_out_once(bench, lost):
    peer = bench.set_up_ev("measuring.robot.settings.timeout_s=0.7")
    bench.bring_up("robot")
    put_a_cell_on_the_pick_place(bench)
    bench.plant.set_faults(**{lost: 1})
    result = peer.act(MoveCell, "move_cell", battery_id="a", source="pick", target="buffer-1")
    assert (result.success, result.place) == (True, "buffer-1"), result
    assert len(events(bench, "robot_job")) == 1
