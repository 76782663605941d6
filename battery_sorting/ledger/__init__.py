"""Ledger of the cell: append-only events, the state of every battery, and its pictures.

Here are the records, as plain data; ``store`` keeps them."""

from ._records import (
    BatteryRecord,
    DuplicateRecordError,
    Event,
    EventKind,
    ImageRecord,
    OpenBattery,
    Record,
    Shift,
    Tally,
    UnknownBatteryError,
)

__all__ = [
    "BatteryRecord",
    "DuplicateRecordError",
    "Event",
    "EventKind",
    "ImageRecord",
    "OpenBattery",
    "Record",
    "Shift",
    "Tally",
    "UnknownBatteryError",
]
