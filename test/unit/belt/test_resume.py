"""A line controller that is cut off goes on where the ledger ends."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from support.belt_cell import BeltCell

from battery_sorting.belt.line import (
    FINISHED_KEPT,
    REPLAY_S,
    REPORTS_S,
    Action,
    BeltLine,
    Dispose,
    Eject,
    LineGeometry,
    Routing,
    Totals,
)
from battery_sorting.belt.monitor import BeltMonitor
from battery_sorting.belt.resume import bin_contents, recorded_exits, resumed_battery, shift_totals
from battery_sorting.core.types import OTHERS, BeltState, EjectOutcome, ExitDetection, Reason
from battery_sorting.ledger import Record
from battery_sorting.ledger.events import Commanded, Detected, Disposed, Exited, ShiftEnded
from battery_sorting.ledger.store import Ledger
from battery_sorting.vision.synthetic.forms import TYPE_FORMS

LINE = "belt"


@pytest.fixture
def ledger(tmp_path: Path):
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        ledger.begin_shift(LINE, "sim", 0.0)
        yield ledger


def write(ledger: Ledger, actions: list[Action]) -> None:
    with ledger.transaction() as transaction:
        for action in actions:
            if isinstance(action, Record):
                record = action.stamped(time.time())
                transaction.record(record.data, record.battery_id, record.stamp)


def line_from(ledger: Ledger) -> BeltLine:
    line = BeltLine(Routing({label: label for label in TYPE_FORMS}), LineGeometry(exit_offset_mm=2100.0))
    line.restore(
        (resumed_battery(record) for record in ledger.open_batteries(LINE)),
        ledger.finished_ids(LINE, FINISHED_KEPT),
        recorded_exits(ledger.events(kinds=[Exited])),
    )
    return line


@pytest.fixture(scope="module")
def cell() -> BeltCell:
    cell = BeltCell(1.0, seed=4, items=14, unknown_fraction=0.2)
    cell.run(3.0)
    cell.plc.world.faults.set({"valve.stick": 3})
    cell.run_until_empty()
    return cell


def test_battery_comes_back_as_it_was(ledger, cell):
    """Whatever was known of a battery at any moment is known again after a restart."""
    line = line_from(ledger)
    for number, (event, now, may_eject) in enumerate(cell.events):
        line.may_eject = may_eject
        write(ledger, line.handle(event, now))
        if number % 40 == 0:
            again = line_from(ledger)
            assert again.in_flight.keys() == line.in_flight.keys()
            for battery_id, battery in line.in_flight.items():
                resumed = again.in_flight[battery_id]
                for name in ("bin", "reason", "token", "outcome", "exited", "lost"):
                    assert getattr(resumed, name) == getattr(battery, name), name
                assert repr(resumed.detection) == repr(battery.detection)
                assert (resumed.verdict is None) == (battery.verdict is None)


@pytest.mark.parametrize("seed", range(12))
def test_line_that_is_cut_off_anywhere_ends_with_the_same_dispositions(ledger, cell, seed):
    """After each cut all events since the start come again, as the middleware keeps them, in any order."""
    dice = random.Random(seed)
    line = line_from(ledger)
    actions: list[Action] = []
    for number, (event, now, may_eject) in enumerate(cell.events):
        if dice.random() < 0.01:
            line = line_from(ledger)
            actions += deliver_again(ledger, line, cell, number, dice)
        line.may_eject = may_eject
        done = line.handle(event, now)
        write(ledger, done)
        actions += done
    for pause in (0.0, REPLAY_S):  # what the last cut has put off
        done = line.handle(last_state(cell), cell.events[-1][1] + pause)
        write(ledger, done)
        actions += done
    truth = {battery_id: (p.bin, p.reason) for battery_id, p in cell.placements.items()}
    disposed = [action.placement for action in actions if isinstance(action, Dispose)]
    assert len(disposed) == len(truth)
    assert {p.battery_id: (p.bin, p.reason) for p in disposed} == truth
    assert {record.battery_id: (record.bin, record.reason) for record in ledger.batteries()} == truth
    orders = [action.order.token for action in actions if isinstance(action, Eject)]
    assert len(orders) == len(set(orders))


def last_state(cell: BeltCell) -> BeltState:
    return next(event for event, _, _ in reversed(cell.events) if isinstance(event, BeltState))


@pytest.mark.parametrize("pause_s", [0.1, 1.0, 60.0])
def test_battery_that_left_meanwhile_is_not_given_up_before_its_exit_was_heard(ledger, cell, pause_s):
    """After a restart the state of the belt may come before the exits and ejections that were missed."""
    at, (exit_, _, _) = next(
        (n, entry) for n, entry in enumerate(cell.events) if isinstance(entry[0], ExitDetection)
    )
    line = line_from(ledger)
    for event, now, may_eject in cell.events[:at]:
        line.may_eject = may_eject
        write(ledger, line.handle(event, now))
    again = line_from(ledger)
    gone = again._expected_at_exit(exit_)
    end_mm = again.geometry.exit_offset_mm + again.geometry.grace_mm
    then, (state, now, _) = next(
        (number, entry)
        for number, entry in enumerate(cell.events)
        if number > at
        and isinstance(entry[0], BeltState)
        and line._travel_mm(line.in_flight[gone.battery_id], entry[0].encoder_count) > end_mm
    )
    for after_s in (0.0, REPLAY_S, REPLAY_S + pause_s):
        assert not [action for action in again.handle(state, now + after_s) if isinstance(action, Dispose)]
    assert bool(again.unheard(now + REPLAY_S + pause_s)) == (pause_s > REPORTS_S)
    for event, _, _ in cell.events[: then + 10]:  # the ejector is asked after the belt
        if not isinstance(event, BeltState):
            again.handle(event, now + 70.0)
    done = again.handle(state, now + 70.0)
    placement = next(
        a.placement for a in done if isinstance(a, Dispose) and a.placement.battery_id == gone.battery_id
    )
    truth = cell.placements[gone.battery_id]
    assert (placement.bin, placement.reason) == (truth.bin, truth.reason)
    assert again.unheard(now + 130.0) == ""


@pytest.mark.parametrize("seed", range(6))
def test_counters_of_the_shift_and_contents_of_the_bins_survive_a_restart(ledger, cell, seed):
    # issue 14, point 10
    until = random.Random(seed).randrange(len(cell.events))
    line, filled = line_from(ledger), BeltMonitor(3, 5)
    for event, now, may_eject in cell.events[:until]:
        line.may_eject = may_eject
        actions = line.handle(event, now)
        write(ledger, actions)
        for action in actions:
            if isinstance(action, Dispose):
                filled.take(action.placement)
    assert shift_totals(ledger, ledger.shift_id or 0) == line.totals
    assert bin_contents(ledger, LINE) == filled.contents


def test_bins_hold_over_the_end_of_a_shift_what_the_counters_do_not(ledger, cell):
    # issue 14, point 10
    write(ledger, cell.records)
    held = bin_contents(ledger, LINE)
    assert sum(held.values()) == 14 and len(held) > 2
    ledger.end_shift(1.0, ShiftEnded(contents=held))
    ledger.begin_shift(LINE, "sim", 2.0)
    assert bin_contents(ledger, LINE) == held
    assert shift_totals(ledger, ledger.shift_id or 0) == Totals()
    bin_ = next(iter(held))
    write(ledger, [Record(Commanded("emptied", bin=bin_, by="me", reason=""))])
    assert bin_contents(ledger, LINE) == {name: number for name, number in held.items() if name != bin_}
    more = [
        Record(Detected(trigger_count=1, encoder_count=0), "later", 1.0),
        Record(Disposed(bin=bin_, reason="sorted"), "later", 1.0),
    ]
    write(ledger, more)
    assert bin_contents(ledger, LINE) == held | {bin_: 1}
    assert shift_totals(ledger, ledger.shift_id or 0) == Totals(detected=1, sorted=1)


def deliver_again(ledger: Ledger, line: BeltLine, cell: BeltCell, number: int, dice: random.Random) -> list[Action]:
    past = [entry for entry in cell.events[:number] if not isinstance(entry[0], BeltState)]
    dice.shuffle(past)
    actions: list[Action] = []
    for event, now, may_eject in past:
        line.may_eject = may_eject
        actions += line.handle(event, now)
    write(ledger, actions)
    assert not any(isinstance(action, Record) for action in actions), "all of it is in the ledger"
    return actions


def test_lost_and_ejected_batteries_are_still_that(ledger):
    cell = BeltCell(1.0, seed=4, items=14)
    cell.run(3.2)
    write(ledger, cell.records)
    fired = [b for b in cell.line.in_flight.values() if b.outcome is EjectOutcome.FIRED]
    others = [b for b in cell.line.in_flight.values() if b.outcome is not EjectOutcome.FIRED]
    assert fired and others
    write(ledger, cell.line.lose_positions())
    again = line_from(ledger)
    for battery in fired:
        resumed = again.in_flight[battery.battery_id]
        assert (resumed.bin, resumed.reason) == (battery.bin, Reason.SORTED)
    for battery in others:
        resumed = again.in_flight[battery.battery_id]
        assert (resumed.lost, resumed.bin, resumed.reason) == (True, OTHERS, Reason.LOST_POSITION)


def test_order_that_was_recorded_but_never_given_is_a_fault_of_the_line(ledger, cell):
    """Cut off between the ledger and the ejector: the battery is not ejected later, at a place of chance."""
    line = line_from(ledger)
    detection = next(event for event, _, _ in cell.events if type(event).__name__ == "Detection")
    verdict = cell.verdict(detection)
    line.may_eject = True
    for event in (detection, verdict):
        write(ledger, line.handle(event, verdict.stamp))
    line = line_from(ledger)
    line.may_eject = True
    assert line.handle(verdict, verdict.stamp) == []
    battery = line.in_flight[detection.battery_id]
    battery.exited = True
    end = BeltState(
        verdict.stamp + 5, connected=True, boot_id=0x6000_0001, encoder_count=detection.encoder_count + 23_000
    )
    (placement,) = [a.placement for a in line.handle(end, verdict.stamp + 5) if isinstance(a, Dispose)]
    assert (placement.bin, placement.reason) == (OTHERS, Reason.LINE_FAULT)
