"""Under ``use_sim_time`` and without a ``/clock``, nodes still say how they are and see that a line is silent."""

# issue 14, point 14

from __future__ import annotations

from dataclasses import replace

import pytest
from battery_sorting.msg import BeltState, LineState
from battery_sorting.srv import SetBelt
from harness import wait_for

pytestmark = pytest.mark.ros


def under_sim_time(bench) -> None:
    nodes = tuple(
        replace(spec, parameters={**spec.parameters, "use_sim_time": True}) if spec.is_node else spec
        for spec in bench.plan.nodes
    )
    bench.plan = replace(bench.plan, nodes=nodes)


def test_conveyor_without_a_ros_clock_lives_and_stops_the_belt_of_a_silent_line(bench):
    peer = bench.set_up(plant=True)
    under_sim_time(bench)
    belt = peer.listen(BeltState, "belt_state")
    bench.bring_up("conveyor")
    assert peer.call(SetBelt, "conveyor/set_belt", run=True, speed_mps=0.5).success
    wait_for(lambda: belt and belt[-1].running, "the belt runs")
    peer.repeat("line_state", LineState(), 0.0)
    wait_for(lambda: not belt[-1].running, "the belt stands", 5.0)


def test_controller_without_a_ros_clock_says_how_the_line_is(bench):
    peer = bench.set_up()
    under_sim_time(bench)
    states = peer.listen(LineState, "line_state")
    bench.start("line_controller")
    wait_for(lambda: len(states) >= 3, "states of the line")
