"""How the report of each kind of line looks: the one table of it. A kind that is not in it has the plain layout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.table import Table

from battery_sorting.belt.report import BeltReport
from battery_sorting.ev.report import EvReport, load_ev_run, stories_of
from battery_sorting.ledger import BatteryRecord, Event, Shift
from battery_sorting.ledger.store import Ledger
from battery_sorting.line.kind import LineKind
from battery_sorting.report.belt.tables import belt_tables
from battery_sorting.report.ev.tables import ev_parts, stories_table
from battery_sorting.report.layout import ItemFilter, ItemList, PageRequest, ReportLayout
from battery_sorting.report.words import exact_clock


class BeltLayout(ReportLayout[BeltReport]):
    """Types by bins and key figures; on the page plots and decisions, explained."""

    def parts(self, report: BeltReport, width: int | None) -> Iterable[Table | str]:
        """See `ReportLayout.parts`."""
        return belt_tables(report, width)

    def write_page(self, report: BeltReport, request: PageRequest) -> None:
        """See `ReportLayout.write_page`."""
        # Matplotlib takes a second to import, onnxruntime another.
        from battery_sorting.report.belt.page import write_belt_page

        write_belt_page(report, request)


class EvLayout(ReportLayout[EvReport]):
    """Outlets, verdicts, faults, groups and judgement; on the page plots and cells of every verdict."""

    def parts(self, report: EvReport, width: int | None) -> Iterable[Table | str]:
        """See `ReportLayout.parts`."""
        return ev_parts(report, width)

    def write_page(self, report: EvReport, request: PageRequest) -> None:
        """See `ReportLayout.write_page`."""
        # Matplotlib and scikit-learn take seconds to import.
        from battery_sorting.report.ev.page import write_ev_page

        write_ev_page(report, request)

    def items(self, book: Ledger, shift: Shift, chosen: ItemFilter) -> ItemList:
        """The stories of the cells."""
        stories = [
            story
            for story in load_ev_run(book, shift.shift_id).stories
            if (chosen.bin is None or chosen.bin in {story.outlet, story.bin})
            and (
                chosen.reason is None
                or chosen.reason in {story.reason, story.bin_reason, *(fault.code for fault in story.faults)}
            )
        ][: chosen.limit]
        title = f"Shift {shift.shift_id}, started {exact_clock(shift.started_at)}"
        return ItemList([story.to_dict() for story in stories], stories_table(title, stories))

    def story(self, battery: BatteryRecord, events: Sequence[Event]) -> dict[str, Any]:
        """The story of the cell."""
        return {"story": stories_of([battery], events)[0].to_dict()}


LAYOUTS: dict[str, ReportLayout[Any]] = {"belt": BeltLayout(), "ev": EvLayout()}


def layout_of(kind: LineKind[Any, Any]) -> ReportLayout[Any]:
    """The layout of the reports of a kind of line."""
    return LAYOUTS.get(kind.name, ReportLayout())
