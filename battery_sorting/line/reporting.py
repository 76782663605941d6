"""What the reports of all lines have in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from battery_sorting.core.errors import LedgerError
from battery_sorting.ledger import Shift
from battery_sorting.ledger.store import Ledger

Shares = dict[str, "float | None"]


@dataclass(frozen=True)
class ReportTable:
    """A table of a report, in the words of a person."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class ShiftReport(ABC):
    """What a shift came to. ``battery-sorting report`` writes its figures as JSON and shows its tables.

    Attributes:
        item: What the line sorts, in a word.
    """

    item: str = "battery"

    @property
    @abstractmethod
    def shift(self) -> Shift:
        """The shift that it is about."""

    @property
    @abstractmethod
    def empty(self) -> bool:
        """Whether the shift has had nothing to sort yet."""

    @property
    def failures(self) -> Sequence[str]:
        """Why the line has not worked; empty if it has, or nobody can say."""
        return ()

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The figures, for JSON."""

    def tables(self) -> Sequence[ReportTable]:
        """The figures for a person, where ``report`` has no layout of its own for the line."""
        return ()


def find_shift(ledger: Ledger, shift_id: int | None = None) -> Shift:
    """The shift of this number, the last one if ``None``.

    Raises:
        LedgerError: The ledger has no shift, or not this one.
    """
    shifts = ledger.shifts()
    if not shifts and ledger.unreadable:
        raise LedgerError(f"{ledger.name}: none of its shifts can be read: {ledger.unreadable[0]}")
    if not shifts:
        raise LedgerError(f"{ledger.name}: holds no shift yet; start a cell on it first")
    if shift_id is None:
        return shifts[-1]
    for shift in shifts:
        if shift.shift_id == shift_id:
            return shift
    numbers = ", ".join(str(shift.shift_id) for shift in shifts[-10:])
    raise LedgerError(f"{ledger.name}: has no shift {shift_id}; its last shifts are {numbers}")


def spread(values: Sequence[float], **percents: float) -> Shares:
    """Percentiles by name, interpolated as `numpy.percentile` does; ``None`` each when there are no values."""
    ordered = sorted(values)
    return {name: _percentile(ordered, percent) for name, percent in percents.items()}


def _percentile(ordered: Sequence[float], percent: float) -> float | None:
    if not ordered:
        return None
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
