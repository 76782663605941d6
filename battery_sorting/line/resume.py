"""What a line controller takes up again from the ledger, whatever the line."""

from __future__ import annotations

from typing import Any

from battery_sorting.ledger import EventKind
from battery_sorting.ledger.store import Ledger

EMPTIED = "emptied"
"""Command by which a person says that a bin is empty."""


def at_last_shift_end(ledger: Ledger, line: str) -> tuple[int, dict[str, Any]]:
    """Id and payload of the event with which the line's last shift that has ended did so; 0 and nothing if none."""
    ends = ledger.events(line=line, kinds=[EventKind.SHIFT_ENDED], last=1)
    return (ends[0].event_id, ends[0].payload) if ends else (0, {})
