"""Groups of a table of cells: the page, and the plot of the cells by capacity, resistance and voltage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from battery_sorting.grading.grader import Grades
from battery_sorting.grading.groups import Regrouping, RegroupOptions
from battery_sorting.grading.table import COLUMNS, INDICATORS, OVERLOAD, CellTable
from battery_sorting.report.grading.group_text import describe, summary
from battery_sorting.report.page import page_environment, write_page
from battery_sorting.report.plots import LABELS, save, svg, thinned

MOST_ROWS = 2000
"""A page of more rows is slow to open; the whole table is for a file."""


def write_group_page(
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


# ---- plot ----

_MARKERS = "osD^vP*X"
_IN_LEGEND = 24


def write_group_plot(path: Path, table: CellTable, found: Regrouping) -> None:
    """Write the groups as the kind of picture that the ending of ``path`` names.

    Raises:
        BatterySortingError: The file can't be written, or matplotlib doesn't know the kind.
    """
    save(_scatter(table, found), path, "the groups")


def groups_svg(table: CellTable, found: Regrouping) -> str:
    """The groups as an SVG element."""
    return svg(_scatter(table, found))


def _scatter(table: CellTable, found: Regrouping) -> Any:
    """One colour per group, one marker per part; cells in no group that have values are grey crosses."""
    values = table.as_array()
    values[~(np.isfinite(values) & (np.abs(values) < OVERLOAD))] = np.nan
    values[found.groups != ""] = np.nan_to_num(values[found.groups != ""])  # a value without a say may be missing
    shown = thinned(np.flatnonzero(np.isfinite(values).all(axis=1)))
    figure = plt.figure(figsize=(8, 6.4), layout="constrained")
    axes: Any = figure.add_subplot(projection="3d")
    outside = shown[found.groups[shown] == ""]
    if len(outside):
        axes.scatter(*values[outside].T, s=14, c="#9aa5b1", marker="x", lw=0.8, label=f"no group ({len(outside)})")
    number = 0
    for place, part in enumerate(found.parts):
        for name, cells in part.groups.items():
            rows = shown[found.groups[shown] == name]
            axes.scatter(
                *values[rows].T,
                s=22,
                color=plt.get_cmap("tab10")(number % 10),
                marker=_MARKERS[place % len(_MARKERS)],
                lw=0,
                label=f"{name} ({cells})",
            )
            number += 1
    axes.set(xlabel=LABELS[0], ylabel=LABELS[1], zlabel=LABELS[2])
    axes.tick_params(axis="z", pad=8)
    axes.zaxis.labelpad = 18
    if 0 < number <= _IN_LEGEND:
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.04, 1))
    return figure
