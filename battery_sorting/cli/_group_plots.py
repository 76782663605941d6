"""Groups of cells in three dimensions: capacity, resistance and open-circuit voltage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from battery_sorting.cli._figures import LABELS, save, svg, thinned
from battery_sorting.grading.groups import Regrouping
from battery_sorting.grading.table import OVERLOAD, CellTable

_MARKERS = "osD^vP*X"
_IN_LEGEND = 24


def write_groups(path: Path, table: CellTable, found: Regrouping) -> None:
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
