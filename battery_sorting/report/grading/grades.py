"""Grades of a table of cells: the page, and the map of cells by capacity, resistance and voltage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from battery_sorting.grading.grader import GRADES, INVALID, REMEASURE, CellGrader, Grades
from battery_sorting.grading.table import COLUMNS, INDICATORS, CellTable, Floats
from battery_sorting.report.page import page_environment, write_page
from battery_sorting.report.plots import LABELS, save, svg, thinned

MOST_ROWS = 2000
"""A page of more rows is slow to open; the whole table is for a file."""


def write_grade_page(
    path: Path, source: Path, table: CellTable, grades: Grades, grader: CellGrader, seconds: float
) -> None:
    """Write a self-contained page.

    Raises:
        BatterySortingError: The file can't be written.
    """
    spec = grader.spec_
    counts = grades.counts()
    limits = spec.boundaries
    begins = {
        "A": f"from {limits.a:g} on",
        "B": f"{limits.b:g} to {limits.a:g}",
        "C": f"{limits.c:g} to {limits.b:g}",
        "D": f"{limits.c:g} and less, or a gate",
    }
    page = (
        page_environment()
        .get_template("grades.html.j2")
        .render(
            title=f"Grades of {source.name}",
            about=f"{len(table)} cells graded as {spec.name}, compared with "
            + ("the specification" if grader.norm == "spec" else "the batch")
            + f", in {seconds:.2f} s",
            tiles=[(grade, counts[grade], begins[grade]) for grade in GRADES],
            again=grades.undecided,
            invalid=counts[INVALID],
            plot=grade_map_svg(table, grades, grader),
            summary=[_summary(table, grades, grade) for grade in GRADES if counts[grade]],
            basis=[
                {
                    "name": COLUMNS[name],
                    "weight": f"{weight:.4f}",
                    "ideal": f"{ideal:g}",
                    "worst": f"{worst:g}" if grader.norm == "spec" else "–",
                }
                for name, weight, ideal, worst in zip(
                    INDICATORS, grader.weights_, spec.ideal.as_array(), spec.worst.as_array(), strict=True
                )
            ],
            rows=_rows(table, grades),
            left_out=max(0, len(table) - MOST_ROWS),
        )
    )
    write_page(path, page, "report")


def _summary(table: CellTable, grades: Grades, grade: str) -> dict[str, Any]:
    values = table.as_array()[grades.grades == grade]
    middle, low, high = np.median(values, axis=0), values.min(axis=0), values.max(axis=0)
    cells = [f"{m:.4g} ({a:.4g} – {b:.4g})" for m, a, b in zip(middle, low, high, strict=True)]
    return {"grade": grade, "cells": len(values), "values": cells}


def _rows(table: CellTable, grades: Grades) -> list[dict[str, Any]]:
    """Cells that need a look first, then the others in their order."""
    order = np.argsort(grades.statuses == "graded", kind="stable")[:MOST_ROWS]
    values = table.as_array()
    return [
        {
            "id": grades.ids[row],
            "values": ["–" if np.isnan(value) else f"{value:.5g}" for value in values[row]],
            "grade": str(grades.grades[row]),
            "degree": "–" if np.isnan(grades.degrees[row]) else f"{grades.degrees[row]:.3f}",
            "status": str(grades.statuses[row]),
            "shares": ["–" if np.isnan(share) else f"{share:.0%}" for share in grades.probabilities[row]],
            "reason": grades.reasons.get(row, ""),
        }
        for row in order.tolist()
    ]


# ---- plot ----

COLOURS = {"A": "#2f855a", "B": "#2b6cb0", "C": "#b7791f", "D": "#b8323f"}
_GRID = 160


def write_grade_map(path: Path, table: CellTable, grades: Grades, grader: CellGrader) -> None:
    """Write the grade map as the kind of picture that the ending of ``path`` names.

    Raises:
        BatterySortingError: The file can't be written, or matplotlib doesn't know the kind.
    """
    save(_grade_map(table, grades, grader), path, "the grade map")


def grade_map_svg(table: CellTable, grades: Grades, grader: CellGrader) -> str:
    """The grade map as an SVG element."""
    return svg(_grade_map(table, grades, grader))


def _grade_map(table: CellTable, grades: Grades, grader: CellGrader) -> Any:
    """Capacity against resistance and against voltage; lines where a grade begins, for the median of the third."""
    values = grader.heard_values(table)
    seen = np.isin(grades.grades, GRADES)
    rows = thinned(np.flatnonzero(seen))
    counts = grades.counts()
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    for axes, other in zip(panels, (1, 2), strict=True):
        for grade in GRADES:
            chosen = rows[grades.grades[rows] == grade]
            label = f"{grade} ({counts[grade]})"
            axes.scatter(values[chosen, 0], values[chosen, other], s=16, color=COLOURS[grade], label=label, lw=0)
        again = rows[grades.statuses[rows] == REMEASURE]
        if len(again):
            axes.scatter(
                values[again, 0], values[again, other], s=40, fc="none", ec="black", lw=0.7, label="measure again"
            )
        if len(rows):
            _boundaries(axes, values[seen], other, grader)
        axes.set(xlabel=LABELS[0], ylabel=LABELS[other])
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False, fontsize=9)
    return figure


def _boundaries(axes: Any, values: Floats, other: int, grader: CellGrader) -> None:
    """Contours of the relation degree where the grades begin."""
    limits = grader.spec_.boundaries
    xs, ys = (np.linspace(*_margin(values[:, column]), _GRID) for column in (0, other))
    grid = np.empty((_GRID * _GRID, 3))
    grid[:] = np.median(values, axis=0)
    grid[:, 0], grid[:, other] = (plane.ravel() for plane in np.meshgrid(xs, ys))
    degrees = (grader.norm_.coefficients(grid) @ grader.weights_).reshape(_GRID, _GRID)
    axes.set(xlim=(xs[0], xs[-1]), ylim=(ys[0], ys[-1]))
    levels = [level for level in (limits.c, limits.b, limits.a) if np.nanmin(degrees) < level < np.nanmax(degrees)]
    if levels:
        lines = axes.contour(xs, ys, degrees, levels=levels, colors="#616e7c", linewidths=0.8)
        axes.clabel(lines, fmt="%.1f", fontsize=8)


def _margin(values: Floats) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    space = 0.06 * (high - low) or 0.02 * abs(high) or 1.0
    return low - space, high + space
