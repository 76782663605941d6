"""The EV line's controller without ROS: it goes on where the ledger ends, decides the same twice, records first."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from support.ev_line import EvLine

from battery_sorting.core.types import LineStateId
from battery_sorting.ev.controller import CellRead, EvController, HandedOver, LedgerUnread, ReadCells
from battery_sorting.ev.flow import MoveEnded
from battery_sorting.ev.orders import OrderEnded
from battery_sorting.ledger import Record
from battery_sorting.ledger.events import Moved, MoveOrdered
from battery_sorting.line.controller import CommandAnswer, CommandAsked, LedgerTold
from battery_sorting.packml.machine import LineCommandId


@pytest.fixture
def line(tmp_path: Path):
    line = EvLine(tmp_path)
    yield line
    line.ledger.close()


def started(line: EvLine) -> EvLine:
    line.run_until(lambda: line.state is LineStateId.EXECUTE)
    return line


def bins(line: EvLine) -> dict[str, tuple[str | None, str | None]]:
    return {battery.battery_id: (battery.bin, battery.reason) for battery in line.ledger.batteries()}


def test_every_cell_is_put_away_and_counted(line):
    line.run_until(lambda: line.all_put_away)
    assert sorted(bin_ for bin_, _ in bins(line).values()) == ["reject", "reject", *["tray_1"] * 5]
    line.run(1.5)
    assert line.controller.counts == {"detected": 7, "sorted": 5, "others": 2, "unaccounted": 0}
    assert line.controller.in_flight == int(line.controller.unit.inspecting)


@pytest.mark.parametrize("seed", range(12))
def test_line_whose_controller_dies_at_any_point_puts_every_cell_away_once(line, seed):
    """Who was told to do something when it died does it unseen, or not at all: the ledger does not say which."""
    dice = random.Random(seed)
    started(line)
    for _ in range(3):
        line.run(dice.uniform(0.3, 4.0))
        line.account.refresh()
        known = (dict(line.account.totals), dict(line.account.contents))
        line.crash()
        assert (line.controller.counts, line.controller.contents) == known
    line.run_until(lambda: line.all_put_away)
    assert sorted(bin_ for bin_, _ in bins(line).values()) == ["reject", "reject", *["tray_1"] * 5]
    targets = [event.data.place for event in line.ledger.events(kinds=[Moved]) if event.data.place[:4] == "tray"]
    assert len(targets) == len(set(targets)) == 5, "no slot was filled twice"


def test_outlet_that_was_full_before_a_crash_is_full_after_it_until_a_person_has_emptied_it(tmp_path):
    line = EvLine(tmp_path, capacities={"reject": 1})
    line.run_until(lambda: line.state is LineStateId.SUSPENDED)
    assert line.controller.unit.full == ["reject"]
    line.crash()
    assert line.controller.unit.full == ["reject"]
    line.command(LineCommandId.EMPTIED, "reject")
    assert line.controller.unit.full == []
    line.ledger.close()


def test_hold_by_a_person_outlives_the_controller(line):
    started(line).run(2.0)
    line.command(LineCommandId.HOLD)
    line.run(1.0)
    line.crash()
    moves = len(line.moves)
    line.run(5.0)
    assert line.state is LineStateId.HELD and line.controller.unit.reason == "hold by anna: a test"
    assert len(line.moves) == moves, "nothing moves"
    line.command(LineCommandId.UNHOLD)
    line.run_until(lambda: line.all_put_away)


def test_cells_with_faults_in_a_row_hold_the_line_over_a_crash_until_a_person_has_looked(line):
    started(line)
    line.faults = ("flip_jam",)
    line.run_until(lambda: line.state is LineStateId.HELD)
    fault = line.controller.unit.latched_faults["faults_in_a_row"]
    assert fault == "2 cells in a row with a fault, the last: flip_jam"
    line.crash()
    line.run(3.0)
    assert line.state is LineStateId.HELD and line.controller.unit.latched_faults == {"faults_in_a_row": fault}
    line.faults = ()
    line.command(LineCommandId.UNHOLD)
    line.run_until(lambda: line.all_put_away)


def test_same_events_in_the_same_order_give_the_same_actions(line):
    memory = line.memory
    line.run_until(lambda: line.all_put_away)

    def decide() -> list[str]:
        controller = line.new_controller()
        first = controller.restore(memory, 0.0)
        later = (
            controller.tick(now) if event is None else controller.handle(event, now) for event, now in line.calls
        )
        return [repr(actions) for actions in (first, *later)]

    first = decide()
    assert first == decide()
    assert sum("Send(order=Move" in text for text in first) == len(line.moves) >= 15


# ---- records first ----


def test_move_whose_record_can_not_be_written_is_not_sent_until_it_stands_in_the_ledger(line):
    started(line)
    write, sent, fails = line.backlog.write, line._send, True

    def refuse(records: list[Record]) -> bool:
        if fails and any(isinstance(record.data, MoveOrdered) for record in records):
            line.take(LedgerTold("disk full", waiting=True))
            waiting.extend(records)
            return False
        return write(records)

    def note(order) -> None:
        assert not fails, "an order without its record"
        sent(order)

    waiting: list[Record] = []
    line.backlog.write, line._send = refuse, note  # type: ignore[method-assign]
    line.run_until(lambda: bool(waiting))
    line.run(3.0)
    assert line.state is LineStateId.HELD and line.moves == []
    fails = False
    assert write(waiting)
    line.take(LedgerTold("", waiting=False))
    line.run_until(lambda: line.all_put_away)
    assert line.moves[0].target == "channel-1"


def test_order_whose_node_is_away_waits_and_is_given_again(line):
    line.away.add("tester")
    started(line).run(6.0)
    assert line.controller.in_flight > 1
    line.away.clear()
    line.run_until(lambda: line.all_put_away)


# ---- orders ----


def test_move_of_a_robot_that_died_is_ordered_once_more_and_its_late_answer_changes_nothing(line):
    started(line)
    line.run_until(lambda: bool(line.moves))
    [move] = line.moves
    line._due.clear()  # it dies before it answers
    line.started_anew.add("robot")
    line.run(1.0)
    before = line.controller.in_flight
    line.take(OrderEnded(move, MoveEnded(move.battery_id, "channel-2")))
    assert line.controller.in_flight == before
    line.started_anew.clear()
    line.run_until(lambda: len(line.moves) > 1)
    assert line.moves[1] == move


# ---- the ledger can't be read ----


def test_cell_that_the_ledger_could_not_be_asked_for_is_asked_for_again(line):
    controller: EvController = started(line).controller
    assert controller.handle(HandedOver("x"), line.now) == [ReadCells(("x",))]
    [log] = controller.handle(LedgerUnread("locked"), line.now)
    assert log.is_error and controller.unit.external_faults["ledger_unread"] == "locked"
    assert ReadCells(("x",)) not in controller.tick(line.now + 0.5)
    assert ReadCells(("x",)) in controller.tick(line.now + 1.0)
    controller.handle(CellRead("x", is_open=False), line.now + 1.0)
    assert "ledger_unread" not in controller.unit.external_faults


def test_place_that_the_line_does_not_have_can_not_be_emptied(line):
    *_, answer = line.controller.handle(CommandAsked(LineCommandId.EMPTIED, "anna", bin="nowhere"), 0.0)
    assert isinstance(answer, CommandAnswer) and not answer.accepted and "trays" in answer.message
