"""A line controller that is cut off goes on where the ledger ends."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from support.belt_cell import BeltCell

from battery_sorting.core.ledger import EventKind, Ledger
from battery_sorting.core.line import (
    FINISHED_KEPT,
    REPLAY_S,
    Action,
    BeltLine,
    Dispose,
    Eject,
    LineGeometry,
    Record,
    Routing,
)
from battery_sorting.core.resume import recorded_exits, resumed_battery
from battery_sorting.core.types import OTHERS, BeltState, EjectOutcome, ExitDetection, Reason
from battery_sorting.plant.world import TYPE_FORMS

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
                transaction.record(action.kind, action.battery_id, action.stamp, **action.payload)


def line_from(ledger: Ledger) -> BeltLine:
    line = BeltLine(Routing({label: label for label in TYPE_FORMS}), LineGeometry(exit_offset_mm=2100.0))
    line.restore(
        (resumed_battery(record) for record in ledger.open_batteries(LINE)),
        ledger.finished_ids(LINE, FINISHED_KEPT),
        recorded_exits(ledger.events(kinds=[EventKind.EXITED])),
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


@pytest.mark.parametrize("heard", [True, False])
def test_battery_that_left_meanwhile_is_not_given_up_before_its_exit_can_have_been_heard(ledger, cell, heard):
    """After a restart the state of the belt may come before the exits that were missed."""
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
    state, now = next(
        (event, now)
        for event, now, _ in cell.events[at:]
        if isinstance(event, BeltState) and line._travel_mm(gone, event.encoder_count) > end_mm
    )
    assert not [action for action in again.handle(state, now) if isinstance(action, Dispose)]
    if heard:
        again.handle(exit_, now + 0.02)
    assert gone.battery_id in again.in_flight
    done = again.handle(state, now + REPLAY_S)
    placement = next(
        a.placement for a in done if isinstance(a, Dispose) and a.placement.battery_id == gone.battery_id
    )
    truth = cell.placements[gone.battery_id]
    if heard:
        assert (placement.bin, placement.reason) == (truth.bin, truth.reason)
    else:
        assert placement.reason is Reason.UNACCOUNTED


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
    write(ledger, cell.line.lose_positions(cell.now))
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
