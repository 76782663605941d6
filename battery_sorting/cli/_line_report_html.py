"""The report of a line that has no page of its own: its tables as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from battery_sorting.cli._page import page_environment, write_page
from battery_sorting.cli._report_text import clock
from battery_sorting.line.reporting import ShiftReport


def write_line_html(path: Path, report: ShiftReport, ledger_name: str, unreadable: Sequence[str] = ()) -> None:
    """Write the tables of a report.

    Args:
        path: The file; its folder must exist.
        report: Of a shift.
        ledger_name: Named at the head of the page.
        unreadable: What of the ledger could not be read, a sentence each.

    Raises:
        BatterySortingError: The file can't be written.
    """
    shift = report.shift
    page = (
        page_environment()
        .get_template("line_report.html.j2")
        .render(
            title=f"Shift {shift.shift_id} of {shift.site}/{shift.line}",
            about=f"started {clock(shift.started_at)}, from {ledger_name}",
            unreadable=unreadable,
            tables=report.tables(),
        )
    )
    write_page(path, page, "report")
