"""What the ledger takes and gives back, as plain immutable data. Stamps are seconds since the Unix epoch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from battery_sorting.core.errors import LedgerError
from battery_sorting.core.types import EjectOutcome


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


class EventKind(str, Enum):
    """Kinds of events. `docs/reference/ledger.md` lists the payload of each."""

    SHIFT_STARTED = "shift_started"
    SHIFT_ENDED = "shift_ended"
    DETECTED = "detected"
    TYPED = "typed"
    DECIDED = "decided"
    EJECT_ORDERED = "eject_ordered"
    EJECT_REPORTED = "eject_reported"
    EXITED = "exited"
    DISPOSED = "disposed"
    LINE_STATE = "line_state"
    ALARM_RAISED = "alarm_raised"
    ALARM_CLEARED = "alarm_cleared"
    COMMAND = "command"
    MODEL_CHANGED = "model_changed"
    SHADOW_TYPED = "shadow_typed"
    LOOKED = "looked"
    STATION_FAULT = "station_fault"
    RELEASE_ORDERED = "release_ordered"
    RELEASED = "released"
    MOVE_ORDERED = "move_ordered"
    MOVED = "moved"
    MEASURED = "measured"
    GRADED = "graded"
    GROUPED = "grouped"

    def __str__(self) -> str:
        return str(self.value)


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
class Event:
    """One row of the append-only log. ``recorded_at`` is the host's clock when the row was written."""

    event_id: int
    shift_id: int
    battery_id: str | None
    stamp: float
    recorded_at: float
    kind: EventKind
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BatteryRecord:
    """Current state of one battery; ``None`` is "not yet". ``bin`` and ``reason`` are the last word on it."""

    battery_id: str
    shift_id: int
    detected_at: float
    trigger_count: int
    encoder_count: int
    gap_ahead_mm: float | None
    gap_behind_mm: float | None
    gate_seen: bool | None
    label: str | None
    confidence: float | None
    accepted: bool | None
    type_reason: str | None
    decided_bin: str | None
    decided_reason: str | None
    token: int | None
    eject_outcome: EjectOutcome | None
    exited_at: float | None
    bin: str | None
    reason: str | None
    disposed_at: float | None


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

    kind: str
    battery_id: str | None
    stamp: float | None
    payload: dict[str, Any]

    def stamped(self, now: float) -> Record:
        """With ``now`` (wall clock, s) for a stamp if it has none."""
        return self if self.stamp is not None else replace(self, stamp=now)
