"""Groups of a table of cells as one HTML page: what the template groups.html.j2 needs of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from battery_sorting.cli._group_plots import groups_svg
from battery_sorting.cli._group_text import describe, summary
from battery_sorting.cli._page import page_environment, write_page
from battery_sorting.grading.grader import Grades
from battery_sorting.grading.groups import Regrouping, RegroupOptions
from battery_sorting.grading.table import COLUMNS, INDICATORS, CellTable

MOST_ROWS = 2000
"""A page of more rows is slow to open; the whole table is for a file."""


def write_report(
    path: Path, source: Path, table: CellTable, grades: Grades, found: Regrouping, options: RegroupOptions
) -> None:
    """Write a self-contained page.

    Raises:
        BatterySortingError: The file can't be written.
    """
    extent = "across the grades" if options.across else "within the grades"
    page = (
        page_environment()
        .get_template("groups.html.j2")
        .render(
            title=f"Groups of {source.name}",
            about=f"{len(table)} cells regrouped by {options.method} {extent}, noise {options.noise}, "
            f"in {found.seconds:.2f} s",
            plot=groups_svg(table, found),
            quantities=[COLUMNS[name] for name in INDICATORS],
            parts=[describe(part) for part in found.parts],
            summary=summary(table, found),
            ungrouped=int((found.groups == "").sum()),
            rows=_rows(table, grades, found),
            left_out=max(0, len(table) - MOST_ROWS),
        )
    )
    write_page(path, page, "report")


def _rows(table: CellTable, grades: Grades, found: Regrouping) -> list[dict[str, Any]]:
    """Cells in no group first, then the others by group."""
    values = table.as_array()
    order = np.argsort(found.groups.astype(str), kind="stable")[:MOST_ROWS]
    return [
        {
            "id": table.ids[row],
            "values": ["–" if np.isnan(value) else f"{value:.5g}" for value in values[row]],
            "grade": str(grades.grades[row]),
            "group": found.groups[row] or "–",
            "reason": found.reasons.get(row, ""),
        }
        for row in order.tolist()
    ]
