"""Flipping by hand is a step of the station's one machine: it ends, whatever the PLC does, and disturbs no cell."""
# issue 16, 6

from __future__ import annotations

import pytest
from support.ev_cell import EvCell

from battery_sorting.drivers.station_plc.base import FlipperPosition
from battery_sorting.ev.faults import FlipError
from battery_sorting.ev.inspection import FlipEnded, Step, StepReached

DONE = FlipEnded(FlipError.NONE)
NO_ANSWER = FlipEnded(FlipError.FLIPPER, "the flipper has not answered")


@pytest.fixture
def cell() -> EvCell:
    """An idle station whose PLC has been heard."""
    cell = EvCell(items=2, seed=3, defective=0.0)
    cell.step()
    return cell


def flip(cell: EvCell, wait_s: float = 1.0) -> None:
    cell._do(cell.machine.flip_by_hand(cell.now, cell.now + wait_s))


def flip_to_the_end(cell: EvCell) -> FlipEnded:
    before = len(cell.flips)
    flip(cell)
    for _ in range(1000):
        if cell.flips[before:]:
            assert len(cell.flips) == before + 1
            return cell.flips[-1]
        cell.step()
    raise AssertionError("the flip never ends")


def flipper(cell: EvCell) -> FlipperPosition:
    return cell.status().flipper


def test_the_flipper_turns_and_turns_back_and_no_cell_is_on_record(cell):
    assert flip_to_the_end(cell) == DONE
    assert flipper(cell) is FlipperPosition.INVERTED
    assert flip_to_the_end(cell) == DONE
    assert flipper(cell) is FlipperPosition.UPRIGHT
    assert cell.machine.idle and cell.records == []


def test_the_next_cell_is_inspected_as_if_nobody_had_flipped(cell):
    for _ in range(2):
        flip_to_the_end(cell)
    cell.run_all()
    assert [(result.verdict.outlet, result.faults) for result in cell.results[:-1]] == [("product", ())] * 2


def test_a_flip_while_a_cell_is_inspected_is_refused_and_leaves_the_inspection_alone(cell):
    cell._do(cell.machine.begin(cell.now))
    while cell.machine.step is not Step.FLIP:
        cell.step()
    assert flip_to_the_end(cell) == FlipEnded(FlipError.BUSY, "a cell is being inspected: hold the line first")
    cell.run_all()
    assert [result.faults for result in cell.results] == [(), (), ()]


def test_a_second_flip_during_the_first_is_refused(cell):
    flip(cell)
    assert cell.machine.step is Step.FLIP_BY_HAND and not cell.machine.idle
    flip(cell)
    assert [ended.error for ended in cell.flips] == [FlipError.BUSY]


def test_nothing_is_loaded_while_the_flipper_turns(cell):
    flip(cell)
    with pytest.raises(RuntimeError, match="flip_by_hand"):
        cell.machine.begin(cell.now)


def test_a_cancelled_inspection_of_before_does_not_end_a_flip(cell):
    flip(cell)
    assert cell.machine.cancel(cell.now) == []
    assert cell.machine.step is Step.FLIP_BY_HAND


def test_a_flip_before_the_plc_was_heard_is_refused():
    cell = EvCell(items=1)
    assert flip_to_the_end(cell).error is FlipError.NOT_READY


def test_nobody_expects_the_flipper_to_turn_late(cell):
    flip(cell, wait_s=-0.1)
    assert cell.flips == [FlipEnded(FlipError.OTHER, "the station was not free in time")]
    assert cell.machine.idle


def test_no_flip_begins_during_an_emergency_stop(cell):
    cell.world.faults.set({"estop": True})
    cell.step()
    assert flip_to_the_end(cell) == FlipEnded(FlipError.OTHER, "emergency stop")


def test_an_emergency_stop_ends_a_flip_and_the_station_recovers_nothing_by_itself(cell):
    flip(cell)
    cell.step()
    cell.world.faults.set({"estop": True})
    while not cell.flips:
        cell.step()
    assert cell.flips[0].error is FlipError.FLIPPER
    assert cell.machine.idle and cell.stuck == [] and flipper(cell) is FlipperPosition.BETWEEN


def test_a_jam_is_told_and_the_next_flip_may_be_tried(cell):
    cell.world.faults.set({"flipper.jam": 1})
    assert flip_to_the_end(cell) == FlipEnded(FlipError.FLIPPER, "the PLC answered jam")
    assert cell.machine.idle


@pytest.mark.parametrize("fault", ["flipper.silent", "plc.restart", "plc.disconnect"])
def test_a_flip_that_nobody_answers_ends_by_its_time_out(cell, fault):
    if fault == "plc.restart":
        flip(cell)
        cell.step()
        cell.plc.restart()
        while not cell.flips:
            cell.step()
    else:
        cell.world.faults.set({fault: 1 if fault == "flipper.silent" else True})
        flip_to_the_end(cell)
    assert cell.flips == [NO_ANSWER]
    assert cell.now > cell.recipe.times.flip_s and cell.machine.idle


def test_the_station_says_that_it_flips_by_hand(cell):
    assert StepReached("", Step.FLIP_BY_HAND) in cell.machine.flip_by_hand(cell.now, cell.now + 1)
