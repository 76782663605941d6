"""How the report of a line of any kind looks; those that look otherwise are listed in `layouts.py`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from rich.table import Table

from battery_sorting.ledger import BatteryRecord, Event, Shift
from battery_sorting.ledger.store import Ledger
from battery_sorting.line.reporting import ShiftReport
from battery_sorting.report.kept_pictures import KeptPictures
from battery_sorting.report.words import clock, exact_clock, percent, told

ReportT = TypeVar("ReportT", bound=ShiftReport)


@dataclass(frozen=True)
class PageRequest:
    """Where the page of a report is written, and what it shows next to the figures.

    Attributes:
        book: The ledger that the report is from.
        pictures: Of its items.
        model: Folder of the model that explains; None: the one that decided.
        data: Folder of the training pictures.
    """

    path: Path
    book: Ledger
    pictures: KeptPictures
    model: Path | None = None
    data: Path | None = None


@dataclass(frozen=True)
class ItemFilter:
    """Which items of a shift are listed.

    Attributes:
        bin: Only what went into this bin, outlet or tray.
        reason: Only what went there for this reason.
        limit: At most this many.
    """

    bin: str | None
    reason: str | None
    limit: int


@dataclass(frozen=True)
class ItemList:
    """Items of a shift: as data for JSON, and as a table."""

    data: Sequence[dict[str, Any]]
    table: Table


class ReportLayout(Generic[ReportT]):
    """How a report looks, and its items: here by the tables of the report and the records of the ledger alone."""

    def parts(self, report: ReportT, width: int | None) -> Iterable[Table | str]:  # noqa: ARG002
        """Tables and lines for a terminal.

        Args:
            report: Of a line of this kind.
            width: Columns that there are; None: all are shown whole, and long tables with all their rows.
        """
        for part in report.tables():
            table = Table(*part.heads, title=part.title)
            for row in part.rows:
                table.add_row(*row)
            yield table

    def write_page(self, report: ReportT, request: PageRequest) -> None:
        """Write a report as a page.

        Raises:
            BatterySortingError: The file can't be written.
        """
        from battery_sorting.report.page import page_environment, write_page

        shift = report.shift
        page = (
            page_environment()
            .get_template("line_report.html.j2")
            .render(
                title=f"Shift {shift.shift_id} of {shift.site}/{shift.line}",
                about=f"started {clock(shift.started_at)}, from {request.book.name}",
                unreadable=told(request.book.unreadable),
                tables=report.tables(),
            )
        )
        write_page(request.path, page, "report")

    def items(self, book: Ledger, shift: Shift, chosen: ItemFilter) -> ItemList:
        """The items of a shift."""
        batteries = book.batteries(shift.shift_id, bin=chosen.bin, reason=chosen.reason, limit=chosen.limit)
        return ItemList([asdict(battery) for battery in batteries], batteries_table(shift, batteries))

    def story(self, battery: BatteryRecord, events: Sequence[Event]) -> dict[str, Any]:  # noqa: ARG002
        """What JSON tells of an item beside its records; empty where they tell all."""
        return {}


def batteries_table(shift: Shift, batteries: Iterable[BatteryRecord]) -> Table:
    """Batteries one per line."""
    table = Table(title=f"Shift {shift.shift_id}, started {exact_clock(shift.started_at)}")
    for name in ("battery", "at, s", "type", "sure", "bin", "reason"):
        table.add_column(name, no_wrap=True, justify="right" if name in {"at, s", "sure"} else "left")
    for battery in batteries:
        table.add_row(
            battery.battery_id,
            f"{battery.detected_at - shift.started_at:.2f}",
            battery.label or "–",
            percent(battery.confidence),
            place_of(battery),
            battery.reason or battery.decided_reason or "",
        )
    return table


def place_of(battery: BatteryRecord) -> str:
    """Where a battery is, as a person says it."""
    return "on its way" if battery.bin is None else battery.bin or "nowhere"
