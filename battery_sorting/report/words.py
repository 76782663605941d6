"""How reports say things: shares, times, codes, and what of a ledger can't be read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

MOST_TOLD = 20


def percent(share: float | None) -> str:
    """A share of 0..1 in percent, a dash if there is none."""
    return "–" if share is None else f"{share * 100:.1f} %"


def clock(stamp: float) -> str:
    """A time, s since 1970, as date and time of day."""
    return datetime.fromtimestamp(stamp, tz=timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def exact_clock(stamp: float) -> str:
    """The same to the millisecond."""
    return datetime.fromtimestamp(stamp, tz=timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"


def words(name: str) -> str:
    """A code as words."""
    return name.replace("_", " ")


def number(value: float | None, digits: int) -> str:
    """A number, a dash if there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def told(unreadable: Sequence[str], most: int = MOST_TOLD) -> list[str]:
    """The sentences that are shown."""
    more = len(unreadable) - most
    return [*unreadable[:most], *([f"and {more} more"] if more > 0 else [])]
