"""Words of a report that tables and page share."""

from __future__ import annotations

from datetime import datetime, timezone

from battery_sorting.belt.report import ON_BELT, UNACCOUNTED, UNKNOWN, Figures
from battery_sorting.core.types import OTHERS


def percent(share: float | None) -> str:
    """A share of 0..1 in percent, a dash if there is none."""
    return "–" if share is None else f"{share * 100:.1f} %"


def clock(stamp: float) -> str:
    """A time, s since 1970, as date and time of day."""
    return datetime.fromtimestamp(stamp, tz=timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def bin_columns(figures: Figures) -> list[str]:
    """The bins of the table: product bins by name, then *others*, then what is in none."""
    last = [OTHERS, UNACCOUNTED, ON_BELT]
    bins = {name for row in figures.table.values() for name in row}
    return [*sorted(bins - set(last)), *(name for name in last if name in bins)]


def row_name(type_: str, figures: Figures) -> str:
    """Type as a row of the table shows it."""
    if type_ != UNKNOWN:
        return type_
    return "not named" if figures.correct_bin is None else "unknown brand"
