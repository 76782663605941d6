"""Ledger of the cell: append-only events, the state of every battery, and its pictures."""

from ._engine import probe
from ._images import ImageStore
from ._ledger import Ledger
from ._models import SCHEMA_REVISION
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
from ._side_records import SideRecords
from ._transaction import Transaction

__all__ = [
    "SCHEMA_REVISION",
    "BatteryRecord",
    "DuplicateRecordError",
    "Event",
    "EventKind",
    "ImageRecord",
    "ImageStore",
    "Ledger",
    "OpenBattery",
    "Record",
    "Shift",
    "SideRecords",
    "Tally",
    "Transaction",
    "UnknownBatteryError",
    "probe",
]
