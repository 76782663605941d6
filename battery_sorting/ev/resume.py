"""What the ledger says of cells that were on their way when the line was cut off."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

from battery_sorting.ev.flow import NOT_SAFE
from battery_sorting.ev.places import PICK
from battery_sorting.ev.site import PRODUCT
from battery_sorting.ledger import Event, EventKind
from battery_sorting.ledger.store import Ledger
from battery_sorting.line.resume import EMPTIED, at_last_shift_end

_KINDS = (
    EventKind.RELEASED,
    EventKind.MOVE_ORDERED,
    EventKind.MOVED,
    EventKind.MEASURED,
    EventKind.GRADED,
    EventKind.GROUPED,
    EventKind.STATION_FAULT,
)
TRAYS = "trays"
"""Name of all trays together, where a person says that they are empty."""


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
            payload = event.payload
            if event.kind is EventKind.RELEASED and payload["outlet"] in hand_over:
                entry["place"] = PICK
            elif event.kind is EventKind.MOVE_ORDERED:
                entry["target"] = payload["target"]
            elif event.kind is EventKind.STATION_FAULT and payload.get("code") == NOT_SAFE:
                entry[NOT_SAFE] = True
            elif event.kind is EventKind.MOVED:
                entry["place"] = payload["place"]
                entry.pop("target", None)
            elif event.kind is EventKind.MEASURED:
                entry["measurement"] = payload
            elif event.kind is EventKind.GRADED:
                entry["grade"] = payload["grade"]
            elif event.kind is EventKind.GROUPED:
                entry["group"] = payload["group"]
        if "place" in entry:
            found.append(entry)
    return found


def filled_trays(ledger: Ledger, line: str) -> dict[str, str]:
    """Slots of trays that were filled, in whatever shift, unless a person has emptied the trays since.

    Returns:
        Place → group of the cell there, empty for a cell in none.
    """
    kinds = (EventKind.MOVED, EventKind.DISPOSED, EventKind.COMMAND)
    since, payload = at_last_shift_end(ledger, line)
    filled = {str(place): str(group or "") for place, group in (payload.get("trays") or {}).items()}
    places: dict[str | None, str] = {}
    for event in ledger.events(line=line, kinds=kinds, after=since):
        payload, battery_id = event.payload, event.battery_id
        if event.kind is EventKind.MOVED:
            places[battery_id] = payload["place"]
        elif event.kind is EventKind.COMMAND and is_emptied(payload, TRAYS):
            filled.clear()
        elif event.kind is EventKind.DISPOSED and places.get(battery_id):
            groups = ledger.events(battery_id=battery_id, kinds=[EventKind.GROUPED], last=1)
            filled[places[battery_id]] = groups[0].payload["group"] if groups else ""
    return filled


def is_emptied(command: Mapping[str, Any], place: str) -> bool:
    """Whether a command says that a person has emptied this place."""
    return command.get("command") == EMPTIED and command.get("bin") == place


class StationAccount:
    """What the station has done in the shift, and what its outlets hold, as the ledger has it.

    It is read from the ledger, since the station writes there also while the controller is away. An outlet holds
    what was released there, in all shifts, since a person last emptied it.

    Attributes:
        totals: Cells of the shift: detected, sorted, others, unaccounted.
        contents: Outlet → cells in it.
    """

    def __init__(self, ledger: Ledger, line: str, outlets: Iterable[str]) -> None:
        self._ledger = ledger
        self._line = line
        self._read_to, payload = at_last_shift_end(ledger, line)
        before = payload.get("contents") or {}
        self.totals = dict.fromkeys(("detected", "sorted", "others", "unaccounted"), 0)
        self.contents = {outlet: int(before.get(outlet) or 0) for outlet in outlets}
        self.refresh()

    def refresh(self) -> None:
        """Read what is new.

        Raises:
            LedgerError: The ledger can't be read.
        """
        kinds = (EventKind.RELEASED, EventKind.DISPOSED, EventKind.COMMAND)
        for event in self._ledger.events(line=self._line, kinds=kinds, after=self._read_to):
            if event.kind is EventKind.COMMAND:
                for outlet in self.contents:
                    if is_emptied(event.payload, outlet):
                        self.contents[outlet] = 0
            elif event.kind is EventKind.RELEASED:
                outlet = str(event.payload["outlet"])
                self.contents[outlet] = self.contents.get(outlet, 0) + 1
                self._count("sorted" if outlet == PRODUCT else "others", event)
            elif not event.payload["bin"] and not self._was_released(event):
                self._count("unaccounted", event)
            self._read_to = event.event_id  # now: asking for its release may have failed

    def _was_released(self, event: Event) -> bool:
        return bool(self._ledger.events(battery_id=event.battery_id, kinds=[EventKind.RELEASED], last=1))

    def _count(self, name: str, event: Event) -> None:
        if event.shift_id == self._ledger.shift_id:
            self.totals["detected"] += 1
            self.totals[name] += 1
