"""What a belt controller takes up from the ledger: batteries on the belt, counts, what the bins hold."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from battery_sorting.belt.line import FINISHED_KEPT, Battery, Totals
from battery_sorting.core.types import NOWHERE, OTHERS, Detection, EjectOutcome, Reason, TypeResult
from battery_sorting.ledger import BatteryRecord, Event
from battery_sorting.ledger.events import Commanded, Exited
from battery_sorting.line.resume import EMPTIED, at_last_shift_end
from battery_sorting.packml.restart import Restart

if TYPE_CHECKING:  # the database takes long to import, and what decides needs none
    from battery_sorting.ledger.store import Ledger


@dataclass(frozen=True)
class BeltMemory:
    """What the ledger holds for a controller that begins.

    Attributes:
        restart: How the line goes on.
        batteries: On the belt.
        finished: Ids of the last batteries that have left it.
        exits: Number and encoder count of the last exits.
        totals: Counts of the shift that goes on; None: a new one.
        contents: Bin → batteries in it.
    """

    restart: Restart = field(default_factory=Restart)
    batteries: tuple[Battery, ...] = ()
    finished: tuple[str, ...] = ()
    exits: tuple[tuple[int, int], ...] = ()
    totals: Totals | None = None
    contents: Mapping[str, int] = field(default_factory=dict)


def read_belt_memory(ledger: Ledger, line: str, restart: Restart) -> BeltMemory:
    """What the ledger, with the shift that is to be gone on with or none, holds of ``line``.

    Raises:
        LedgerError: The ledger can't be read.
    """
    return BeltMemory(
        restart,
        tuple(resumed_battery(record) for record in ledger.open_batteries(line)),
        tuple(ledger.finished_ids(line, FINISHED_KEPT)),
        tuple(recorded_exits(ledger.events(kinds=[Exited], last=FINISHED_KEPT))),
        None if ledger.shift_id is None else shift_totals(ledger, ledger.shift_id),
        bin_contents(ledger, line),
    )


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
        reason=Reason.of(record.decided_reason),
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
