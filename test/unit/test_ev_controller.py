"""The EV line as a whole: bringing nodes up, PackML states, when the next cell may be loaded."""

from __future__ import annotations

import pytest

from battery_sorting.core.types import LineStateId as S
from battery_sorting.ev.unit import BeginInspection, EvUnit
from battery_sorting.packml.fleet import Lifecycle, Transition
from battery_sorting.packml.machine import CommandNotAllowedError
from battery_sorting.packml.unit import PlacesFullError

TICK_S = 0.05


class Line:
    """A controller, a node that does as it is told unless ``dead``, and a clock."""

    def __init__(self, *, auto_start: bool = True, observers: tuple[str, ...] = ()) -> None:
        self.controller = EvUnit(("inspection", *observers), auto_start=auto_start, observers=frozenset(observers))
        self.now = 100.0
        self.lifecycle = Lifecycle.UNCONFIGURED
        self.ok = True
        self.dead = False
        self.begun = 0

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK_S)):
            self.now += TICK_S
            if not self.dead:
                self.controller.heartbeat("inspection", int(self.lifecycle), self.ok, "", self.now)
            for action in self.controller.tick(self.now):
                if isinstance(action, Transition):
                    steps = {"configure": Lifecycle.INACTIVE, "activate": Lifecycle.ACTIVE}
                    self.lifecycle = steps[action.transition]
                elif isinstance(action, BeginInspection):
                    self.begun += 1

    def end(self, *, empty: bool = False) -> None:
        self.controller.inspection_ended(self.now, empty=empty)

    @property
    def state(self) -> S:
        return self.controller.state


@pytest.fixture
def line():
    ready = Line()
    ready.run(2)
    assert ready.state is S.EXECUTE
    return ready


def test_line_comes_up_by_itself_and_inspects_one_cell_after_the_other(line):
    assert line.begun == 1
    line.run(5)
    assert line.begun == 1
    for expected in (2, 3, 4):
        line.end()
        line.run(0.1)
        assert line.begun == expected


# issue 16, 4
def test_line_inspects_without_an_observer_that_is_not_there_or_is_deactivated():
    line = Line(observers=("page",))
    line.run(2)
    assert (line.state, line.begun) == (S.EXECUTE, 1)
    assert line.controller.alarms(line.now) == {"node_page": "node page is silent"}
    for state in (Lifecycle.ACTIVE, Lifecycle.INACTIVE):
        line.controller.heartbeat("page", int(state), True, "", line.now)
    line.end()
    line.run(0.5)
    assert (line.state, line.begun) == (S.EXECUTE, 2)
    assert line.controller.alarms(line.now)["node_page"].startswith("node page was deactivated by a person")
    assert line.controller.deactivated == {"page"}


def test_real_hardware_waits_for_a_person():
    line = Line(auto_start=False)
    line.run(3)
    assert (line.state, line.begun) == (S.STOPPED, 0)
    line.controller.command("reset", "operator")
    line.run(0.2)
    line.controller.command("start", "operator")
    line.run(0.2)
    assert (line.state, line.begun) == (S.EXECUTE, 1)


def test_an_empty_loader_is_asked_again_after_a_while_only(line):
    line.end(empty=True)
    line.run(0.8)
    assert line.begun == 1
    line.run(0.5)
    assert line.begun == 2


@pytest.mark.parametrize(
    ("command", "passing", "reached"), [("hold", S.HOLDING, S.HELD), ("stop", S.STOPPING, S.STOPPED)]
)
def test_a_cell_in_the_station_is_inspected_to_its_end_before_the_line_rests(line, command, passing, reached):
    line.controller.command(command, "operator")
    line.run(5)
    assert line.state is passing
    line.end()
    line.run(0.2)
    assert line.state is reached
    line.run(3)
    assert line.begun == 1


def test_dead_node_holds_the_line_and_it_goes_on_when_the_node_is_back(line):
    line.end()
    line.dead = True
    line.run(2)
    assert "silent" in line.controller.problems(line.now)["node_inspection"]
    assert line.state in {S.HOLDING, S.HELD}
    line.dead, line.lifecycle = False, Lifecycle.UNCONFIGURED
    line.end()
    line.run(3)
    assert line.state is S.EXECUTE


def test_a_successor_that_came_before_the_silence_was_noticed_has_nothing_to_answer_either(line):
    assert not line.controller.gone("inspection", line.now)
    line.controller.heartbeat("inspection", int(Lifecycle.UNCONFIGURED), True, "", line.now)
    assert line.controller.gone("inspection", line.now)
    line.lifecycle = Lifecycle.UNCONFIGURED
    line.run(1)
    assert not line.controller.gone("inspection", line.now)
    assert line.controller.gone("inspection", line.now + 5), "silent"


def test_emergency_stop_aborts_and_nothing_starts_by_itself_after_it(line):
    line.controller.station(emergency_stop=True, stuck=False)
    line.run(0.2)
    assert line.state is S.ABORTED
    line.controller.station(emergency_stop=False, stuck=False)
    line.end()
    line.run(5)
    assert (line.state, line.begun) == (S.ABORTED, 1)
    for command, reached in (("clear", S.STOPPED), ("reset", S.IDLE), ("start", S.EXECUTE)):
        line.controller.command(command, "operator")
        line.run(0.2)
        assert line.state is reached


def test_latched_fault_waits_for_a_person(line):
    line.controller.latched_faults["faults_in_a_row"] = "three cells in a row"
    line.end()
    line.run(5)
    assert line.state is S.HELD
    line.controller.command("unhold", "seen to")
    line.run(0.3)
    assert line.state is S.EXECUTE


def test_full_outlet_suspends_the_line_until_it_is_emptied(line):
    line.controller.full = ["hazardous"]
    line.end()
    line.run(1)
    assert line.state is S.SUSPENDED
    with pytest.raises(PlacesFullError, match="'emptied hazardous'"):
        line.controller.command("unsuspend", "seen to")
    line.controller.full = []
    line.controller.command("unsuspend", "seen to")
    line.run(0.3)
    assert line.state is S.EXECUTE


def test_command_that_is_not_allowed_is_refused(line):
    with pytest.raises(CommandNotAllowedError, match="'reset' is not allowed"):
        line.controller.command("reset", "operator")


@pytest.mark.parametrize(("command", "reached"), [("hold", S.HELD), ("stop", S.STOPPED), ("suspend", S.SUSPENDED)])
def test_a_line_that_is_halted_rests_with_a_station_that_is_stuck(line, command, reached):
    # issue 14
    line.controller.command(command, "operator")
    line.controller.station(emergency_stop=False, stuck=True)
    line.run(1.2)
    assert line.state is not reached, "the station may not have heard of it, and come free just now"
    line.controller.station(emergency_stop=False, stuck=False)
    line.run(0.1)
    line.controller.station(emergency_stop=False, stuck=True)
    line.run(1.2)
    assert line.state is not reached, "it did come free, and is at work"
    line.run(1.0)
    assert line.state is reached and line.controller.inspecting


def test_a_line_that_completes_waits_for_its_station_even_if_that_is_stuck(line):
    line.controller.command("complete", "operator")
    line.controller.station(emergency_stop=False, stuck=True)
    line.run(5)
    assert line.state is S.COMPLETING
    line.end()
    line.run(0.2)
    assert line.state is S.COMPLETE
