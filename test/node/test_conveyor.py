"""The conveyor on the simulated plant."""

from __future__ import annotations

import time

import pytest
from battery_sorting.msg import BatteryDetection, BeltState, ExitDetection, LineState
from battery_sorting.srv import SetBelt
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from harness import wait_for
from std_srvs.srv import Trigger

pytestmark = pytest.mark.ros


def test_conveyor_runs_the_belt_and_tells_what_passes(bench):
    peer = bench.set_up("belt.exit_offset_mm=2100", plant=True)
    states = peer.listen(BeltState, "belt_state")
    detections = peer.listen(BatteryDetection, "battery_detection", "BATTERY_EVENT")
    exits = peer.listen(ExitDetection, "exit_detection", "BATTERY_EVENT")
    bench.bring_up("conveyor")
    wait_for(lambda: states and states[-1].connected, "state of the belt")
    assert not states[-1].running

    for speed in (0.01, 5.0):
        refused = peer.call(SetBelt, "conveyor/set_belt", run=True, speed_mps=speed)
        assert not refused.success and f"{speed:g} m/s is outside the belt's 0.1..1.2 m/s" in refused.message
    assert not bench.plant.state()["running"]

    assert peer.call(SetBelt, "conveyor/set_belt", run=True, speed_mps=1.0).success
    wait_for(lambda: len(exits) >= 3, "batteries at the belt's end")
    begin = states[-1].header.stamp
    count = len(states)
    wait_for(lambda: len(states) >= count + 100, "100 states")
    end = states[count + 99].header.stamp
    rate = 100 / (end.sec - begin.sec + (end.nanosec - begin.nanosec) * 1e-9)
    assert 35 < rate < 55  # 50 Hz, on a machine that may be busy

    told = [detection.trigger_count for detection in detections]
    assert told == list(range(1, len(told) + 1))
    boot_id = bench.plant.summary()["boot_id"]
    assert all(detection.battery_id == f"{boot_id:08x}-{detection.trigger_count:06d}" for detection in detections)
    assert abs(states[-1].slip - bench.plant.state()["slip"]) < 0.005
    assert states[-1].speed_mps == pytest.approx(1.0, abs=0.03)

    assert peer.call(SetBelt, "conveyor/set_belt", run=False).success
    wait_for(lambda: abs(states[-1].speed_mps) < 0.001 and not states[-1].running, "belt stands")


def test_belt_stops_when_the_line_controller_falls_silent(bench):
    peer = bench.set_up(plant=True)
    bench.bring_up("conveyor")
    assert peer.call(SetBelt, "conveyor/set_belt", run=True).success
    wait_for(lambda: bench.plant.state()["running"], "belt runs")
    time.sleep(1.5)  # longer than the silence that is allowed
    assert bench.plant.state()["running"]
    peer.repeat("line_state", LineState(), 0)
    wait_for(lambda: not bench.plant.state()["running"], "belt stands", 3.0)


def test_conveyor_says_that_the_plc_is_cut_off_and_comes_back(bench):
    peer = bench.set_up(plant=True)
    states = peer.listen(BeltState, "belt_state")
    diagnostics = peer.listen(DiagnosticArray, "/diagnostics")
    node = bench.bring_up("conveyor")
    wait_for(lambda: states and states[-1].connected, "state of the belt")
    bench.plant.set_faults(**{"plc.disconnect": True})
    wait_for(lambda: not states[-1].connected, "loss is told")
    assert "PLC at 127.0.0.1" in states[-1].error
    beat = bench.wait_for_heartbeat(lambda beat: not beat.ok, "heartbeat tells it")
    assert "PLC at 127.0.0.1" in beat.detail

    def errors():
        return [s for message in diagnostics for s in message.status if s.level == DiagnosticStatus.ERROR]

    wait_for(errors, "diagnostics tell it")
    assert errors()[0].name == "belt/conveyor" and "PLC at 127.0.0.1" in errors()[0].message
    tries = node.output.count("can't be reached")
    time.sleep(1.6)
    assert node.output.count("can't be reached") - tries <= 4, "it tries again with pauses"
    bench.plant.set_faults(**{"plc.disconnect": False})
    wait_for(lambda: states[-1].connected, "connected again")
    bench.wait_for_heartbeat(lambda beat: beat.ok, "all is well")
    assert node.exit_code is None


# issue 14, point 4
def test_an_emergency_stop_of_a_moment_is_not_acknowledged_by_the_way_before_the_line_was_aborted(bench):
    peer = bench.set_up(plant=True)
    states = peer.listen(BeltState, "belt_state")
    bench.bring_up("conveyor")
    bench.plant.set_faults(estop=True)
    pressed_s = bench.plant.state()["t_s"]
    wait_for(lambda: bench.plant.state()["t_s"] > pressed_s, "the PLC has looked once")
    bench.plant.set_faults(estop=False)
    wait_for(lambda: states and states[-1].emergency_stop, "the press is told")
    refused = peer.call(Trigger, "conveyor/reset")
    assert not refused.success and "clear the line" in refused.message
    count = len(states)
    wait_for(lambda: len(states) > count + 5, "states of the belt")
    assert states[-1].emergency_stop
    peer.repeat("line_state", LineState(state=LineState.CLEARING), 0.05)
    wait_for(lambda: peer.call(Trigger, "conveyor/reset").success, "it is reset when a person clears the line")
    wait_for(lambda: not states[-1].emergency_stop, "it is over")
