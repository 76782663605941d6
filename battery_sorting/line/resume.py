"""What a line controller takes up again from the ledger, whatever the line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from battery_sorting.ledger.events import LineStateChanged, ShiftEnded
from battery_sorting.packml.restart import Restart, restart

if TYPE_CHECKING:  # the database takes long to import, and what decides needs none
    from battery_sorting.ledger.store import Ledger

EMPTIED = "emptied"
"""Command by which a person says that a bin is empty."""


def resume_line(ledger: Ledger, line: str, run_id: str, *, wanted: bool) -> Restart:
    """How the line goes on. If its last shift was cut off, the ledger goes on with that (`Ledger.shift_id`).

    Args:
        ledger: The ledger.
        line: Name of the line.
        run_id: Of the start of the line to which the controller belongs; empty: it was started by itself.
        wanted: Whether the site starts by itself when it is started anew.
    """
    commands = ledger.commands(line)
    shift_id = ledger.resume_shift(line)
    states = [] if shift_id is None else ledger.events(shift_id, kinds=[LineStateChanged], last=1)
    return restart(
        states[-1].data if states else None,
        commands,
        run_id,
        cut_off=shift_id is not None,
        wanted=wanted,
        unreadable=next(iter(ledger.unreadable), ""),
    )


def at_last_shift_end(ledger: Ledger, line: str) -> tuple[int, ShiftEnded]:
    """Id and data of the event with which the line's last shift that has ended did so; 0 and nothing if none."""
    ends = ledger.events(line=line, kinds=[ShiftEnded], last=1)
    return (ends[0].event_id, ends[0].data) if ends else (0, ShiftEnded())
