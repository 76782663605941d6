"""The way of a cell from the pick place to its tray, judged by a little floor that knows where each cell lies."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from battery_sorting.core.ev.flow import (
    EMPTY,
    PICK,
    Arrived,
    Flow,
    FlowAction,
    FlowEvent,
    FlowLayout,
    Grade,
    Graded,
    LoaderEmpty,
    Move,
    MoveEnded,
    MoveUnknown,
    Regroup,
    Regrouped,
    Test,
    TestEnded,
    TestLost,
    TraysEmptied,
    Warn,
)
from battery_sorting.core.ev.resume import cells_behind_the_station, filled_trays
from battery_sorting.core.ledger import Ledger
from battery_sorting.core.line import Record

TRAYS = {"tray_1": 4, "tray_2": 4, "tray_3": 4, "leftover": 20, "recycle": 20, "quarantine": 20}
LAYOUT = FlowLayout(channels=(1, 2), buffer=12, trays=TRAYS)


class Floor:
    """Robot, tester and grader that answer in any order; two cells in one place are a collision."""

    def __init__(self, layout: FlowLayout = LAYOUT, seed: int = 0) -> None:
        self.flow = Flow(layout)
        self.random = random.Random(seed)
        self.now = 0.0
        self.where: dict[str, str] = {}
        self.todo: list[FlowAction] = []
        self.records: list[Record] = []
        self.warnings: list[str] = []
        self.outcomes: dict[str, list[TestEnded]] = {}
        self.grades: dict[str, list[Graded]] = {}
        self.lose: set[str] = set()
        self.block: set[str] = set()
        self.testing: Counter[int] = Counter()

    def tell(self, event: FlowEvent) -> None:
        self.now += 1
        for action in self.flow.handle(event, self.now):
            if isinstance(action, Record):
                self.records.append(action)
            elif isinstance(action, Warn):
                self.warnings.append(action.code)
            else:
                self.todo.append(action)

    def arrive(self, battery_id: str) -> None:
        assert PICK not in self.where.values()
        self.where[battery_id] = PICK
        self.tell(Arrived(battery_id))

    def step(self) -> bool:
        """Carries out one of the orders that wait."""
        if not self.todo:
            return False
        action = self.todo.pop(self.random.randrange(len(self.todo)))
        if isinstance(action, Move):
            self.move(action)
        elif isinstance(action, Test):
            assert self.where[action.battery_id] == f"channel-{action.channel}"
            planned = self.outcomes.get(action.battery_id)
            self.tell(
                planned.pop(0) if planned else TestEnded(action.battery_id, "measured", {"capacity_ah": 20.0})
            )
        elif isinstance(action, Grade):
            planned_grades = self.grades.get(action.battery_id)
            self.tell(planned_grades.pop(0) if planned_grades else Graded(action.battery_id, "A"))
        elif isinstance(action, Regroup):
            ids = sorted(action.cells)
            whole = len(ids) // 4 * 4
            groups = {battery_id: f"pack {index // 4}" for index, battery_id in enumerate(ids[:whole])}
            self.tell(Regrouped(groups, dict.fromkeys(ids[whole:], "too_few")))
        return True

    def move(self, move: Move) -> None:
        assert self.where[move.battery_id] == move.source
        if move.battery_id in self.lose:
            del self.where[move.battery_id]
            self.tell(MoveEnded(move.battery_id, "", "dropped"))
        elif move.target in self.block:
            self.block.discard(move.target)
            self.tell(MoveEnded(move.battery_id, move.source, "occupied"))
        else:
            assert move.target not in self.where.values(), f"two cells in {move.target}"
            self.where[move.battery_id] = move.target
            self.tell(MoveEnded(move.battery_id, move.target))

    def run(self, cells: int) -> None:
        arrived = 0
        while True:
            if arrived < cells and self.flow.may_load and PICK not in self.where.values():
                self.arrive(f"cell {arrived:02d}")
                arrived += 1
                if arrived == cells:
                    self.tell(LoaderEmpty(True))
            elif not self.step():
                assert arrived == cells, "the flow has come to a stop"
                return

    @property
    def disposed(self) -> dict[str, str]:
        ended = [record for record in self.records if record.kind == "disposed"]
        assert len({record.battery_id for record in ended}) == len(ended), "disposed twice"
        return {str(record.battery_id): str(record.payload["bin"]) for record in ended}


@pytest.mark.parametrize("seed", range(20))
def test_every_cell_ends_in_the_tray_that_the_ledger_names(seed):
    floor = Floor(seed=seed)
    floor.run(10)
    assert {cell: place.rpartition("-")[0] for cell, place in floor.where.items()} == floor.disposed
    assert Counter(floor.disposed.values()) == {"tray_1": 4, "tray_2": 4, "leftover": 2}
    assert floor.flow.in_flight == 0


@pytest.mark.parametrize("seed", range(5))
def test_cells_of_one_group_share_a_tray(seed):
    floor = Floor(seed=seed)
    floor.run(8)
    groups = {str(r.battery_id): r.payload["group"] for r in floor.records if r.kind == "grouped"}
    trays = {group: {floor.disposed[cell] for cell in groups if groups[cell] == group} for group in groups.values()}
    assert all(len(used) == 1 for used in trays.values())
    assert len(set().union(*trays.values())) == 2


def test_every_order_stands_in_the_ledger_before_it_is_given():
    flow = Flow(LAYOUT)
    actions = flow.handle(Arrived("a"), 0.0)
    assert [type(action).__name__ for action in actions] == ["Record", "Move"]
    assert isinstance(actions[0], Record) and actions[0].kind == "move_ordered"


def test_bad_contact_is_seated_again_and_never_called_a_bad_cell():
    floor = Floor()
    floor.outcomes["cell 00"] = [TestEnded("cell 00", "bad_contact", error="open_contact")]
    floor.run(4)
    assert floor.disposed["cell 00"] == "tray_1"
    moves = [r.payload["place"] for r in floor.records if r.kind == "moved" and r.battery_id == "cell 00"]
    assert [place.partition("-")[0] for place in moves] == ["channel", "buffer", "channel", "buffer", "tray_1"]


def test_contact_that_stays_bad_ends_in_quarantine_with_its_code():
    floor = Floor()
    floor.outcomes["cell 00"] = [TestEnded("cell 00", "bad_contact", error="open_contact") for _ in range(2)]
    floor.run(4)
    assert floor.disposed["cell 00"] == "quarantine"
    reasons = [r.payload["reason"] for r in floor.records if r.kind == "disposed" and r.battery_id == "cell 00"]
    assert reasons == ["open_contact"]


@pytest.mark.parametrize(
    ("graded", "tray"),
    [
        (Graded("cell 00", "D"), "recycle"),
        (Graded("cell 00", "", "invalid"), "quarantine"),
        (Graded("cell 00", "B"), "tray_1"),
    ],
)
def test_grade_decides_the_tray(graded, tray):
    floor = Floor()
    floor.grades["cell 00"] = [graded]
    floor.run(5 if tray != "tray_1" else 4)
    assert floor.disposed["cell 00"] == tray


def test_doubtful_grade_is_measured_once_more():
    floor = Floor()
    floor.grades["cell 00"] = [Graded("cell 00", "A", "re-measure"), Graded("cell 00", "B", "re-measure")]
    floor.run(4)
    assert [r.payload["grade"] for r in floor.records if r.kind == "graded" and r.battery_id == "cell 00"] == [
        "A",
        "B",
    ]
    assert floor.disposed["cell 00"] == "tray_1"


def test_a_cell_that_the_robot_loses_is_never_forgotten():
    floor = Floor()
    floor.lose.add("cell 02")
    floor.run(5)
    assert floor.disposed["cell 02"] == ""
    assert floor.warnings == ["cell_lost"]
    assert len(floor.disposed) == 5


def test_a_move_that_fails_is_reported_and_tried_again():
    floor = Floor()
    floor.block.add("channel-1")
    floor.run(4)
    assert floor.warnings == ["move_failed"]
    assert set(floor.disposed.values()) == {"tray_1"}


@pytest.mark.parametrize("arrived", [False, True])
def test_a_move_whose_end_nobody_saw_is_settled_by_asking_the_robot_again(arrived):
    flow = Flow(LAYOUT)
    [_, move] = flow.handle(Arrived("a"), 0.0)
    assert move == Move("a", PICK, "channel-1")
    [_, again] = flow.handle(MoveUnknown("a"), 1.0)
    assert again == move
    ended = MoveEnded("a", "", EMPTY) if arrived else MoveEnded("a", "channel-1")
    actions = flow.handle(ended, 2.0)
    assert Test("a", 1) in actions
    assert flow.place_of("a") == "channel-1"


def test_an_empty_source_means_a_lost_cell_when_its_move_was_watched():
    flow = Flow(LAYOUT)
    flow.handle(Arrived("a"), 0.0)
    actions = flow.handle(MoveEnded("a", "", EMPTY), 1.0)
    assert [action.code for action in actions if isinstance(action, Warn)] == ["cell_lost"]


def test_a_test_that_was_cut_off_is_done_again_from_its_begin():
    flow = Flow(LAYOUT)
    flow.handle(Arrived("a"), 0.0)
    flow.handle(MoveEnded("a", "channel-1"), 1.0)
    actions = flow.handle(TestLost("a"), 2.0)
    assert Move("a", "channel-1", "buffer-1") in actions
    actions = flow.handle(MoveEnded("a", "buffer-1"), 3.0)
    assert Move("a", "buffer-1", "channel-1") in actions


def test_nothing_moves_while_the_line_is_held():
    flow = Flow(LAYOUT)
    flow.may_move = False
    assert flow.handle(Arrived("a"), 0.0) == []
    flow.may_move = True
    assert isinstance(flow.tick(1.0)[-1], Move)


def test_groups_wait_for_trays_to_be_emptied():
    floor = Floor(FlowLayout((1, 2), 20, {**TRAYS, "tray_3": 0}))
    floor.run(12)
    assert floor.warnings == ["trays_full"]
    assert floor.flow.in_flight == 4
    for cell in [cell for cell, place in floor.where.items() if place.startswith("tray_")]:
        del floor.where[cell]
    floor.tell(TraysEmptied())
    while floor.step():
        pass
    assert floor.flow.in_flight == 0
    assert len(floor.disposed) == 12


def test_each_batch_gets_trays_and_names_of_its_own():
    floor = Floor(FlowLayout((1, 2), 12, TRAYS, batch=4))
    floor.run(12)
    assert Counter(floor.disposed.values()) == {"tray_1": 4, "tray_2": 4, "tray_3": 4}
    groups = {str(r.battery_id): r.payload["group"] for r in floor.records if r.kind == "grouped"}
    assert Counter(groups.values()) == {"pack 0": 4, "pack 0.2": 4, "pack 0.3": 4}


def test_a_full_buffer_is_regrouped_without_waiting_for_cells_that_can_not_come():
    floor = Floor(FlowLayout((1, 2), 4, TRAYS))
    floor.run(8)
    assert Counter(floor.disposed.values()) == {"tray_1": 4, "tray_2": 4}


def test_loading_pauses_while_the_pick_place_is_taken_or_the_buffer_full():
    flow = Flow(FlowLayout((1,), 2, TRAYS))
    assert flow.may_load
    flow.handle(Arrived("a"), 0.0)
    assert not flow.may_load
    flow.handle(MoveEnded("a", "channel-1"), 1.0)
    assert flow.may_load
    flow.handle(Arrived("b"), 2.0)
    assert not flow.may_load


@pytest.mark.parametrize("placed_before", range(1, 8))
def test_a_pack_that_was_being_laid_down_is_finished_in_its_tray(placed_before):
    floor = Floor(FlowLayout((1, 2), 12, {**TRAYS, "tray_1": 8, "tray_2": 8}), seed=placed_before)
    for index in range(9):
        while not floor.flow.may_load:
            floor.step()
        floor.arrive(f"cell {index:02d}")
    floor.tell(LoaderEmpty(True))
    while len(floor.disposed) < placed_before:
        floor.step()
    groups = {str(r.battery_id): r.payload["group"] for r in floor.records if r.kind == "grouped"}
    moving = [action for action in floor.todo if isinstance(action, Move)]
    for action in moving:
        floor.where[action.battery_id] = action.target
    source = {action.battery_id: (action.source, action.target) for action in moving}
    filled = {place: groups[cell] for cell, place in floor.where.items() if cell in floor.disposed}
    open_cells = [
        {"battery_id": cell, "place": source.get(cell, (place, ""))[0], "grade": "A", "group": groups[cell]}
        | ({"target": source[cell][1]} if cell in source else {})
        for cell, place in floor.where.items()
        if cell not in floor.disposed
    ]
    for action in moving:  # the robot has done nothing yet: it is asked again
        floor.where[action.battery_id] = action.source
    floor.flow, floor.todo = Flow(FlowLayout((1, 2), 12, {**TRAYS, "tray_1": 8, "tray_2": 8})), []
    for action in floor.flow.restore(open_cells, 99.0, filled):
        (floor.records if isinstance(action, Record) else floor.todo).append(action)
    while floor.step():
        pass
    assert len(floor.disposed) == 9 and floor.warnings == []
    trays = {group: {floor.disposed[cell] for cell in groups if groups[cell] == group} for group in groups.values()}
    assert all(len(used) == 1 for used in trays.values()), trays
    assert len(set().union(*trays.values())) == len(trays)


def test_what_lies_in_the_trays_follows_from_the_ledger(tmp_path):
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        shift = ledger.begin_shift("ev", "sim", 0.0)
        with ledger.transaction() as tx:
            for number, (group, tray) in enumerate(
                [("pack_1", "tray_1"), ("pack_1", ""), ("", "leftover")], start=1
            ):
                cell = f"0000000a-{number:06d}"
                tx.record("detected", cell, 1.0, trigger_count=number, encoder_count=0)
                tx.record("released", cell, 2.0, outlet="product")
                tx.record("graded", cell, 3.0, grade="A")
                tx.record("grouped", cell, 4.0, group=group, leftover="" if group else "too few")
                tx.record("moved", cell, 5.0, place=f"{tray}-1" if tray else "buffer-2")
                if tray:
                    tx.record("disposed", cell, 6.0, bin=tray, reason="grouped")
        assert filled_trays(ledger, shift) == {"tray_1-1": "pack_1", "leftover-1": ""}
        [waiting] = cells_behind_the_station(ledger, "ev", ("product",))
        assert (waiting["place"], waiting["group"], waiting["grade"]) == ("buffer-2", "pack_1", "A")
        with ledger.transaction() as tx:
            tx.record("command", None, 7.0, command="unsuspend")
        assert filled_trays(ledger, shift) == {}


@pytest.mark.parametrize("seed", range(10))
def test_after_a_restart_every_cell_still_ends_in_one_tray(seed):
    floor = Floor(seed=seed)
    for index in range(6):
        while not floor.flow.may_load:
            floor.step()
        floor.arrive(f"cell {index:02d}")
    for _ in range(seed):
        floor.step()
    moving = [action for action in floor.todo if isinstance(action, Move)]
    for action in moving:  # the robot finishes what it was told
        floor.where[action.battery_id] = action.target
    placed = floor.disposed
    graded = {str(r.battery_id): r.payload["grade"] for r in floor.records if r.kind == "graded"}
    open_cells = [
        {"battery_id": cell, "place": place, "grade": graded.get(cell, "")}
        for cell, place in floor.where.items()
        if cell not in placed
    ]
    floor.flow, floor.todo = Flow(LAYOUT), []
    for action in floor.flow.restore(open_cells, 99.0):
        (floor.records if isinstance(action, Record) else floor.todo).append(action)
    floor.tell(LoaderEmpty(True))
    while floor.step():
        pass
    assert set(floor.disposed) == {f"cell {index:02d}" for index in range(6)}
    assert floor.flow.in_flight == 0
