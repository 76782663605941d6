"""What the ledger keeps: one class for each kind of event, and the state of a battery that follows from them.

The fields of a class are the keys of its payload in the ledger. Who writes must give a field without a default. One
that is None is not written, NaN is written as null. What is missing or null in a ledger is read as the field's
default, or as ``absent`` of its metadata; a field that has neither is required there, too. What the docs say of a
kind (`docs/reference/ledger.md`) is the first line of its class.

A column of `batteries` is a field of `BatteryRecord`; the field of the event that it is taken from names it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any, ClassVar, TypeVar

from battery_sorting.core.types import EjectOutcome, LineStateId

DataT = TypeVar("DataT", bound="EventData")
VerdictT = TypeVar("VerdictT", bound="TypeVerdict")

# What values may be is checked by the names of these types, see `_reading`. Any: nobody reads it from a ledger.
BatteryId = str
Stamp = float
"""Seconds since the Unix epoch."""
Share = float
"""From 0 to 1."""
Shares = dict[str, float | None]
Counts = dict[str, int | None]
Texts = dict[str, str | None]
Probabilities = list[float | None]

_OR_EMPTY = {"absent": ""}
"""Of a text that is always written, and is read as empty where a ledger lacks it."""
_OR_ZERO = {"absent": 0}
"""Of a number that is always written, and that nobody reads from the event."""
_NULL_IS_FALSE = {"null": False}
"""Of a flag that is true where a ledger lacks it, but not where it is null there."""


class EventKind(str, Enum):
    """Kinds of events, as they are called in the ledger."""

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


@dataclass(frozen=True)
class EventData:
    """What an event of the line says; the sub-classes are the kinds."""

    KIND: ClassVar[EventKind]
    OF_A_BATTERY: ClassVar[bool] = False
    """Whether it must name a battery."""
    STAMP_COLUMN: ClassVar[str] = ""
    """Column of `batteries` that takes its time."""

    def payload(self) -> dict[str, Any]:
        """What is written, as JSON can hold it."""
        return {name: plain(value) for name, value in vars(self).items() if value is not None}

    @classmethod
    def of(cls: type[DataT], thing: Any) -> DataT:
        """From something with attributes of the names of the fields."""
        return cls(**{one.name: getattr(thing, one.name) for one in fields(cls)})

    @classmethod
    def columns(cls) -> dict[str, str]:
        """Field → column of `batteries` that takes it."""
        return {one.name: one.metadata["column"] for one in fields(cls) if "column" in one.metadata}


@dataclass(frozen=True)
class BatteryEventData(EventData):
    """What an event of a battery says."""

    OF_A_BATTERY = True


@dataclass(frozen=True)
class ShiftStarted(EventData):
    """A shift begins, with this site and recipe."""

    KIND = EventKind.SHIFT_STARTED
    line: str = field(metadata=_OR_EMPTY)
    site: str = field(metadata=_OR_EMPTY)
    software_version: str = ""
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ShiftEnded(EventData):
    """The shift is over; what bins, outlets and trays hold then."""

    KIND = EventKind.SHIFT_ENDED
    in_flight: int | None = None
    contents: Counts | None = None
    trays: Texts | None = None


@dataclass(frozen=True)
class Detected(BatteryEventData):
    """The battery exists."""

    KIND = EventKind.DETECTED
    STAMP_COLUMN = "detected_at"
    trigger_count: int = field(metadata={"column": "trigger_count", **_OR_ZERO})
    encoder_count: int = field(metadata={"column": "encoder_count", **_OR_ZERO})
    gap_ahead_mm: float | None = field(default=None, metadata={"column": "gap_ahead_mm"})
    gap_behind_mm: float | None = field(default=None, metadata={"column": "gap_behind_mm"})
    gate_seen: bool | None = field(default=None, metadata={"column": "gate_seen"})


@dataclass(frozen=True)
class TypeVerdict(BatteryEventData):
    """What a classifier says of a battery."""

    label: str = field(metadata={"column": "label", **_OR_EMPTY})
    confidence: Share | None = field(default=None, metadata={"column": "confidence"})
    accepted: bool = field(default=True, metadata={"column": "accepted", **_NULL_IS_FALSE})
    reason: str = field(default="", metadata={"column": "type_reason"})
    scores: Shares = field(default_factory=dict)
    model: str = ""
    inference_s: float | None = None
    novelty: float | None = None
    views: Any = None

    @classmethod
    def of(cls: type[VerdictT], thing: Any) -> VerdictT:
        """With rounded scores, since there are many of them."""
        verdict = super().of(thing)
        return replace(verdict, scores={label: round(score, 4) for label, score in thing.scores.items()})


@dataclass(frozen=True)
class Typed(TypeVerdict):
    """Its type, unless it was disposed before."""

    KIND = EventKind.TYPED


@dataclass(frozen=True)
class ShadowTyped(TypeVerdict):
    """What a shadow model says of its type; nobody acts on it."""

    KIND = EventKind.SHADOW_TYPED

    @classmethod
    def columns(cls) -> dict[str, str]:
        """None: the battery's type is what was acted on."""
        return {}


@dataclass(frozen=True)
class Decided(BatteryEventData):
    """Where it shall go: bin or outlet, and why."""

    KIND = EventKind.DECIDED
    bin: str = field(metadata={"column": "decided_bin"})
    reason: str = field(default="", metadata={"column": "decided_reason"})
    text: str | None = None


@dataclass(frozen=True)
class EjectOrdered(BatteryEventData):
    """Its token; recorded before the ejectors are told."""

    KIND = EventKind.EJECT_ORDERED
    token: int = field(metadata={"column": "token"})
    bin: str = field(metadata=_OR_EMPTY)


@dataclass(frozen=True)
class EjectReported(BatteryEventData):
    """What has become of the order, by name or number; it counts if the token is the battery's own."""

    KIND = EventKind.EJECT_REPORTED
    token: int
    outcome: EjectOutcome = field(metadata={"column": "eject_outcome"})
    fire_count: int | None = None
    reason: str = ""
    latency_s: float | None = None

    def payload(self) -> dict[str, Any]:
        """With the name of the outcome, which people read."""
        return {**super().payload(), "outcome": self.outcome.name.lower()}


@dataclass(frozen=True)
class Exited(EventData):
    """Seen at the belt's end; of no battery if none was expected there."""

    KIND = EventKind.EXITED
    STAMP_COLUMN = "exited_at"
    exit_count: int | None = None
    encoder_count: int | None = None


@dataclass(frozen=True)
class Disposed(BatteryEventData):
    """The last word: bin, outlet or tray (empty: nobody knows), and why."""

    KIND = EventKind.DISPOSED
    STAMP_COLUMN = "disposed_at"
    bin: str = field(metadata={"column": "bin"})
    reason: str = field(metadata={"column": "reason"})


@dataclass(frozen=True)
class LineStateChanged(EventData):
    """State of the line, with what a controller that comes after this one needs; latched: code → text."""

    KIND = EventKind.LINE_STATE
    state: LineStateId = LineStateId.STOPPED
    name: str = ""
    reason: str = ""
    run_id: str = ""
    by_fault: bool = False
    auto_start: bool = False
    latched: Texts = field(default_factory=dict)


@dataclass(frozen=True)
class AlarmRaised(EventData):
    """Something that a person should look at has begun."""

    KIND = EventKind.ALARM_RAISED
    code: str = ""
    text: str | None = None
    raised: Any = None


@dataclass(frozen=True)
class AlarmCleared(EventData):
    """It is over."""

    KIND = EventKind.ALARM_CLEARED
    code: str = ""
    text: str | None = None
    raised: Any = None


@dataclass(frozen=True)
class Commanded(EventData):
    """A person's command: node of `deactivate` and `activate`, bin of `emptied`, message of a refusal."""

    KIND = EventKind.COMMAND
    command: str = ""
    node: str | None = None
    by: str = "a person"
    reason: str | None = None
    bin: str | None = None
    accepted: bool | None = field(default=None, metadata=_NULL_IS_FALSE)
    message: str | None = None


@dataclass(frozen=True)
class ModelChanged(EventData):
    """Another model decides, or looks on as a shadow: name/version, empty for none."""

    KIND = EventKind.MODEL_CHANGED
    model: str = field(metadata=_OR_EMPTY)
    previous: str = ""
    folder: str = ""
    sha256: str = ""
    shadow: Any = False


@dataclass(frozen=True, kw_only=True)
class Looked(BatteryEventData):
    """EV line: one look at a cell."""

    KIND = EventKind.LOOKED
    view: str
    frame: Any = None
    verdict: str
    reason: str = ""
    kind: str = ""
    probability: Share | None = None
    kinds: Shares = field(default_factory=dict)
    novelty: float | None = None
    code: str = ""
    face: str = ""
    model: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class StationFaulted(BatteryEventData):
    """What went wrong on a cell's way."""

    KIND = EventKind.STATION_FAULT
    code: str
    text: str = ""
    step: str = ""


@dataclass(frozen=True)
class ReleaseOrdered(BatteryEventData):
    """Recorded before the PLC is told."""

    KIND = EventKind.RELEASE_ORDERED
    outlet: str
    token: int


@dataclass(frozen=True)
class Released(BatteryEventData):
    """It has left the inspection station."""

    KIND = EventKind.RELEASED
    outlet: str


@dataclass(frozen=True)
class MoveOrdered(BatteryEventData):
    """Recorded before the robot is told."""

    KIND = EventKind.MOVE_ORDERED
    source: str
    target: str


@dataclass(frozen=True)
class Moved(BatteryEventData):
    """Where it is now; place empty: nobody knows."""

    KIND = EventKind.MOVED
    place: str
    error: str = ""


@dataclass(frozen=True)
class CellMeasured(BatteryEventData):
    """The fields of `CellMeasurement.msg`."""

    KIND = EventKind.MEASURED
    programme: str = field(metadata=_OR_EMPTY)
    capacity_ah: float | None = None
    capacity_uncertainty_ah: float | None = None
    resistance_mohm: float | None = None
    resistance_uncertainty_mohm: float | None = None
    resistance_method: str = ""
    dc_resistance_mohm: float | None = None
    dc_resistance_uncertainty_mohm: float | None = None
    dc_seconds: float | None = None
    ocv_v: float | None = None
    ocv_uncertainty_v: float | None = None
    rest_s: float | None = None
    soc: float | None = None
    soc_uncertainty: float | None = None
    temperature_c: float | None = None
    temperature_uncertainty_c: float | None = None
    contact_mohm: float | None = None
    instrument: str = ""
    calibrated_on: str = ""
    capacity_instrument: str = ""
    capacity_calibrated_on: str = ""


@dataclass(frozen=True)
class CellGraded(BatteryEventData):
    """Its grade; empty: none."""

    KIND = EventKind.GRADED
    grade: str = field(metadata=_OR_EMPTY)
    status: str = ""
    relation_degree: float | None = None
    probabilities: Probabilities = field(default_factory=list)
    reason: str = ""


@dataclass(frozen=True)
class CellGrouped(BatteryEventData):
    """Its pack or group; empty: left over, and why."""

    KIND = EventKind.GROUPED
    group: str = field(metadata=_OR_EMPTY)
    leftover: str = ""


EVENTS: dict[EventKind, type[EventData]] = {
    kind.KIND: kind
    for base in (EventData, BatteryEventData, TypeVerdict)
    for kind in base.__subclasses__()
    if hasattr(kind, "KIND")
}
"""The class of each kind."""


@dataclass(frozen=True, slots=True)
class BatteryRecord:
    """Current state of one battery; ``None`` is "not yet". ``bin`` and ``reason`` are the last word on it."""

    battery_id: BatteryId
    shift_id: int
    detected_at: Stamp
    trigger_count: int
    encoder_count: int
    gap_ahead_mm: float | None
    gap_behind_mm: float | None
    gate_seen: bool | None
    label: str | None
    confidence: Share | None
    accepted: bool | None
    type_reason: str | None
    decided_bin: str | None
    decided_reason: str | None
    token: int | None
    eject_outcome: EjectOutcome | None
    exited_at: Stamp | None
    bin: str | None
    reason: str | None
    disposed_at: Stamp | None


def plain(value: Any) -> Any:
    """The value as JSON can hold it. NaN and infinities become ``None``."""
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy scalars and arrays
        return plain(value.tolist())
    return str(value)
