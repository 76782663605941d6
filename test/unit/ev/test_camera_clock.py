"""When a station's camera is connected anew, and its clock compared with the host's."""

# issue 14, point 14

from __future__ import annotations

from dataclasses import replace

import pytest
from support.ev_cell import EvCell

from battery_sorting.core.types import View
from battery_sorting.ev.camera_clock import OUTDATED_S, CameraClock
from battery_sorting.ev.inspection import CompareClock, Missed


def comparisons(clock: CameraClock, ages: list[float], step_s: float = 3.0) -> int:
    """How often it was compared because of frames of these ages."""
    now, count = 0.0, 0
    clock.compared(now)
    for age_s in ages:
        now += step_s
        if clock.frame(age_s, now):
            count += 1
            clock.compared(now)
    return count


def test_frames_as_they_should_be_cost_no_comparison():
    assert comparisons(CameraClock(), [0.01, 0.05, 0.2, -0.01] * 50) == 0


@pytest.mark.parametrize("ages", [[0.3] * 100, [0.2, 0.3] * 100, [0.05, 0.9] * 100, [0.27, 0.45, 0.3] * 50])
def test_a_slow_camera_is_not_disconnected_again_and_again(ages):
    assert comparisons(CameraClock(), ages) <= 2


def test_a_clock_that_can_be_compared_no_better_is_not_compared_for_every_frame():
    assert comparisons(CameraClock(), [-0.08] * 100) == 1


@pytest.mark.parametrize("ahead_s", [0.06, 0.2, 0.5])
def test_a_clock_that_was_set_ahead_is_compared_each_time(ahead_s):
    clock = CameraClock()
    assert comparisons(clock, [0.03, -ahead_s, 0.03, 0.02, -ahead_s, 0.03]) == 2


def test_a_frame_that_seems_older_than_its_order_has_the_clocks_compared_once():
    clock = CameraClock()
    clock.compared(1.0)
    assert not clock.frame(0.2, 2.0)
    assert not clock.doubt()
    clock.refused()
    assert "older than its order" in clock.doubt()
    clock.compared(2.3)
    assert not clock.doubt()
    clock.refused()  # told late, of the frame of before
    assert not clock.doubt()


def test_a_camera_that_no_frame_comes_from_is_connected_anew():
    clock = CameraClock()
    clock.compared(1.0)
    clock.missed()
    clock.frame(0.05, 2.0)
    clock.missed()
    assert not clock.doubt(), "one frame may be lost now and then"
    clock.missed()
    assert "no frame came for 2 orders" in clock.doubt()
    clock.compared(3.0)
    assert not clock.doubt()


def test_a_comparison_of_long_ago_is_outdated():
    clock = CameraClock()
    clock.compared(10.0)
    assert not clock.is_outdated(10.0 + OUTDATED_S)
    assert clock.is_outdated(10.1 + OUTDATED_S)


class Deaf(EvCell):
    """A station whose lug camera's connection is dead until it is made anew."""

    def __init__(self, **settings) -> None:
        super().__init__(**settings)
        self.clock, self.connections = CameraClock(), 0

    def _expose(self, exposure) -> None:
        super()._expose(exposure)
        if self._due[-1][1].view is View.LUG and not self.connections:
            self._due.pop()

    def _do(self, actions) -> None:
        for action in actions:
            if isinstance(action, Missed):
                self.clock.missed()
        if self.clock.doubt():
            self.connections += 1
            self.clock.compared(0.0)
        super()._do(actions)


def test_a_camera_whose_connection_is_dead_costs_one_cell_its_pictures_and_no_other():
    cell = Deaf(items=6)
    cell.run_all(400.0)
    results = [result for result in cell.results if result.battery_id]
    assert cell.connections == 1
    assert [list(result.faults) for result in results] == [["no_frame", "no_frame"]] + [[]] * 5
    assert results[0].verdict.outlet == "quarantine"


class SetBack(EvCell):
    """A station whose cameras' clocks are behind by ``back_s`` until they are compared anew."""

    def __init__(self, back_s: float, **settings) -> None:
        super().__init__(**settings)
        self.back_s = dict.fromkeys(View, back_s)
        self.comparisons = 0

    def _expose(self, exposure) -> None:
        super()._expose(exposure)
        at, event = self._due[-1]
        self._due[-1] = at, replace(event, stamp=event.stamp - self.back_s[event.view])

    def _do(self, actions) -> None:
        for action in actions:
            if isinstance(action, CompareClock):
                self.comparisons += 1
                self.back_s[action.view] = 0.0
        super()._do(actions)


@pytest.mark.parametrize(("back_s", "comparisons"), [(0.0, 0), (0.2, 2), (0.24, 2), (40.0, 2)])
def test_cameras_whose_clocks_were_set_back_cost_one_picture_each(back_s, comparisons):
    cell = SetBack(back_s, items=6)
    cell.run_all(400.0)
    faults = [fault for result in cell.results if result.battery_id for fault in result.faults]
    assert (cell.comparisons, faults) == (comparisons, ["no_frame"] * comparisons)
