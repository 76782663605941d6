"""Ranges of packs: for each feature the cells of every pack beside those of all cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from battery_sorting.cli._figures import LABELS, save, svg
from battery_sorting.grading.packs import LEFT_OVER, PackPlan
from battery_sorting.grading.table import CellTable

MOST_PACKS = 60
"""Above this the packs are shown as a distribution of their ranges."""
_BLUE, _GREY = "#2b6cb0", "#9aa5b1"


def write_ranges(path: Path, table: CellTable, plan: PackPlan) -> None:
    """Write the ranges as the kind of picture that the ending of ``path`` names.

    Raises:
        BatterySortingError: The file can't be written, or matplotlib doesn't know the kind.
    """
    save(_draw(table, plan), path, "the ranges")


def ranges_svg(table: CellTable, plan: PackPlan) -> str:
    """The ranges as an SVG element."""
    return svg(_draw(table, plan))


def _draw(table: CellTable, plan: PackPlan) -> Any:
    figure, panels = plt.subplots(1, 3, figsize=(12, 4.2), layout="constrained")
    values = table.as_array()
    for feature, (axes, label) in enumerate(zip(panels, LABELS, strict=True)):
        if not len(plan.members):
            axes.text(0.5, 0.5, "no packs", ha="center", va="center", transform=axes.transAxes)
            axes.set(xlabel=label)
        elif len(plan.members) <= MOST_PACKS:
            _draw_packs(axes, values[:, feature], plan)
            axes.set(xlabel="pack", ylabel=label)
        else:
            axes.hist(plan.ranges[:, feature], bins=60, color=_BLUE)
            axes.axvline(plan.ranges[:, feature].mean(), color="black", lw=1, ls="--")
            axes.set(xlabel=f"range in a pack: {label}", ylabel="packs" if feature == 0 else "")
    return figure


def _draw_packs(axes: Any, values: np.ndarray, plan: PackPlan) -> None:
    """Packs by rising mean, each with its cells and the bar of its range; cells left over at the right."""
    cells = values[plan.members]
    order = np.argsort(cells.mean(axis=1), kind="stable")
    place = np.arange(1, len(order) + 1)
    axes.vlines(place, cells[order].min(axis=1), cells[order].max(axis=1), color=_BLUE, lw=5, alpha=0.35)
    axes.plot(np.repeat(place, cells.shape[1]), cells[order].ravel(), ".", color=_BLUE, ms=4)
    left = values[(plan.pack == LEFT_OVER) & np.isfinite(values)]
    axes.plot(np.full(len(left), len(order) + 1.5), left, "x", color=_GREY, ms=4)
    ticks = [*place[:: max(1, len(place) // 15)], len(order) + 1.5]
    axes.set_xticks(ticks, [str(order[int(at) - 1] + 1) for at in ticks[:-1]] + ["left"], fontsize=7)
