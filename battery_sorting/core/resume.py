"""Takes up the batteries that were on the belt when the line controller was cut off."""

from __future__ import annotations

import math
from collections.abc import Iterable

from battery_sorting.core.ledger import BatteryRecord, Event, EventKind
from battery_sorting.core.line import Battery
from battery_sorting.core.types import OTHERS, Detection, EjectOutcome, Reason, TypeResult


def resumed_battery(record: BatteryRecord) -> Battery:
    """State of the battery as the ledger knows it."""
    return Battery(
        detection=Detection(
            battery_id=record.battery_id,
            trigger_count=record.trigger_count,
            encoder_count=record.encoder_count,
            stamp=record.detected_at,
            gap_ahead_mm=_or_nan(record.gap_ahead_mm),
            gap_behind_mm=_or_nan(record.gap_behind_mm),
            gate_seen=bool(record.gate_seen),
        ),
        verdict=_verdict(record),
        bin=record.decided_bin or OTHERS,
        reason=Reason(record.decided_reason) if record.decided_reason else None,
        token=record.token or 0,
        outcome=record.eject_outcome or EjectOutcome.UNKNOWN,
        exited=record.exited_at is not None,
        lost=record.decided_reason == Reason.LOST_POSITION.value,
    )


def recorded_exits(events: Iterable[Event]) -> list[tuple[int, int]]:
    """Number and encoder count of the exits among ``events``, for `BeltLine.restore`."""
    return [
        (event.payload["exit_count"], event.payload["encoder_count"])
        for event in events
        if event.kind is EventKind.EXITED
    ]


def _verdict(record: BatteryRecord) -> TypeResult | None:
    if record.label is None:
        return None
    return TypeResult(
        battery_id=record.battery_id,
        stamp=record.detected_at,
        label=record.label,
        confidence=_or_nan(record.confidence),
        accepted=bool(record.accepted),
        reason=record.type_reason or "",
    )


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
