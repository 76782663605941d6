"""The way of a cell from the pick place to its tray, judged by a little floor that knows where each cell lies."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from battery_sorting.ev.flow import (
    EMPTY,
    OCCUPIED,
    Arrived,
    Flow,
    FlowAction,
    FlowEvent,
    FlowLayout,
    FlowWarning,
    Grade,
    Graded,
    LoaderEmpty,
    Move,
    MoveEnded,
    MoveUnknown,
    MoveWithdrawn,
    PlaceEmptied,
    Regroup,
    Regrouped,
    Test,
    TestEnded,
    TestLost,
    TestNotSafe,
    TraysEmptied,
)
from battery_sorting.ev.places import PICK
from battery_sorting.ev.resume import cells_behind_the_station, filled_trays
from battery_sorting.ledger import Record
from battery_sorting.ledger.events import (
    CellGraded,
    CellGrouped,
    Commanded,
    Detected,
    Disposed,
    Moved,
    MoveOrdered,
    Released,
    ShiftEnded,
    StationFaulted,
)
from battery_sorting.ledger.store import Ledger

TRAYS = {"tray_1": 4, "tray_2": 4, "tray_3": 4, "leftover": 20, "recycle": 20, "quarantine": 20}
MEASURED = {"programme": "capacity", "capacity_ah": 20.0}
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
        self.lose_tests: set[str] = set()
        self.leave_live: set[str] = set()
        self.live: dict[str, str] = {}  # channel's place → cell in it
        self.block: set[str] = set()
        self.testing: Counter[int] = Counter()
        self.called = 0
        self.strange: set[str] = set()

    def tell(self, event: FlowEvent) -> None:
        self.now += 1
        for action in self.flow.handle(event):
            if isinstance(action, Record):
                self.records.append(action)
            elif isinstance(action, FlowWarning):
                self.warnings.append(action.code)
                if action.code != "trays_full":
                    self.called += 1
            else:
                assert not (self.called and isinstance(action, Move)), "a move while a person is being called"
                self.todo.append(action)

    def see_to_it(self) -> None:
        """The line is held for a person, who lets it go on."""
        self.called = 0
        for may_move in (False, True):
            self.flow.may_move = may_move
            for action in self.flow.tick():
                (self.records if isinstance(action, Record) else self.todo).append(action)

    def arrive(self, battery_id: str) -> None:
        assert PICK not in self.where.values()
        self.where[battery_id] = PICK
        self.tell(Arrived(battery_id))

    def step(self) -> bool:
        """Carries out one of the orders that wait."""
        if self.called:
            self.see_to_it()
        if not self.todo:
            return False
        action = self.todo.pop(self.random.randrange(len(self.todo)))
        if isinstance(action, Move):
            self.move(action)
        elif isinstance(action, Test):
            assert self.where[action.battery_id] == f"channel-{action.channel}"
            if action.battery_id in self.lose_tests:
                self.lose_tests.discard(action.battery_id)
                self.tell(TestLost(action.battery_id, "emergency_stop"))
                return True
            if action.battery_id in self.leave_live:
                self.live[self.where[action.battery_id]] = action.battery_id
                self.tell(TestNotSafe(action.battery_id, "the contacts are still closed"))
                return True
            planned = self.outcomes.get(action.battery_id)
            self.tell(planned.pop(0) if planned else TestEnded(action.battery_id, "measured", MEASURED))
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
        assert not {move.source, move.target} & self.live.keys(), "the gripper goes to a live contact"
        if move.battery_id in self.lose:
            del self.where[move.battery_id]
            self.tell(MoveEnded(move.battery_id, "", "dropped"))
        elif move.target in self.block:
            self.block.discard(move.target)
            self.tell(MoveEnded(move.battery_id, move.source, "the robot answered stopped"))
        elif move.target in self.strange:
            self.tell(MoveEnded(move.battery_id, move.source, OCCUPIED))
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
        ended = [record for record in self.records if isinstance(record.data, Disposed)]
        assert len({record.battery_id for record in ended}) == len(ended), "disposed twice"
        return {str(record.battery_id): str(record.data.bin) for record in ended}


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
    groups = {str(r.battery_id): r.data.group for r in floor.records if isinstance(r.data, CellGrouped)}
    trays = {group: {floor.disposed[cell] for cell in groups if groups[cell] == group} for group in groups.values()}
    assert all(len(used) == 1 for used in trays.values())
    assert len(set().union(*trays.values())) == 2


def test_every_order_stands_in_the_ledger_before_it_is_given():
    flow = Flow(LAYOUT)
    actions = flow.handle(Arrived("a"))
    assert [type(action).__name__ for action in actions] == ["Record", "Move"]
    assert isinstance(actions[0], Record) and actions[0].data.KIND == "move_ordered"


def test_bad_contact_is_seated_again_and_never_called_a_bad_cell():
    floor = Floor()
    floor.outcomes["cell 00"] = [TestEnded("cell 00", "bad_contact", error="open_contact")]
    floor.run(4)
    assert floor.disposed["cell 00"] == "tray_1"
    moves = [r.data.place for r in floor.records if isinstance(r.data, Moved) and r.battery_id == "cell 00"]
    assert [place.partition("-")[0] for place in moves] == ["channel", "buffer", "channel", "buffer", "tray_1"]


def test_contact_that_stays_bad_ends_in_quarantine_with_its_code():
    floor = Floor()
    floor.outcomes["cell 00"] = [TestEnded("cell 00", "bad_contact", error="open_contact") for _ in range(2)]
    floor.run(4)
    assert floor.disposed["cell 00"] == "quarantine"
    reasons = [r.data.reason for r in floor.records if isinstance(r.data, Disposed) and r.battery_id == "cell 00"]
    assert reasons == ["open_contact"]


@pytest.mark.parametrize("code", ["overload", "not_measured", "implausible"])
def test_what_was_no_reading_is_on_record_as_such_and_never_gets_a_grade(code):
    # issue 15, A2
    floor = Floor()
    floor.outcomes["cell 00"] = [TestEnded("cell 00", "failed", {"resistance_mohm": math.nan}, error=code)]
    floor.run(4)
    assert floor.disposed["cell 00"] == "quarantine"
    of_cell = [record for record in floor.records if record.battery_id == "cell 00"]
    assert [r.data.reason for r in of_cell if isinstance(r.data, Disposed)] == [code]
    assert not {"measured", "graded"} & {str(record.data.KIND) for record in of_cell}


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
    assert [
        r.data.grade for r in floor.records if isinstance(r.data, CellGraded) and r.battery_id == "cell 00"
    ] == [
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


def test_a_failed_move_is_not_tried_again_before_the_line_was_held_and_goes_on():
    # issue 14, point 5
    flow = Flow(LAYOUT)
    flow.handle(Arrived("a"))
    actions = flow.handle(MoveEnded("a", PICK, "the robot answered stopped"))
    assert [type(action) for action in actions] == [Record, FlowWarning]
    assert flow.tick() == [], "the hold takes a moment"
    flow.may_move = False
    assert flow.tick() == []
    flow.may_move = True
    assert Move("a", PICK, "channel-1") in flow.tick()


def test_a_place_with_a_cell_that_is_not_on_record_is_not_used_until_a_person_has_emptied_it():
    # issue 14, point 5: 15 holds, since every later cell was sent to the occupied channel
    floor = Floor(FlowLayout((1, 2), 12, {**TRAYS, "tray_1": 5}))
    floor.strange = {"channel-1", "buffer-2", "tray_1-3"}
    floor.run(8)
    assert floor.warnings == [], "the line goes on with the other places"
    assert len(floor.disposed) == 8 and "" not in floor.disposed.values()
    assert set(floor.flow.alarms) == {"occupied_channel-1", "occupied_buffer-2", "occupied_tray_1-3"}
    assert "emptied channel-1" in floor.flow.alarms["occupied_channel-1"]
    sent = Counter(r.data.target for r in floor.records if isinstance(r.data, MoveOrdered))
    assert {place: sent[place] for place in floor.strange} == dict.fromkeys(floor.strange, 1)
    floor.tell(PlaceEmptied("channel-1"))
    assert set(floor.flow.alarms) == {"occupied_buffer-2", "occupied_tray_1-3"}
    floor.tell(PlaceEmptied())
    assert floor.flow.alarms == {}


def test_with_every_channel_out_of_use_the_flow_waits_and_goes_on_when_one_is_emptied():
    flow = Flow(LAYOUT)
    flow.handle(Arrived("a"))
    flow.handle(MoveEnded("a", PICK, OCCUPIED))
    assert flow.handle(MoveEnded("a", PICK, OCCUPIED))[-1:] != []
    assert flow.tick() == []
    assert Move("a", PICK, "channel-2") in flow.handle(PlaceEmptied("channel-2"))


# ---- issue 14, a channel that could not be shown to be off ----


@pytest.mark.parametrize("seed", range(10))
def test_nobody_is_sent_to_a_channel_that_may_be_live_until_a_person_has_emptied_it(seed):
    floor = Floor(seed=seed)
    floor.leave_live = {"cell 02"}
    floor.run(8)
    assert floor.warnings == ["not_safe"], "the line was held once, and went on with the other channel"
    [(place, cell)] = floor.live.items()
    assert cell == "cell 02" and floor.flow.place_of(cell) == place
    assert set(floor.disposed) == {f"cell {index:02d}" for index in range(8)} - {cell}
    assert floor.flow.out_of_use == [place] and floor.flow.in_flight == 1
    alarm = floor.flow.alarms[f"not_safe_{place}"]
    assert cell in alarm and "Switch the tester off" in alarm and f"command emptied {place}" in alarm
    floor.tell(PlaceEmptied())  # by a reset: the channel was not named
    assert floor.flow.out_of_use == [place]
    del floor.live[place], floor.where[cell]
    floor.tell(PlaceEmptied(place))
    assert floor.flow.alarms == {} and floor.flow.in_flight == 0
    assert floor.disposed[cell] == "quarantine"
    floor.strange = {"channel-1", "channel-2"} - {place}
    floor.arrive("cell 08")
    while floor.step():
        pass
    used = [r.data.target for r in floor.records if (r.data.KIND, r.battery_id) == ("move_ordered", "cell 08")]
    assert place in used, "it is used again"


def test_a_cell_in_a_channel_that_may_be_live_stays_there_after_a_restart_too(tmp_path):
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        ledger.begin_shift("ev", "sim", 0.0)

        def write(actions: list[FlowAction]) -> None:
            with ledger.transaction() as tx:
                for action in actions:
                    if isinstance(action, Record):
                        tx.record(action.data, action.battery_id, 3.0)

        with ledger.transaction() as tx:
            tx.record(Detected(trigger_count=1, encoder_count=0), "a", 1.0)
            tx.record(Released(outlet="product"), "a", 2.0)
        flow = Flow(LAYOUT)
        for event in (Arrived("a"), MoveEnded("a", "channel-1"), TestNotSafe("a", "no answer")):
            write(flow.handle(event))
        again = Flow(LAYOUT)
        actions = again.restore(cells_behind_the_station(ledger, "ev", ("product",)), filled_trays(ledger, "ev"))
        assert actions == again.tick() == []
        assert again.alarms == flow.alarms and set(again.alarms) == {"not_safe_channel-1"}
        write(again.handle(PlaceEmptied("channel-1")))
        assert cells_behind_the_station(ledger, "ev", ("product",)) == []
        assert filled_trays(ledger, "ev") == {}, "no slot of a tray was filled"


def test_a_move_that_was_not_given_before_the_line_stopped_is_withdrawn_and_decided_anew():
    # issue 14, point 4: what was ordered before an emergency stop is not done after it
    flow = Flow(LAYOUT)
    flow.handle(Arrived("a"))
    flow.may_move = False
    [record] = flow.handle(MoveWithdrawn("a"))
    assert isinstance(record, Record) and record.data == Moved(PICK, "withdrawn")
    assert flow.tick() == []
    flow.may_move = True
    assert Move("a", PICK, "channel-1") in flow.tick()


def test_a_withdrawn_move_whose_first_try_nobody_saw_end_stays_uncertain():
    flow = Flow(LAYOUT)
    flow.handle(Arrived("a"))
    [again] = [action for action in flow.handle(MoveUnknown("a")) if isinstance(action, Move)]
    assert flow.handle(MoveWithdrawn("a"))[-1] == again
    assert Test("a", 1) in flow.handle(MoveEnded("a", "", EMPTY))


def test_a_move_whose_end_nobody_saw_calls_a_person_and_is_asked_for_again_when_the_line_goes_on():
    flow = Flow(LAYOUT)
    flow.handle(Arrived("a"))
    actions = flow.handle(MoveUnknown("a", "the robot's emergency stop was pressed during the move"))
    assert [action.code for action in actions if isinstance(action, FlowWarning)] == ["move_unknown"]
    assert not any(isinstance(action, Move) for action in actions)
    flow.may_move = False
    flow.may_move = True
    assert Move("a", PICK, "channel-1") in flow.tick()


def test_an_order_that_the_robot_did_not_even_try_leaves_the_cell_as_uncertain_as_before():
    flow = Flow(LAYOUT)
    flow.handle(Arrived("a"))
    flow.handle(MoveUnknown("a"))
    actions = flow.handle(MoveEnded("a", PICK, "the robot is in manual mode"))
    assert not any(isinstance(action, Record) for action in actions), "nobody has seen it at its source"
    flow.may_move = False
    flow.may_move = True
    assert Move("a", PICK, "channel-1") in flow.tick()
    assert Test("a", 1) in flow.handle(MoveEnded("a", "", EMPTY)), "it was there already"


def test_a_cell_whose_test_was_ended_by_a_pressed_emergency_stop_is_tested_again_and_not_quarantined():
    # issue 14, point 4
    floor = Floor()
    floor.lose_tests = {"cell 00"}
    floor.run(4)
    assert set(floor.disposed.values()) == {"tray_1"}
    codes = [r.data.code for r in floor.records if isinstance(r.data, StationFaulted)]
    assert codes == ["emergency_stop"]


@pytest.mark.parametrize("arrived", [False, True])
def test_a_move_whose_end_nobody_saw_is_settled_by_asking_the_robot_again(arrived):
    flow = Flow(LAYOUT)
    [_, move] = flow.handle(Arrived("a"))
    assert move == Move("a", PICK, "channel-1")
    [_, again] = flow.handle(MoveUnknown("a"))
    assert again == move
    ended = MoveEnded("a", "", EMPTY) if arrived else MoveEnded("a", "channel-1")
    actions = flow.handle(ended)
    assert Test("a", 1) in actions
    assert flow.place_of("a") == "channel-1"


def test_an_empty_source_means_a_lost_cell_when_its_move_was_watched():
    flow = Flow(LAYOUT)
    flow.handle(Arrived("a"))
    actions = flow.handle(MoveEnded("a", "", EMPTY))
    assert [action.code for action in actions if isinstance(action, FlowWarning)] == ["cell_lost"]


def test_a_test_that_was_cut_off_is_done_again_from_its_begin():
    flow = Flow(LAYOUT)
    flow.handle(Arrived("a"))
    flow.handle(MoveEnded("a", "channel-1"))
    actions = flow.handle(TestLost("a"))
    assert Move("a", "channel-1", "buffer-1") in actions
    actions = flow.handle(MoveEnded("a", "buffer-1"))
    assert Move("a", "buffer-1", "channel-1") in actions


def test_nothing_moves_while_the_line_is_held():
    flow = Flow(LAYOUT)
    flow.may_move = False
    assert flow.handle(Arrived("a")) == []
    flow.may_move = True
    assert isinstance(flow.tick()[-1], Move)


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
    groups = {str(r.battery_id): r.data.group for r in floor.records if isinstance(r.data, CellGrouped)}
    assert Counter(groups.values()) == {"pack 0": 4, "pack 0.2": 4, "pack 0.3": 4}


def test_a_full_buffer_is_regrouped_without_waiting_for_cells_that_can_not_come():
    floor = Floor(FlowLayout((1, 2), 4, TRAYS))
    floor.run(8)
    assert Counter(floor.disposed.values()) == {"tray_1": 4, "tray_2": 4}


def test_loading_pauses_while_the_pick_place_is_taken_or_the_buffer_full():
    flow = Flow(FlowLayout((1,), 2, TRAYS))
    assert flow.may_load
    flow.handle(Arrived("a"))
    assert not flow.may_load
    flow.handle(MoveEnded("a", "channel-1"))
    assert flow.may_load
    flow.handle(Arrived("b"))
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
    groups = {str(r.battery_id): r.data.group for r in floor.records if isinstance(r.data, CellGrouped)}
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
    for action in floor.flow.restore(open_cells, filled):
        (floor.records if isinstance(action, Record) else floor.todo).append(action)
    while floor.step():
        pass
    assert len(floor.disposed) == 9 and floor.warnings == []
    trays = {group: {floor.disposed[cell] for cell in groups if groups[cell] == group} for group in groups.values()}
    assert all(len(used) == 1 for used in trays.values()), trays
    assert len(set().union(*trays.values())) == len(trays)


def test_what_lies_in_the_trays_follows_from_the_ledger(tmp_path):
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        ledger.begin_shift("ev", "sim", 0.0)
        with ledger.transaction() as tx:
            for number, (group, tray) in enumerate(
                [("pack_1", "tray_1"), ("pack_1", ""), ("", "leftover")], start=1
            ):
                cell = f"0000000a-{number:06d}"
                tx.record(Detected(trigger_count=number, encoder_count=0), cell, 1.0)
                tx.record(Released(outlet="product"), cell, 2.0)
                tx.record(CellGraded(grade="A"), cell, 3.0)
                tx.record(CellGrouped(group=group, leftover="" if group else "too few"), cell, 4.0)
                tx.record(Moved(place=f"{tray}-1" if tray else "buffer-2"), cell, 5.0)
                if tray:
                    tx.record(Disposed(bin=tray, reason="grouped"), cell, 6.0)
        held = {"tray_1-1": "pack_1", "leftover-1": ""}
        assert filled_trays(ledger, "ev") == held
        [waiting] = cells_behind_the_station(ledger, "ev", ("product",))
        assert (waiting["place"], waiting["group"], waiting["grade"]) == ("buffer-2", "pack_1", "A")
        with ledger.transaction() as tx:
            tx.record(Commanded(command="unsuspend"), None, 7.0)
            tx.record(Commanded(command="emptied", bin="hazardous"), None, 7.0)
        assert filled_trays(ledger, "ev") == held
        ledger.end_shift(8.0, ShiftEnded(trays=filled_trays(ledger, "ev")))
        ledger.begin_shift("ev", "sim", 9.0)
        assert filled_trays(ledger, "ev") == held, "a new shift empties no tray"
        with ledger.transaction() as tx:
            tx.record(Commanded(command="emptied", bin="trays"), None, 10.0)
        assert filled_trays(ledger, "ev") == {}


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
    graded = {str(r.battery_id): r.data.grade for r in floor.records if isinstance(r.data, CellGraded)}
    open_cells = [
        {"battery_id": cell, "place": place, "grade": graded.get(cell, "")}
        for cell, place in floor.where.items()
        if cell not in placed
    ]
    floor.flow, floor.todo = Flow(LAYOUT), []
    for action in floor.flow.restore(open_cells):
        (floor.records if isinstance(action, Record) else floor.todo).append(action)
    floor.tell(LoaderEmpty(True))
    while floor.step():
        pass
    assert set(floor.disposed) == {f"cell {index:02d}" for index in range(6)}
    assert floor.flow.in_flight == 0
