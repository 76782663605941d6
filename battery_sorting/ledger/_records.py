"""What the ledger takes and gives back, as plain immutable data. Stamps are seconds since the Unix epoch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from battery_sorting.core.errors import LedgerError

from .events import BatteryRecord, EventData, EventKind

DataT = TypeVar("DataT", bound=EventData, covariant=True)


class DuplicateRecordError(LedgerError):
    """The record was made before and must not be made twice: a second detection, order or disposition."""

    code = "duplicate_record"


class UnknownBatteryError(LedgerError):
    """The record speaks of a battery that was never detected."""

    code = "unknown_battery"


class DamagedLedgerError(LedgerError):
    """Pages of the database's file can't be read; ``cause`` is what SQLite says of them."""

    code = "damaged_ledger"

    def __init__(self, text: str, cause: str) -> None:
        super().__init__(text)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Shift:
    """One run of a line. ``config`` is the snapshot of site and recipe it ran with."""

    shift_id: int
    line: str
    site: str
    started_at: float
    ended_at: float | None
    software_version: str
    config: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Event(Generic[DataT]):
    """One row of the append-only log. ``recorded_at`` is the host's clock when the row was written.

    ``payload`` is what ``data`` was read from, for display: with keys that this software does not know.
    """

    event_id: int
    shift_id: int
    battery_id: str | None
    stamp: float
    recorded_at: float
    kind: EventKind
    data: DataT
    payload: dict[str, Any]


OpenBattery = BatteryRecord
"""A battery that was detected and not disposed: ``bin`` is ``None``."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of a shift. ``placed``: bin and reason of the last word → number of batteries."""

    detected: int
    late: int
    placed: dict[tuple[str, str], int]


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One picture of one battery. ``path`` is as it was handed to the ledger."""

    battery_id: str
    sha256: str
    path: str
    width: int
    height: int
    bytes: int
    stamp: float
    station: str


@dataclass(frozen=True, slots=True)
class Record:
    """A row for the ledger. ``stamp`` is the time of what was seen (s); None for what was decided: that is stamped
    when it is handed to the ledger, since decisions know no wall clock."""

    data: EventData
    battery_id: str | None = None
    stamp: float | None = None

    def stamped(self, now: float) -> Record:
        """With ``now`` (wall clock, s) for a stamp if it has none."""
        return self if self.stamp is not None else replace(self, stamp=now)
