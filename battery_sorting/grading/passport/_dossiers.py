"""What the ledger holds of each cell and pack, and whether it may go into a passport."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from battery_sorting.core.errors import ConfigurationError, LedgerError
from battery_sorting.core.types import NOWHERE
from battery_sorting.grading.packing.layout import Layout
from battery_sorting.ledger import BatteryRecord, DataT, Event, Shift
from battery_sorting.ledger.events import (
    CellGraded,
    CellGrouped,
    CellMeasured,
    Disposed,
    Looked,
    Moved,
    StationFaulted,
)
from battery_sorting.ledger.store import Ledger

KINDS = (Looked, StationFaulted, Moved, CellMeasured, CellGraded, CellGrouped, Disposed)
OF_A_CELL = (Looked, CellMeasured)
"""Events that no battery on a belt has."""
NOT_REAL = re.compile(r"simulat|battery_sorting\.plant", re.IGNORECASE)
"""In the name of an instrument (``*IDN?`` of the simulated ones begins with SIMULATED) or of a driver."""
INSTRUMENTS = {
    "instrument": ("resistance_mohm", "ocv_v"),
    "capacity_instrument": ("capacity_ah",),
}
"""Field of a measurement → what was measured by it."""
STILL_OPEN = "still in the line"
UNACCOUNTED = "unaccounted for"


@dataclass(frozen=True)
class Dossier:
    """All that the ledger holds of one cell.

    Attributes:
        battery: Its state.
        events: Its events of `KINDS`, oldest first.
        shifts: The shifts that it was in, oldest first.
        same_code: Other cells of the ledger on which the same code was read.
    """

    battery: BatteryRecord
    events: tuple[Event[Any], ...]
    shifts: tuple[Shift, ...]
    same_code: tuple[str, ...] = ()

    @property
    def battery_id(self) -> str:
        """Name of the cell in the line."""
        return self.battery.battery_id

    @cached_property
    def measured(self) -> Event[CellMeasured] | None:
        """The last measurement."""
        return self._last(CellMeasured)

    @cached_property
    def graded(self) -> Event[CellGraded] | None:
        """The grade of the last measurement."""
        last, measured = self._last(CellGraded), self.measured
        return last if last is not None and measured is not None and last.event_id > measured.event_id else None

    @cached_property
    def grouped(self) -> Event[CellGrouped] | None:
        """The last word on its group."""
        return self._last(CellGrouped)

    @property
    def shift(self) -> Shift:
        """The shift in which it was measured, or else came in: its configuration counts."""
        number = self.battery.shift_id if self.measured is None else self.measured.shift_id
        return next((shift for shift in self.shifts if shift.shift_id == number), self.shifts[-1])

    def looks(self, view: str) -> list[Event[Looked]]:
        """All looks at a view, oldest first."""
        return [event for event in self.all_of(Looked) if event.data.view == view]

    @property
    def codes(self) -> tuple[str, ...]:
        """Codes that were read at the last look at each view, each once."""
        last = [look for view in ("lug", "case") for look in self.looks(view)[-1:]]
        return tuple(dict.fromkeys(look.data.code for look in last if look.data.code))

    def simulated_by(self) -> list[str]:
        """What shows that these results are of simulated devices; empty if nothing does."""
        found = [text for shift in self.shifts for text in _simulated_in(shift)]
        for event in self.all_of(CellMeasured):
            for key in INSTRUMENTS:
                name = getattr(event.data, key)
                if NOT_REAL.search(name):
                    found.append(f"it was measured by the simulated instrument '{name}'")
        return list(dict.fromkeys(found))

    def untraceable(self) -> list[str]:
        """What keeps it from being shown that these results are of real devices; empty if nothing does."""
        found = [
            f"shift {shift.shift_id} has no configuration of an EV line on record, so nothing shows that its "
            "devices are real"
            for shift in self.shifts
            if "plant" not in _site(shift)
        ]
        if self.measured is not None:
            data = self.measured.data
            for key, values in INSTRUMENTS.items():
                if not getattr(data, key) and any(getattr(data, value) is not None for value in values):
                    found.append(f"no instrument is on record for {' and '.join(values)}")
        return found

    def all_of(self, kind: type[DataT]) -> list[Event[DataT]]:
        """All its events of a kind, oldest first."""
        return [event for event in self.events if isinstance(event.data, kind)]

    def _last(self, kind: type[DataT]) -> Event[DataT] | None:
        return next(reversed(self.all_of(kind)), None)


@dataclass(frozen=True)
class Pack:
    """The cells that were put together to a pack.

    Attributes:
        pack_id: ``LINE-SHIFT-BATCH-GROUP``. Names of groups begin anew with every batch, so they don't do alone.
        shift: The shift in which they were put together.
        group: Name of the group within its batch.
        layout: What the recipe of the shift wants a pack to be.
        cells: Its cells, by their names.
    """

    pack_id: str
    shift: Shift
    group: str
    layout: Layout
    cells: tuple[Dossier, ...]

    @property
    def tray(self) -> str:
        """Where its cells lie."""
        return str(self.cells[0].battery.bin)


@dataclass
class Selection:
    """What there is to make passports of.

    Attributes:
        cells: Cells whose last word is on record, in the order of their arrival.
        packs: Complete packs of such cells.
        pack_of: Cell → its pack.
        skipped: Cell or pack → why it gets no passport.
    """

    cells: list[Dossier] = field(default_factory=list)
    packs: list[Pack] = field(default_factory=list)
    pack_of: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def collect(ledger: Ledger, shift_id: int | None = None) -> Selection:
    """The cells and packs of all EV shifts of a ledger, or of one: what came in or was put together in it.

    Raises:
        LedgerError: The ledger has no such shift, or none of an EV line.
    """
    # The line may run meanwhile. In this order, a cell whose last word is read has all its events read after it.
    batteries = ledger.batteries()
    events: dict[str, list[Event[Any]]] = defaultdict(list)
    for event in ledger.each_event(kinds=KINDS):
        events[str(event.battery_id)].append(event)
    shifts = {shift.shift_id: shift for shift in ledger.shifts()}
    if shift_id is not None and shift_id not in shifts:
        known = ", ".join(map(str, list(shifts)[-10:])) or "none"
        raise LedgerError(f"{ledger.name}: has no shift {shift_id}; its last shifts are {known}")
    ev = {number for number, shift in shifts.items() if not _of_another_line(shift)}
    if not ev & ({shift_id} if shift_id is not None else set(shifts)):
        which = "no shift" if shift_id is None else f"shift {shift_id} is none"
        raise LedgerError(f"{ledger.name}: {which} of an EV line; only its cells are measured and get a passport")
    selection = Selection()
    dossiers: dict[str, Dossier] = {}
    for battery in batteries:
        if battery.shift_id not in ev:
            continue
        of_it = tuple(events[battery.battery_id])
        if not _site(shifts[battery.shift_id]) and not any(isinstance(event.data, OF_A_CELL) for event in of_it):
            continue  # no settings on record, and nothing that is done to cells only
        numbers = sorted({battery.shift_id, *(event.shift_id for event in of_it)} & shifts.keys())
        dossiers[battery.battery_id] = Dossier(battery, of_it, tuple(shifts[number] for number in numbers))
    dossiers = _with_same_codes(dossiers)
    for name, dossier in dossiers.items():
        if dossier.battery.bin is None:
            selection.skipped[name] = STILL_OPEN
        elif dossier.battery.bin == NOWHERE:
            selection.skipped[name] = UNACCOUNTED
        else:
            selection.cells.append(dossier)
    _find_packs(selection, dossiers, shifts)
    return selection if shift_id is None else _narrowed(selection, dossiers, shift_id)


def _with_same_codes(dossiers: Mapping[str, Dossier]) -> dict[str, Dossier]:
    """Dossiers that name the other cells of the same code: a code that two cells have tells neither."""
    owners: dict[str, list[str]] = defaultdict(list)
    for name, dossier in dossiers.items():
        for code in dossier.codes:
            owners[code].append(name)
    found = {}
    for name, dossier in dossiers.items():
        others = {other for code in dossier.codes for other in owners[code]} - {name}
        found[name] = replace(dossier, same_code=tuple(sorted(others))) if others else dossier
    return found


def _narrowed(selection: Selection, dossiers: Mapping[str, Dossier], shift_id: int) -> Selection:
    packs = [pack for pack in selection.packs if pack.shift.shift_id == shift_id]
    with_a_pack = {cell.battery_id for pack in packs for cell in pack.cells}
    wanted = {name for name, dossier in dossiers.items() if dossier.battery.shift_id == shift_id} | with_a_pack
    cells = [cell for cell in selection.cells if cell.battery_id in wanted]
    pack_of = {name: pack for name, pack in selection.pack_of.items() if name in wanted}
    theirs = {*wanted, *pack_of.values()}
    skipped = {name: why for name, why in selection.skipped.items() if name in theirs}
    return Selection(cells, packs, pack_of, skipped)


def _find_packs(selection: Selection, dossiers: Mapping[str, Dossier], shifts: Mapping[int, Shift]) -> None:
    members: dict[tuple[int, float, str], list[Dossier]] = defaultdict(list)
    batches: dict[int, set[float]] = defaultdict(set)
    for dossier in dossiers.values():
        event = dossier.grouped
        if event is None:
            continue
        batches[event.shift_id].add(event.stamp)  # a batch is grouped at once, so it has one stamp
        group = event.data.group
        if group:
            members[event.shift_id, event.stamp, group].append(dossier)
    for (number, stamp, group), cells in sorted(members.items(), key=lambda item: item[0]):
        shift = shifts.get(number)
        if shift is None:
            continue  # its row can't be read, or is gone
        batch = sorted(batches[number]).index(stamp) + 1
        pack_id = f"{shift.line}-{number}-{batch}-{group}"
        layout = layout_of(shift)
        if layout is None:
            selection.skipped[pack_id] = "a group of cells that are alike, not a pack"
            continue
        selection.pack_of |= {dossier.battery_id: pack_id for dossier in cells}
        pack = Pack(pack_id, shift, group, layout, tuple(sorted(cells, key=lambda cell: cell.battery_id)))
        problem = _incomplete(pack)
        if problem:
            selection.skipped[pack_id] = problem
        else:
            selection.packs.append(pack)


def _incomplete(pack: Pack) -> str:
    """Why this is no whole pack; empty if it is."""
    missing = [cell.battery_id for cell in pack.cells if not cell.battery.bin]
    places = sorted({str(cell.battery.bin) for cell in pack.cells})
    if missing:
        return f"not in its tray yet: {', '.join(missing)}"
    if len(pack.cells) != pack.layout.size:
        return f"has {len(pack.cells)} cells, and {pack.layout} takes {pack.layout.size}"
    if len(places) > 1:
        return f"its cells lie in different places: {', '.join(places)}"
    return ""


def layout_of(shift: Shift) -> Layout | None:
    """Layout of the packs of a shift, None where it made none."""
    regroup = section(shift.config, "recipe", "measuring", "regroup")
    if regroup.get("method") != "packs":
        return None
    try:
        return Layout.parse(str(regroup.get("layout", "")))
    except ConfigurationError:
        return None


def section(config: Any, *keys: str) -> Mapping[str, Any]:
    """A section of a snapshot; empty where there is none."""
    for key in keys:
        config = config.get(key) if isinstance(config, Mapping) else None
    return config if isinstance(config, Mapping) else {}


def _site(shift: Shift) -> Mapping[str, Any]:
    return section(shift.config, "site")


def _of_another_line(shift: Shift) -> bool:
    """Whether the shift is surely not one of an EV line."""
    site = _site(shift)
    return bool(site) and site.get("kind") != "ev"


def _simulated_in(shift: Shift) -> Iterator[str]:
    site = _site(shift)
    if site.get("plant") is not None:
        yield f"shift {shift.shift_id} ran on the simulated plant (site '{shift.site}', key plant)"
    for driver in _drivers(site):
        if NOT_REAL.search(driver):
            yield f"shift {shift.shift_id} used the simulated driver '{driver}'"


def _drivers(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if isinstance(node.get("driver"), str):
            yield node["driver"]
        for value in node.values():
            yield from _drivers(value)
