"""Ledger of the cell: append-only events, the state of every battery, and its pictures.

Here are the records, as plain data, and in ``events`` what they say; ``store`` keeps them."""

from ._records import (
    DataT,
    DuplicateRecordError,
    Event,
    ImageRecord,
    OpenBattery,
    Record,
    Shift,
    Tally,
    UnknownBatteryError,
)
from .events import BatteryRecord, EventData

__all__ = [
    "BatteryRecord",
    "DataT",
    "DuplicateRecordError",
    "Event",
    "EventData",
    "ImageRecord",
    "OpenBattery",
    "Record",
    "Shift",
    "Tally",
    "UnknownBatteryError",
]
