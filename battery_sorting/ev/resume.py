"""What the ledger says of cells that were on their way when the line was cut off."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from battery_sorting.ev.flow import NOT_SAFE
from battery_sorting.ev.places import PICK
from battery_sorting.ev.site import PRODUCT
from battery_sorting.ledger import Event, EventData
from battery_sorting.ledger.events import (
    CellGraded,
    CellGrouped,
    CellMeasured,
    Commanded,
    Disposed,
    Moved,
    MoveOrdered,
    Released,
    StationFaulted,
)
from battery_sorting.line.resume import EMPTIED, at_last_shift_end
from battery_sorting.packml.restart import Restart

if TYPE_CHECKING:  # the database takes long to import, and what decides needs none
    from battery_sorting.ledger.store import Ledger

_KINDS = (Released, MoveOrdered, Moved, CellMeasured, CellGraded, CellGrouped, StationFaulted)
TRAYS = "trays"
"""Name of all trays together, where a person says that they are empty."""


@dataclass(frozen=True)
class EvMemory:
    """What the ledger holds for a controller that begins.

    Attributes:
        restart: How the line goes on.
        cells: On their way behind the station, as `Flow.restore` takes them.
        filled: Slots of trays that were filled before → group of the cell there, empty for none.
        totals: Counts of the shift.
        contents: Outlet → cells in it.
    """

    restart: Restart = field(default_factory=Restart)
    cells: tuple[Mapping[str, Any], ...] = ()
    filled: Mapping[str, str] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)
    contents: Mapping[str, int] = field(default_factory=dict)


def read_ev_memory(account: StationAccount, hand_over: Collection[str], restart: Restart) -> EvMemory:
    """What the ledger holds of the line of ``account``.

    Args:
        account: Of the station, up to date.
        hand_over: Outlets from which cells go on; where there are none, nothing stands behind the station.
        restart: How the line goes on.

    Raises:
        LedgerError: The ledger can't be read.
    """
    ledger, line = account.ledger, account.line
    return EvMemory(
        restart,
        tuple(cells_behind_the_station(ledger, line, hand_over)) if hand_over else (),
        filled_trays(ledger, line) if hand_over else {},
        account.totals,
        account.contents,
    )


def cells_behind_the_station(ledger: Ledger, line: str, hand_over: Container[str]) -> list[dict[str, Any]]:
    """Cells of ``line`` that have left the station and are in no tray yet, as `Flow.restore` takes them.

    Args:
        ledger: The ledger.
        line: Name of the line.
        hand_over: Outlets from which cells go on.
    """
    found = []
    for battery in ledger.open_batteries(line):
        entry: dict[str, Any] = {"battery_id": battery.battery_id}
        for event in ledger.events(battery_id=battery.battery_id, kinds=_KINDS):
            match event.data:
                case Released(outlet) if outlet in hand_over:
                    entry["place"] = PICK
                case MoveOrdered(_, target):
                    entry["target"] = target
                case StationFaulted(code) if code == NOT_SAFE:
                    entry[NOT_SAFE] = True
                case Moved(place):
                    entry["place"] = place
                    entry.pop("target", None)
                case CellMeasured() as measured:
                    entry["measurement"] = vars(measured)
                case CellGraded(grade):
                    entry["grade"] = grade
                case CellGrouped(group):
                    entry["group"] = group
        if "place" in entry:
            found.append(entry)
    return found


def filled_trays(ledger: Ledger, line: str) -> dict[str, str]:
    """Slots of trays that were filled, in whatever shift, unless a person has emptied the trays since.

    Returns:
        Place → group of the cell there, empty for a cell in none.
    """
    since, end = at_last_shift_end(ledger, line)
    filled = {place: group or "" for place, group in (end.trays or {}).items()}
    places: dict[str | None, str] = {}
    for event in ledger.events(line=line, kinds=(Moved, Disposed, Commanded), after=since):
        data, battery_id = event.data, event.battery_id
        if isinstance(data, Moved):
            places[battery_id] = data.place
        elif isinstance(data, Commanded) and is_emptied(data, TRAYS):
            filled.clear()
        elif isinstance(data, Disposed) and places.get(battery_id):
            groups = ledger.events(battery_id=battery_id, kinds=[CellGrouped], last=1)
            filled[places[battery_id]] = groups[0].data.group if groups else ""
    return filled


def is_emptied(command: Commanded, place: str) -> bool:
    """Whether a command says that a person has emptied this place."""
    return command.command == EMPTIED and command.bin == place


class StationAccount:
    """What the station has done in the shift, and what its outlets hold, as the ledger has it.

    It is read from the ledger, since the station writes there also while the controller is away. An outlet holds
    what was released there, in all shifts, since a person last emptied it.

    Attributes:
        ledger: Where it is read.
        line: Name of the line.
        totals: Cells of the shift: detected, sorted, others, unaccounted.
        contents: Outlet → cells in it.
    """

    def __init__(self, ledger: Ledger, line: str, outlets: Iterable[str]) -> None:
        self.ledger = ledger
        self.line = line
        self._read_to, end = at_last_shift_end(ledger, line)
        before = end.contents or {}
        self.totals = dict.fromkeys(("detected", "sorted", "others", "unaccounted"), 0)
        self.contents = {outlet: int(before.get(outlet) or 0) for outlet in outlets}
        self.refresh()

    def refresh(self) -> None:
        """Read what is new.

        Raises:
            LedgerError: The ledger can't be read.
        """
        kinds = (Released, Disposed, Commanded)
        for event in self.ledger.events(line=self.line, kinds=kinds, after=self._read_to):
            data = event.data
            if isinstance(data, Commanded):
                for outlet in self.contents:
                    if is_emptied(data, outlet):
                        self.contents[outlet] = 0
            elif isinstance(data, Released):
                self.contents[data.outlet] = self.contents.get(data.outlet, 0) + 1
                self._count("sorted" if data.outlet == PRODUCT else "others", event)
            elif isinstance(data, Disposed) and not data.bin and not self._was_released(event):
                self._count("unaccounted", event)
            self._read_to = event.event_id  # now: asking for its release may have failed

    def _was_released(self, event: Event[EventData]) -> bool:
        return bool(self.ledger.events(battery_id=event.battery_id, kinds=[Released], last=1))

    def _count(self, name: str, event: Event[EventData]) -> None:
        if event.shift_id == self.ledger.shift_id:
            self.totals["detected"] += 1
            self.totals[name] += 1
