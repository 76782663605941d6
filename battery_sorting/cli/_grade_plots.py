"""The grade map: cells by capacity, resistance and voltage, coloured by grade, and where the grades begin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from battery_sorting.cli._figures import LABELS, save, svg, thinned
from battery_sorting.grading.grader import GRADES, REMEASURE, CellGrader, Grades
from battery_sorting.grading.table import CellTable, Floats

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
