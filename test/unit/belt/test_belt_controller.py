"""The belt's controller without ROS: it goes on where the ledger ends, decides the same twice, records first."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from support.belt_cell import BeltCell, belt_controller

from battery_sorting.belt.controller import BeltController
from battery_sorting.belt.line import Eject
from battery_sorting.belt.resume import BeltMemory, read_belt_memory
from battery_sorting.core.types import OTHERS, LineStateId
from battery_sorting.ledger import Record
from battery_sorting.ledger.backlog import Backlog
from battery_sorting.ledger.events import EjectOrdered
from battery_sorting.ledger.store import Ledger
from battery_sorting.line.controller import CommandAsked, LedgerTold, NodeSpoke, Withheld, carry_out
from battery_sorting.line.resume import resume_line
from battery_sorting.packml.fleet import Lifecycle
from battery_sorting.packml.machine import LineCommandId
from battery_sorting.packml.restart import Restart

LINE, RUN = "belt", "run-1"
EXIT_MM = 2100.0
SPEED_MPS = 1.0


def new_controller(memory: BeltMemory, now: float, capacities: dict[str, int] | None = None) -> BeltController:
    controller = belt_controller(SPEED_MPS, EXIT_MM, capacities, RUN)
    controller.restore(memory, now)
    return controller


@pytest.fixture(scope="module")
def cell() -> BeltCell:
    """A run with a stuck valve, false edges, and two holds by a person."""
    cell = BeltCell(SPEED_MPS, seed=4, items=20, unknown_fraction=0.2)
    cell.run(4.0)
    cell.plc.world.faults.set({"valve.stick": 3, "eye.ghost": 1})
    for command in (LineCommandId.HOLD, LineCommandId.UNHOLD):
        cell.take(CommandAsked(command, "anna", "look at it"))
        cell.run(2.0)
    cell.run_until_empty()
    return cell


@pytest.fixture
def ledger(tmp_path: Path):
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        ledger.begin_shift(LINE, "sim", 0.0)
        yield ledger


class Run:
    """A controller with a ledger, told what another cell's controller was told."""

    def __init__(self, ledger: Ledger, capacities: dict[str, int] | None = None) -> None:
        self.backlog = Backlog(ledger, lambda text: pytest.fail(text), time.time)
        self.ledger, self.capacities = ledger, capacities
        self.controller = new_controller(BeltMemory(Restart(auto_start=True)), 0.0, capacities)

    def tell(self, calls: list) -> None:
        for event, now in calls:
            actions = self.controller.tick(now) if event is None else self.controller.handle(event, now)
            carry_out(actions, BeltController.need_records, self.backlog.write, lambda _: None, pytest.fail)

    def crash(self, now: float) -> BeltController:
        """What a controller knows that is started anew in the same run of the line."""
        how = resume_line(self.ledger, LINE, RUN, wanted=True)
        return new_controller(read_belt_memory(self.ledger, LINE, how), now, self.capacities)


@pytest.mark.parametrize("seed", range(6))
def test_controller_that_was_cut_off_anywhere_knows_bins_counts_and_what_is_under_way(ledger, cell, seed):
    at = random.Random(seed).randrange(len(cell.calls) // 5, len(cell.calls))
    run = Run(ledger, {OTHERS: 2})
    run.tell(cell.calls[:at])
    before, again = run.controller, run.crash(cell.calls[at - 1][1])
    assert again.counts == before.counts
    assert again.monitor.contents == before.monitor.contents
    assert again.unit.full == before.unit.full
    assert again.line.in_flight.keys() == before.line.in_flight.keys()
    assert again.figures == before.figures


def test_bin_that_was_full_before_a_crash_is_full_after_it_until_a_person_has_emptied_it(ledger, cell):
    run = Run(ledger, {OTHERS: 1})
    run.tell(cell.calls)
    now = cell.calls[-1][1]
    again = run.crash(now)
    assert again.unit.full == [OTHERS]
    answer = again.handle(CommandAsked(LineCommandId.EMPTIED, "anna", bin=OTHERS), now)[-1]
    assert answer.accepted and again.unit.full == []


def executing(ledger: Ledger, cell: BeltCell) -> tuple[Run, float]:
    run = Run(ledger)
    run.tell(cell.calls)
    assert run.controller.unit.state is LineStateId.EXECUTE
    return run, cell.calls[-1][1]


def test_hold_by_a_person_outlives_the_controller(ledger, cell):
    run, now = executing(ledger, cell)
    run.tell([(CommandAsked(LineCommandId.HOLD, "anna", "jam"), now), (None, now)])
    again = run.crash(now)
    assert again.unit.state is LineStateId.HOLDING and not again.unit.held_by_fault
    assert again.unit.reason == "hold by anna: jam"
    assert not again.unit.auto_start


def test_latched_fault_outlives_the_controller(ledger, cell):
    run, now = executing(ledger, cell)
    run.controller.unit.latched_faults["missed_in_a_row"] = "3 ejections missed"
    run.tell([(None, now)])
    again = run.crash(now)
    assert again.unit.latched_faults == {"missed_in_a_row": "3 ejections missed"}
    assert again.unit.state is LineStateId.HOLDING
    assert again.handle(CommandAsked(LineCommandId.START, "anna"), now)[-1].accepted is False, "it is to be unheld"


def test_node_that_a_person_has_deactivated_is_left_alone_by_the_next_controller(ledger, cell):
    run, now = executing(ledger, cell)
    for lifecycle in (Lifecycle.ACTIVE, Lifecycle.INACTIVE):
        run.tell([(NodeSpoke("camera", lifecycle, lifecycle is Lifecycle.ACTIVE), now), (None, now)])
    assert run.crash(now).unit.deactivated == {"camera"}


def test_same_events_in_the_same_order_give_the_same_actions(cell):
    def decide() -> list[str]:
        controller = belt_controller(SPEED_MPS, EXIT_MM)
        controller.restore(BeltMemory(Restart(auto_start=True)), cell.calls[0][1])
        return [
            repr(controller.tick(now) if event is None else controller.handle(event, now))
            for event, now in cell.calls
        ]

    first = decide()
    assert first == decide()
    assert sum("EjectOrdered" in text for text in first) == len(cell.orders) > 10


def test_what_can_not_be_written_moves_nothing_and_is_not_made_up_for_later(cell):
    """The rule 'records first': an order goes out only when its record stands in the ledger."""
    sent, withheld = [], []
    controller = belt_controller(SPEED_MPS, EXIT_MM)
    controller.restore(BeltMemory(Restart(auto_start=True)), cell.calls[0][1])

    def write(records: list[Record]) -> bool:
        return not any(isinstance(record.data, EjectOrdered) for record in records)

    def do(action: object) -> None:
        sent.extend([action] if isinstance(action, Eject) else [])

    for event, now in cell.calls:
        actions = controller.tick(now) if event is None else controller.handle(event, now)
        carry_out(actions, controller.need_records, write, do, withheld.append)
    assert sent == [] and len(withheld) > 10
    assert controller.handle(Withheld(withheld[0]), cell.calls[-1][1]) == []


def test_ledger_that_takes_nothing_is_a_fault_until_it_does():
    controller = belt_controller(SPEED_MPS, EXIT_MM)
    [log] = controller.handle(LedgerTold("disk full", waiting=True), 0.0)
    assert log.is_error and controller.unit.external_faults["ledger"] == "disk full"
    assert controller.handle(LedgerTold("disk full", waiting=True), 1.0) == [], "told once"
    assert controller.handle(LedgerTold("", waiting=False), 2.0) == []
    assert "ledger" not in controller.unit.external_faults
