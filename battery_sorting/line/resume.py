"""What a line controller takes up again from the ledger, whatever the line."""

from __future__ import annotations

from battery_sorting.ledger.events import ShiftEnded
from battery_sorting.ledger.store import Ledger

EMPTIED = "emptied"
"""Command by which a person says that a bin is empty."""


def at_last_shift_end(ledger: Ledger, line: str) -> tuple[int, ShiftEnded]:
    """Id and data of the event with which the line's last shift that has ended did so; 0 and nothing if none."""
    ends = ledger.events(line=line, kinds=[ShiftEnded], last=1)
    return (ends[0].event_id, ends[0].data) if ends else (0, ShiftEnded())
