"""What the ledger says of cells that were on their way when the line was cut off."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from battery_sorting.core.ledger import EventKind, Ledger

from .flow import PICK

_KINDS = (EventKind.RELEASED, EventKind.MOVE_ORDERED, EventKind.MOVED, EventKind.MEASURED, EventKind.GRADED)


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
        if "place" in entry:
            found.append(entry)
    return found
