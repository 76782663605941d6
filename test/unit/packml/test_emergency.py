"""What the owner of a device makes of its emergency stop (issue 14, point 4)."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from battery_sorting.core.types import LineStateId as S
from battery_sorting.drivers.robot.base import MoveResult, RobotState
from battery_sorting.packml.emergency import EmergencyStop

SHOWN_BY = {"abort": {S.ABORTING, S.ABORTED, S.CLEARING}, "start": {S.STARTING, S.EXECUTE}}


def test_a_press_stands_until_the_line_is_aborted_and_blocks_until_a_person_has_started_it():
    stop = EmergencyStop()
    assert (stop.standing, stop.may_move) == (False, True)
    stop.see(True)
    stop.see(False)
    stop.line_is(S.EXECUTE)
    assert (stop.standing, stop.may_move) == (True, False), "the line does not know yet"
    stop.line_is(S.ABORTING)
    assert (stop.standing, stop.may_move) == (False, False)
    for state in (S.ABORTED, S.CLEARING, S.STOPPED, S.RESETTING, S.IDLE):
        stop.line_is(state)
        assert not stop.may_move, state
    stop.line_is(S.STARTING)
    assert (stop.standing, stop.may_move) == (False, True)


def test_while_it_is_pressed_it_stands_whatever_the_line_does():
    stop = EmergencyStop()
    stop.see(True)
    for state in S:
        stop.line_is(state)
        assert stop.standing and not stop.may_move


def test_a_second_press_before_the_start_begins_anew():
    stop = EmergencyStop()
    stop.see(True)
    stop.see(False)
    stop.line_is(S.ABORTED)
    stop.see(True)
    stop.see(False)
    stop.line_is(S.STARTING)
    assert stop.standing and not stop.may_move


def test_whatever_happens_nothing_may_move_between_a_press_and_a_start_after_an_abort():
    chance = random.Random(14)
    for _ in range(200):
        stop, owed = EmergencyStop(), []  # what must still be seen before anything may move
        for _ in range(100):
            if chance.random() < 0.3:
                pressed = chance.random() < 0.5
                stop.see(pressed)
                if pressed:
                    owed = ["release", "abort", "start"]
                elif owed[:1] == ["release"]:
                    owed.pop(0)
            else:
                state = chance.choice(list(S))
                stop.line_is(state)
                if owed and state in SHOWN_BY.get(owed[0], set()):
                    owed.pop(0)
            assert stop.may_move == (not owed)
            assert stop.standing == bool({"release", "abort"} & set(owed))


ROBOT = RobotState(7, True, False, 0, 3, MoveResult.DONE, False)
LATCHED = replace(ROBOT, ready=False, fault="emergency stop", emergency_stops=1)


@pytest.mark.parametrize(
    ("before", "state", "new"),
    [
        (None, ROBOT, False),
        (None, LATCHED, True),
        (None, replace(LATCHED, fault="Emergency_Stop: button 2"), True),
        (None, replace(ROBOT, emergency_stops=4), False),  # which somebody has reset since
        (ROBOT, LATCHED, True),
        (ROBOT, replace(LATCHED, emergency_stops=0), True),  # a program that does not count
        (ROBOT, replace(ROBOT, emergency_stops=1), True),  # and reset at the robot
        (LATCHED, LATCHED, False),  # the line was aborted for it, and may be started
        (LATCHED, replace(LATCHED, emergency_stops=2), True),
        (LATCHED, replace(ROBOT, emergency_stops=1), False),
        (ROBOT, replace(ROBOT, fault="collision stop"), False),
        (LATCHED, replace(LATCHED, boot_id=8), True),
        (ROBOT, replace(ROBOT, boot_id=8, emergency_stops=1), True),
        (ROBOT, replace(ROBOT, boot_id=8), False),
    ],
)
def test_a_robot_tells_of_every_emergency_stop_once_even_if_nobody_saw_the_press(before, state, new):
    assert state.tells_a_new_stop(before) is new
