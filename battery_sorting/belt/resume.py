"""Takes up the batteries that were on the belt when the line controller was cut off."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from battery_sorting.belt.line import Battery, Totals
from battery_sorting.core.types import NOWHERE, OTHERS, Detection, EjectOutcome, Reason, TypeResult
from battery_sorting.ledger import BatteryRecord, Event
from battery_sorting.ledger.events import Commanded, Exited
from battery_sorting.ledger.store import Ledger
from battery_sorting.line.resume import EMPTIED, at_last_shift_end


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
        reason=_reason(record.decided_reason),
        token=record.token or 0,
        outcome=record.eject_outcome or EjectOutcome.UNKNOWN,
        exited=record.exited_at is not None,
        lost=record.decided_reason == Reason.LOST_POSITION.value,
    )


def recorded_exits(events: Iterable[Event[Exited]]) -> list[tuple[int, int]]:
    """Number and encoder count of the exits among ``events``, for `BeltLine.restore`."""
    return [
        (event.data.exit_count, event.data.encoder_count)
        for event in events
        if event.data.exit_count is not None and event.data.encoder_count is not None
    ]


def shift_totals(ledger: Ledger, shift_id: int) -> Totals:
    """Counts of the shift that goes on, for `BeltLine.restore`."""
    tally = ledger.tally(shift_id)
    totals = Totals(detected=tally.detected, late=tally.late)
    for (bin_, reason), number in tally.placed.items():
        totals.count(bin_, reason, number)
    return totals


def bin_contents(ledger: Ledger, line: str) -> dict[str, int]:
    """Bin → batteries in it. A bin holds what was put into it, in all shifts, since a person last emptied it."""
    since, end = at_last_shift_end(ledger, line)
    contents = Counter({bin_: number for bin_, number in (end.contents or {}).items() if number})
    emptied: dict[str, int] = {}
    for event in ledger.events(line=line, kinds=[Commanded], after=since):
        if event.data.command == EMPTIED:
            bin_ = event.data.bin or ""
            emptied[bin_] = event.event_id
            contents.pop(bin_, None)
    for event_id, bin_ in ledger.disposals(line, since):
        if bin_ != NOWHERE and event_id > emptied.get(bin_, 0):
            contents[bin_] += 1
    return dict(contents)


def _reason(name: str | None) -> Reason | None:
    """None also for a reason of another version of this software: the line then decides anew."""
    return Reason(name) if name in Reason.__members__.values() else None


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
