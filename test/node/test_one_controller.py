"""A line has one controller, and each device one node that talks to it, whoever starts them."""

# issue 14, point 3

from __future__ import annotations

import signal

import pytest
from battery_sorting.msg import BeltState, LineState
from battery_sorting.srv import SetBelt
from harness import wait_for
from peer import Peer

from battery_sorting.core.ownership import EXIT_CODE
from battery_sorting.line.rivals import NEWCOMER_S

pytestmark = pytest.mark.ros


@pytest.mark.parametrize("name", ["line_controller", "conveyor", "archivist"])
def test_second_process_of_a_node_leaves_and_names_the_first(bench, name):
    bench.set_up(plant=True)
    first = bench.start(name)
    if name == "line_controller":
        states = bench.peer.listen(LineState, "line_state")
        wait_for(lambda: states, "the first is there")
    else:
        bench.wait_for_heartbeat(lambda beat: beat.node == name, "the first is there")
    second = bench.start(name)
    assert second.wait() == EXIT_CODE
    assert f"belongs to process {first.pid} ({name}, run folder" in second.output
    assert "Traceback" not in second.output
    assert first.exit_code is None


def test_successor_of_a_killed_controller_takes_over_at_once_under_the_same_run_id(bench):
    peer = bench.set_up()
    states = peer.listen(LineState, "line_state")
    first = bench.start("line_controller")
    wait_for(lambda: states, "state of the line")
    first.signal(signal.SIGKILL)
    first.wait()
    second = bench.start("line_controller")
    before = states[-1].controller
    wait_for(lambda: states[-1].controller != before, "its successor speaks", 5.0)
    assert states[-1].run_id == states[0].run_id == bench.plan.nodes[-1].parameters["run_id"]
    assert "waiting up to" not in second.output
    assert not any("second_controller" in alarm for state in states for alarm in state.alarms)


def test_controller_that_comes_to_a_line_with_one_leaves(bench):
    """On another host no claim keeps it out: it hears the other."""
    bench.set_up()
    speak_for_another_controller(bench.join(bench.plan, "line_controller"))
    second = bench.start("line_controller")
    assert second.wait() == EXIT_CODE
    assert "another line controller (elsewhere, run other run) already runs this line" in second.output


def test_controller_does_not_leave_a_line_to_a_stranger_who_only_repeats_what_one_has_said(bench):
    """As a bag does that is played back."""
    peer = bench.set_up()
    speak_for_another_controller(peer)
    states = peer.listen(LineState, "line_state")
    controller = bench.start("line_controller")

    def own() -> list[LineState]:
        return [state for state in states if state.controller != "elsewhere"]

    wait_for(lambda: own() and any("second_controller" in text for text in own()[-1].alarms), "it says so")
    assert controller.exit_code is None


def speak_for_another_controller(peer: Peer) -> None:
    peer._tell("advertise", LineState, "line_state", "STREAM")
    peer.repeat("line_state", LineState(state=LineState.EXECUTE, controller="elsewhere", run_id="other run"), 0.2)


def test_controller_that_was_there_before_holds_until_the_other_has_gone(bench):
    peer = bench.set_up()
    states = peer.listen(LineState, "line_state")
    first = bench.start("line_controller")
    wait_for(
        lambda: len([state for state in states if state.controller]) > (NEWCOMER_S + 1) / 0.2, "it is no newcomer"
    )
    peer.advertise(LineState, "line_state")
    peer.repeat("line_state", LineState(state=LineState.EXECUTE, controller="elsewhere"), 0.2)

    def says(alarm: str) -> bool:
        own = [state for state in states if state.controller != "elsewhere"]
        return any(alarm in text for text in own[-1].alarms)

    wait_for(lambda: says("second_controller: another line controller (elsewhere, run unknown)"), "it says so")
    peer.repeat("line_state", LineState(), 0.0)
    wait_for(lambda: not says("second_controller"), "it is alone again")
    assert first.exit_code is None


def test_conveyor_does_not_take_the_controller_of_another_start_for_its_own(bench):
    peer = bench.set_up(plant=True)
    belt = peer.listen(BeltState, "belt_state")
    conveyor = bench.bring_up("conveyor")
    assert peer.call(SetBelt, "conveyor/set_belt", run=True, speed_mps=0.5).success
    wait_for(lambda: belt and belt[-1].running, "the belt runs")
    peer.repeat("line_state", LineState(state=LineState.EXECUTE, run_id="another start"), 0.2)
    wait_for(lambda: not belt[-1].running, "the belt stands", 5.0)
    assert "the line controller is silent: the belt is stopped" in conveyor.output
