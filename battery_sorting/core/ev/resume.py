"""What the ledger says of cells that were on their way when the line was cut off."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from battery_sorting.core.ledger import EventKind, Ledger

from .flow import PICK

_KINDS = (
    EventKind.RELEASED,
    EventKind.MOVE_ORDERED,
    EventKind.MOVED,
    EventKind.MEASURED,
    EventKind.GRADED,
    EventKind.GROUPED,
)
TRAYS_EMPTIED = "unsuspend"
"""Command by which a person says that outlets and trays are empty."""


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


def filled_trays(ledger: Ledger, shift_id: int) -> dict[str, str]:
    """Slots of trays that were filled in a shift, unless a person has emptied them since.

    Args:
        ledger: The ledger.
        shift_id: The shift that goes on.

    Returns:
        Place → group of the cell there, empty for a cell in none.
    """
    kinds = (EventKind.MOVED, EventKind.GROUPED, EventKind.DISPOSED, EventKind.COMMAND)
    places: dict[str | None, str] = {}
    groups: dict[str | None, str] = {}
    filled: dict[str, str] = {}
    for event in ledger.events(shift_id, kinds=kinds):
        payload, battery_id = event.payload, event.battery_id
        if event.kind is EventKind.MOVED:
            places[battery_id] = payload["place"]
        elif event.kind is EventKind.GROUPED:
            groups[battery_id] = payload["group"]
        elif event.kind is EventKind.COMMAND and payload.get("command") == TRAYS_EMPTIED:
            filled.clear()
        elif event.kind is EventKind.DISPOSED and places.get(battery_id):
            filled[places[battery_id]] = groups.get(battery_id, "")
    return filled


def outlet_contents(ledger: Ledger, shift_id: int) -> dict[str, int]:
    """Outlet → cells that were released there in a shift, unless a person has emptied it since."""
    contents: dict[str, int] = {}
    for event in ledger.events(shift_id, kinds=(EventKind.RELEASED, EventKind.COMMAND)):
        if event.kind is EventKind.COMMAND:
            if event.payload.get("command") == TRAYS_EMPTIED:
                contents.clear()
        else:
            outlet = event.payload["outlet"]
            contents[outlet] = contents.get(outlet, 0) + 1
    return contents
