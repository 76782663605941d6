"""The way of a cell after its inspection: pick place → tester channel → buffer → tray.

`Flow` is a pure machine. It keeps where every cell is, moves one at a time (there is one robot), tests as many at
once as there are channels, and hands a batch to grading and regrouping. What it orders is recorded before it is
done, and after a crash it is rebuilt from these records (`Flow.restore`): no cell is moved twice or forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from battery_sorting.core.types import NOWHERE
from battery_sorting.ev.places import (
    BUFFER,
    FIXED_TRAYS,
    LEFTOVER_TRAY,
    PICK,
    QUARANTINE_TRAY,
    RECYCLE_TRAY,
    channel_place,
    holder,
    in_buffer,
    in_channel,
    place_number,
    slot_place,
)
from battery_sorting.ledger import Record
from battery_sorting.ledger.events import (
    CellGraded,
    CellGrouped,
    CellMeasured,
    Disposed,
    Moved,
    MoveOrdered,
    StationFaulted,
)

EMPTY = "empty"
"""Error of a move whose source had no cell."""
OCCUPIED = "occupied"
"""Error of a move whose target had a cell; the one that was carried is back at its source."""
_OCCUPIED = "occupied_"
"""Begin of the code of the alarm that names such a place."""
NOT_SAFE = "not_safe"
"""Code of a test after which nobody could confirm that the channel's current is off."""
_NOT_SAFE = f"{NOT_SAFE}_"
"""Begin of the code of the alarm that names such a channel's place."""
_SPOILT = (_OCCUPIED, _NOT_SAFE)


class Stage(str, Enum):
    """Where a cell stands on its way."""

    WAITING = "waiting"
    TESTING = "testing"
    TESTED = "tested"
    BUFFERED = "buffered"
    ASSIGNED = "assigned"
    PLACED = "placed"
    LOST = "lost"
    NOT_SAFE = "not_safe"


@dataclass(frozen=True, slots=True)
class FlowLayout:
    """The places behind the station.

    Attributes:
        channels: Channels of the tester.
        buffer: Slots in which measured cells wait for their group.
        trays: Name → slots. Those of `FIXED_TRAYS` must be among them; the others take a group each.
        batch: So many measured cells are regrouped at once; 0: when the loader is empty and all are measured.
        reseats: So often a cell with bad contacts, or a doubtful grade, is seated and tested again.
        reject: Grades that go to the recycling tray.
    """

    channels: tuple[int, ...]
    buffer: int
    trays: Mapping[str, int]
    batch: int = 0
    reseats: int = 1
    reject: frozenset[str] = frozenset({"D"})


# ---- events ----


@dataclass(frozen=True, slots=True)
class Arrived:
    """The station has released a good cell to the pick place."""

    battery_id: str


@dataclass(frozen=True, slots=True)
class MoveEnded:
    """The robot has done with a move. ``place`` is where the cell is now, empty if nobody knows."""

    battery_id: str
    place: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class MoveUnknown:
    """Nobody saw the end of a move: the cell is at either place. ``error`` says why; empty if a node has died."""

    battery_id: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class MoveWithdrawn:
    """A move was not given to the robot, since the line has stopped moving: the cell is where it was."""

    battery_id: str


@dataclass(frozen=True, slots=True)
class TestLost:
    """A test was cut off by what has nothing to do with the cell, which is safe: it is tested again.

    ``error`` is ``emergency_stop``, or empty if who was testing it has died.
    """

    __test__ = False

    battery_id: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class TestNotSafe:
    """A test is over, and nobody could confirm that the channel's current is off: the cell must not be touched."""

    __test__ = False

    battery_id: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class TestEnded:
    """A test is over. ``outcome`` is measured, bad_contact, failed or cancelled."""

    __test__ = False  # no test class of pytest's

    battery_id: str
    outcome: str
    measurement: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, slots=True)
class Graded:
    """The grade of a cell: A, B, C, D; ``status`` is ok, invalid or re-measure."""

    battery_id: str
    grade: str
    status: str = "ok"
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Regrouped:
    """Groups of a batch: cell → name of its group, or the reason why it is left over."""

    groups: Mapping[str, str]
    leftover: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LoaderEmpty:
    """Whether the loader has cells."""

    empty: bool


@dataclass(frozen=True, slots=True)
class TraysEmptied:
    """A person has taken the placed cells away."""


@dataclass(frozen=True, slots=True)
class PlaceEmptied:
    """A person has taken out what lay in a place that is out of use.

    Without a place: in all that were found occupied. A channel that may be live must be named.
    """

    place: str = ""


FlowEvent = (
    Arrived
    | MoveEnded
    | MoveUnknown
    | MoveWithdrawn
    | TestEnded
    | TestLost
    | TestNotSafe
    | Graded
    | Regrouped
    | LoaderEmpty
    | TraysEmptied
    | PlaceEmptied
)


# ---- actions ----


@dataclass(frozen=True, slots=True)
class Move:
    """Order to the robot."""

    battery_id: str
    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Test:
    """Order to the tester."""

    __test__ = False

    battery_id: str
    channel: int


@dataclass(frozen=True, slots=True)
class Grade:
    """Let the grader look at a measurement."""

    battery_id: str
    measurement: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Regroup:
    """Let the grader regroup a batch: cell → its measurement and grade."""

    cells: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class FlowWarning:
    """Something that a person must see to."""

    code: str
    text: str


FlowAction = Record | Move | Test | Grade | Regroup | FlowWarning


@dataclass
class _Cell:
    battery_id: str
    place: str
    stage: Stage = Stage.WAITING
    target: str = ""
    measurement: dict[str, Any] = field(default_factory=dict)
    grade: str = ""
    reason: str = ""
    reseats: int = 0
    uncertain: str = ""  # it may already be at this place


class Flow:
    """Where every cell behind the station is, and what happens to it next.

    A place in which the robot finds a cell that is not on record is not used any more, until a person says that it
    is empty. So is a channel that could not be shown to be without current; its cell stays in it until then. Any
    other move that fails is not tried again before the line was held and goes on.

    Attributes:
        alarms: Code → text of what a person must see to while the line goes on.
    """

    def __init__(self, layout: FlowLayout) -> None:
        self.alarms: dict[str, str] = {}
        self._may_move = True
        self._in_trouble = False  # a person is being called: nothing moves until the line has been held
        self._layout = layout
        self._cells: dict[str, _Cell] = {}
        self._moving: Move | None = None
        self._regrouping: frozenset[str] = frozenset()
        self._group_trays: dict[str, str] = {}
        self._filled: set[str] = set()  # slots of trays that were filled before a restart
        self._loader_empty = False
        self._no_tray_said = False
        self._out: list[FlowAction] = []

    # ---- what others see ----

    @property
    def may_move(self) -> bool:
        """Whether the robot may be given another move; False while the line is held."""
        return self._may_move

    @may_move.setter
    def may_move(self, value: bool) -> None:
        self._may_move = value
        if not value:
            self._in_trouble = False  # the line has stopped; when it goes on, somebody has seen to it

    @property
    def may_load(self) -> bool:
        """Whether the station may release another good cell: its pick place is free, and the buffer has room."""
        waiting = any(cell.place == PICK for cell in self._cells.values())
        return not waiting and self.in_flight < self._layout.buffer

    @property
    def in_flight(self) -> int:
        """Cells that are not in a tray yet."""
        return sum(cell.stage not in {Stage.PLACED, Stage.LOST} for cell in self._cells.values())

    def place_of(self, battery_id: str) -> str:
        """Where a cell is; empty if it is not known."""
        cell = self._cells.get(battery_id)
        return "" if cell is None else cell.place

    # ---- what comes in ----

    def handle(self, event: FlowEvent) -> list[FlowAction]:
        """Something has happened. An event of a cell that is not known, or not due, changes nothing."""
        if isinstance(event, Arrived):
            self._cells.setdefault(event.battery_id, _Cell(event.battery_id, PICK))
        elif isinstance(event, MoveEnded):
            self._on_moved(event)
        elif isinstance(event, MoveUnknown):
            self._on_move_unknown(event)
        elif isinstance(event, MoveWithdrawn):
            self._on_withdrawn(event)
        elif isinstance(event, PlaceEmptied):
            self._use_again(event.place)
        elif isinstance(event, TestEnded):
            self._on_tested(event)
        elif isinstance(event, TestLost):
            self._on_test_lost(event)
        elif isinstance(event, TestNotSafe):
            self._on_not_safe(event)
        elif isinstance(event, Graded):
            self._on_graded(event)
        elif isinstance(event, Regrouped):
            self._on_regrouped(event)
        elif isinstance(event, LoaderEmpty):
            self._loader_empty = event.empty
        else:
            self._forget_placed()
        self._go_on()
        return self._flush()

    def tick(self) -> list[FlowAction]:
        """Go on where something had to wait."""
        self._go_on()
        return self._flush()

    def restore(
        self, cells: Iterable[Mapping[str, Any]], filled: Mapping[str, str] | None = None
    ) -> list[FlowAction]:
        """Take up the cells of the ledger after a restart.

        Args:
            cells: Per open cell ``battery_id``, ``place`` (empty if it is not known), and, where there are such,
                ``measurement``, ``grade``, ``group`` (empty: left over), ``target`` of a move that was ordered
                and not reported, and ``not_safe`` where the cell lies in a channel that may be live.
            filled: Slots of trays that were filled before → group of the cell there, empty for none.
        """
        for place, group in (filled or {}).items():
            self._filled.add(place)
            if group:
                self._group_trays[group] = holder(place)
        for entry in cells:
            cell = _Cell(str(entry["battery_id"]), str(entry["place"]))
            cell.measurement = dict(entry.get("measurement") or {})
            cell.grade = str(entry.get("grade") or "")
            self._cells[cell.battery_id] = cell
            cell.uncertain = str(entry.get("target") or "")
            if not cell.place:
                self._lose(cell, "its place is not known after a restart")
            elif entry.get(NOT_SAFE):
                self._leave_alone(cell)
            elif "group" in entry:
                group = str(entry["group"])
                self._send_to(cell, group or LEFTOVER_TRAY, "grouped" if group else "leftover")
            elif cell.uncertain:
                cell.stage = Stage.TESTED if cell.grade else Stage.WAITING
            elif in_channel(cell.place):
                # Its test was cut off: whatever was measured of it is not to be trusted.
                cell.stage, cell.measurement, cell.grade = Stage.WAITING, {}, ""
            elif cell.place != PICK:
                cell.stage = Stage.BUFFERED if cell.grade else Stage.WAITING
        self._go_on()
        return self._flush()

    # ---- events ----

    def _on_moved(self, event: MoveEnded) -> None:
        move = self._moving
        if move is None or move.battery_id != event.battery_id:
            return
        self._moving = None
        cell = self._cells[event.battery_id]
        if cell.uncertain and event.place and event.error not in {"", EMPTY, OCCUPIED}:
            # The robot has not even tried: as before, nobody knows whether the cell lies at its target already.
            self._warn("move_failed", f"cell {cell.battery_id} could not be looked for: {event.error}")
            return
        # Not at its source, and the robot was on its way to the target when it was last heard of: it is there.
        cell.place = move.target if cell.uncertain and event.error == EMPTY else event.place
        cell.uncertain = ""
        self._out.append(Record(Moved(cell.place, event.error), cell.battery_id))
        if not cell.place:
            self._lose(cell, f"the robot has lost it: {event.error}")
        elif cell.place == move.target:
            self._on_place(cell)
        elif event.error == OCCUPIED:
            self._out_of_use(move.target)
        else:
            self._warn("move_failed", f"cell {cell.battery_id} could not be moved to {move.target}: {event.error}")

    def _on_move_unknown(self, event: MoveUnknown) -> None:
        move = self._moving
        if move is not None and move.battery_id == event.battery_id:
            self._moving = None
            self._cells[event.battery_id].uncertain = move.target
            if event.error:
                text = f"nobody saw where cell {event.battery_id} was carried to: {event.error}"
                self._warn("move_unknown", f"{text}: it is ordered once more when the line goes on")

    def _on_withdrawn(self, event: MoveWithdrawn) -> None:
        move = self._moving
        if move is None or move.battery_id != event.battery_id:
            return
        self._moving = None
        cell = self._cells[event.battery_id]
        if not cell.uncertain:  # else the robot was asked before, and it stays unknown what came of that
            self._out.append(Record(Moved(cell.place, "withdrawn"), cell.battery_id))

    @property
    def out_of_use(self) -> list[str]:
        """Places that a person must empty: something lies there that nobody knows of, or may be live."""
        return [code.removeprefix(begin) for code in self.alarms for begin in _SPOILT if code.startswith(begin)]

    def _out_of_use(self, place: str) -> None:
        """Something lies there that is not on record. Every later cell would be sent there in vain."""
        self.alarms[_OCCUPIED + place] = (
            f"{place} holds a cell that is not on record and is not used any more: take it out, put it where its "
            f"record says, then command emptied {place}"
        )

    def _use_again(self, place: str) -> None:
        if not place:
            # A live channel is no matter of "what is still there is found again": it is settled by its name only.
            self.alarms = {code: text for code, text in self.alarms.items() if code.startswith(_NOT_SAFE)}
            return
        self.alarms.pop(_OCCUPIED + place, None)
        if self.alarms.pop(_NOT_SAFE + place, None) is None:
            return
        for cell in self._cells.values():
            if cell.stage is Stage.NOT_SAFE and cell.place == place:
                self._taken_out(cell)

    def _usable(self, place: str) -> bool:
        return not any(begin + place in self.alarms for begin in _SPOILT)

    def _on_not_safe(self, event: TestNotSafe) -> None:
        """Neither its test nor its cell is the trouble: the robot's gripper would go onto a live contact."""
        cell = self._cells.get(event.battery_id)
        if cell is not None and cell.stage is Stage.TESTING:
            self._note(cell, NOT_SAFE, event.text or "it could not be confirmed that the current is off")
            self._leave_alone(cell)
            self._warn(NOT_SAFE, self.alarms[_NOT_SAFE + cell.place])

    def _leave_alone(self, cell: _Cell) -> None:
        cell.stage, cell.measurement, cell.grade = Stage.NOT_SAFE, {}, ""
        self.alarms[_NOT_SAFE + cell.place] = (
            f"{cell.place} may be live: it could not be confirmed that its current is off. Switch the tester off, "
            f"check that the contacts are dead, take cell {cell.battery_id} out by hand and put it into quarantine "
            f"(into no slot of a tray), then command emptied {cell.place}"
        )

    def _taken_out(self, cell: _Cell) -> None:
        """By hand, into no slot of a tray."""
        cell.stage, cell.place = Stage.PLACED, ""
        self._out.append(Record(Moved("", "taken_out"), cell.battery_id))
        self._out.append(Record(Disposed(QUARANTINE_TRAY, NOT_SAFE), cell.battery_id))

    def _on_test_lost(self, event: TestLost) -> None:
        cell = self._cells.get(event.battery_id)
        if cell is not None and cell.stage is Stage.TESTING:
            code = event.error or "tester_lost"
            self._note(cell, code, "the test was cut off: it is seated and tested again")
            cell.stage, cell.measurement, cell.grade = Stage.WAITING, {}, ""

    def _on_place(self, cell: _Cell) -> None:
        if in_channel(cell.place):
            cell.stage = Stage.TESTING
            self._out.append(Test(cell.battery_id, place_number(cell.place)))
        elif in_buffer(cell.place):
            if cell.stage is Stage.TESTED:  # else it is seated again
                cell.stage = Stage.BUFFERED
        else:
            cell.stage = Stage.PLACED
            tray = holder(cell.place)
            self._out.append(Record(Disposed(tray, cell.reason or "grouped"), cell.battery_id))

    def _on_tested(self, event: TestEnded) -> None:
        cell = self._cells.get(event.battery_id)
        if cell is None or cell.stage is not Stage.TESTING:
            return
        if event.outcome == "measured":
            cell.measurement = dict(event.measurement)
            self._out.append(Record(CellMeasured(**event.measurement), cell.battery_id))
            self._out.append(Grade(cell.battery_id, cell.measurement))
        elif event.outcome == "bad_contact" and cell.reseats < self._layout.reseats:
            cell.reseats += 1
            self._note(cell, event.error or "bad_contact", "seated again")
            cell.stage = Stage.WAITING  # by way of the buffer, so that the contacts are closed anew
            cell.target = self._free_slot(BUFFER, self._layout.buffer)
        else:
            code = event.error or event.outcome
            self._note(cell, code, f"the test ended as {event.outcome}")
            self._send_to(cell, QUARANTINE_TRAY, code)

    def _on_graded(self, event: Graded) -> None:
        cell = self._cells.get(event.battery_id)
        if cell is None or cell.stage is not Stage.TESTING:
            return
        graded = CellGraded(event.grade, event.status, **event.payload)
        self._out.append(Record(graded, cell.battery_id))
        cell.grade = event.grade
        if event.status == "re-measure" and cell.reseats < self._layout.reseats:
            cell.reseats += 1
            cell.stage = Stage.TESTING
            self._out.append(Test(cell.battery_id, place_number(cell.place)))
        elif event.status == "invalid" or not event.grade:
            self._send_to(cell, QUARANTINE_TRAY, "invalid_measurement")
        elif event.grade in self._layout.reject:
            self._send_to(cell, RECYCLE_TRAY, f"grade_{event.grade.lower()}")
        else:
            cell.stage = Stage.TESTED

    def _on_regrouped(self, event: Regrouped) -> None:
        # Every batch begins with the same names: a group gets one that no group has that is still here.
        taken = {*self._group_trays, *(cell.target for cell in self._cells.values())}
        names = {group: _unused(group, taken) for group in set(event.groups.values())}
        for battery_id in self._regrouping:
            cell = self._cells.get(battery_id)
            if cell is None or cell.stage is not Stage.BUFFERED:
                continue
            group = names.get(event.groups.get(battery_id, ""), "")
            reason = event.leftover.get(battery_id, "" if group else "not_grouped")
            self._out.append(Record(CellGrouped(group, reason), battery_id))
            if group:
                cell.stage, cell.target, cell.reason = Stage.ASSIGNED, group, "grouped"
            else:
                self._send_to(cell, LEFTOVER_TRAY, "leftover")  # why, says its record as grouped
        self._regrouping = frozenset()

    def _forget_placed(self) -> None:
        self._cells = {key: cell for key, cell in self._cells.items() if cell.stage is not Stage.PLACED}
        self._group_trays.clear()
        self._filled.clear()
        self._no_tray_said = False
        for tray, slots in self._layout.trays.items():
            for slot in range(1, slots + 1):
                self.alarms.pop(_OCCUPIED + slot_place(tray, slot), None)

    # ---- what happens next ----

    def _go_on(self) -> None:
        self._regroup_if_due()
        if self._moving is None and self._may_move and not self._in_trouble:
            move = self._next_move()
            if move is not None:
                self._moving = move
                self._out.append(Record(MoveOrdered(move.source, move.target), move.battery_id))
                self._out.append(move)

    def _regroup_if_due(self) -> None:
        if self._regrouping:
            return
        ready = [cell for cell in self._cells.values() if cell.stage is Stage.BUFFERED]
        on_their_way = {Stage.WAITING, Stage.TESTING, Stage.TESTED}
        all_measured = not any(cell.stage in on_their_way for cell in self._cells.values())
        full = bool(self._layout.batch) and len(ready) >= self._layout.batch
        # A full buffer lets no cell in: those that are there must do.
        no_more_come = self._loader_empty or self.in_flight >= self._layout.buffer
        if ready and (full or (no_more_come and all_measured)):
            self._regrouping = frozenset(cell.battery_id for cell in ready)
            cells = {cell.battery_id: {**cell.measurement, "grade": cell.grade} for cell in ready}
            self._out.append(Regroup(cells))

    def _next_move(self) -> Move | None:
        """Channels are freed first, then filled; cells go to their trays when there is nothing better to do."""
        for choose in (self._uncertain_again, self._out_of_a_channel, self._into_a_channel, self._into_a_tray):
            move = choose()
            if move is not None:
                return move
        return None

    def _uncertain_again(self) -> Move | None:
        """A move whose end nobody saw is ordered once more; an empty source then says that it had been done."""
        for cell in self._cells.values():
            if cell.uncertain and cell.stage is not Stage.LOST:
                return Move(cell.battery_id, cell.place, cell.uncertain)
        return None

    def _out_of_a_channel(self) -> Move | None:
        for cell in self._cells.values():
            if not in_channel(cell.place):
                continue
            if cell.stage is Stage.TESTED:
                slot = self._free_slot(BUFFER, self._layout.buffer)
                if slot:
                    return Move(cell.battery_id, cell.place, slot)
            elif cell.stage is Stage.ASSIGNED:
                return self._to_tray(cell)
            elif cell.stage is Stage.WAITING and in_buffer(cell.target):
                target, cell.target = cell.target, ""
                return Move(cell.battery_id, cell.place, target)
        return None

    def _into_a_channel(self) -> Move | None:
        taken = {cell.place for cell in self._cells.values()}
        places = [channel_place(number) for number in self._layout.channels]
        free = [place for place in places if place not in taken and self._usable(place)]
        for cell in self._cells.values():
            if cell.stage is not Stage.WAITING:
                continue
            if in_channel(cell.place):  # taken up after a restart: to be seated again
                slot = self._free_slot(BUFFER, self._layout.buffer)
                if slot:
                    return Move(cell.battery_id, cell.place, slot)
            elif free:
                return Move(cell.battery_id, cell.place, free[0])
        return None

    def _into_a_tray(self) -> Move | None:
        for cell in self._cells.values():
            if cell.stage is Stage.ASSIGNED and not in_channel(cell.place):
                move = self._to_tray(cell)
                if move is not None:
                    return move
        return None

    def _to_tray(self, cell: _Cell) -> Move | None:
        tray = cell.target if cell.target in FIXED_TRAYS else self._tray_of(cell.target)
        slot = self._free_slot(tray, self._layout.trays[tray]) if tray else ""
        if slot:
            return Move(cell.battery_id, cell.place, slot)
        if not self._no_tray_said:
            self._no_tray_said = True
            remedy = "empty the trays, tell the line by 'emptied trays', then unsuspend it"
            text = f"no tray has room for group {cell.target}: {remedy}"
            self._out.append(FlowWarning("trays_full", text))
        return None

    def _tray_of(self, group: str) -> str:
        """The tray of a group: its own, or the next empty one."""
        if group not in self._group_trays:
            used = {*self._group_trays.values(), *(holder(place) for place in self._filled)}
            size = sum(cell.target == group for cell in self._cells.values())
            for tray, slots in self._layout.trays.items():
                room = sum(self._usable(slot_place(tray, slot)) for slot in range(1, slots + 1))
                if tray not in FIXED_TRAYS and tray not in used and room >= size:
                    self._group_trays[group] = tray
                    break
        return self._group_trays.get(group, "")

    # ---- little helpers ----

    def _send_to(self, cell: _Cell, tray: str, reason: str) -> None:
        cell.stage, cell.target, cell.reason = Stage.ASSIGNED, tray, reason

    def _note(self, cell: _Cell, code: str, text: str) -> None:
        self._out.append(Record(StationFaulted(code, text, "test"), cell.battery_id))

    def _lose(self, cell: _Cell, text: str) -> None:
        cell.stage = Stage.LOST
        self._out.append(Record(Disposed(NOWHERE, "unaccounted"), cell.battery_id))
        self._warn("cell_lost", f"cell {cell.battery_id} must be looked for: {text}")

    def _warn(self, code: str, text: str) -> None:
        """The line is to be held for a person; that takes a moment, in which nothing may move."""
        self._in_trouble = True
        self._out.append(FlowWarning(code, text))

    def _free_slot(self, name: str, slots: int) -> str:
        taken = {cell.place for cell in self._cells.values()} | {cell.target for cell in self._cells.values()}
        taken |= self._filled
        if self._moving is not None:
            taken.add(self._moving.target)
        places = [slot_place(name, slot) for slot in range(1, slots + 1)]
        return next((place for place in places if place not in taken and self._usable(place)), "")

    def _flush(self) -> list[FlowAction]:
        out, self._out = self._out, []
        return out


def _unused(name: str, taken: set[str]) -> str:
    """``name``, or that with a number behind it."""
    candidates = (name, *(f"{name}.{number}" for number in range(2, len(taken) + 3)))
    return next(candidate for candidate in candidates if candidate not in taken)
