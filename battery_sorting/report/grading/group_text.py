"""Groups of cells in words and rows, for the terminal and the page."""

from __future__ import annotations

import numpy as np

from battery_sorting.grading.groups import RegroupedPart, Regrouping
from battery_sorting.grading.table import CellTable


def summary(table: CellTable, found: Regrouping) -> list[tuple[str, ...]]:
    """Rows (group, cells, ranges of the three quantities) for tables that people read."""
    rows = []
    for name, cells in found.counts().items():
        chosen = found.groups == name
        ranges = [
            f"{values[chosen].min():.{digits}f} – {values[chosen].max():.{digits}f}"
            if np.isfinite(values[chosen]).all()
            else "–"
            for values, digits in ((table.capacity_ah, 2), (table.resistance_mohm, 3), (table.ocv_v, 4))
        ]
        rows.append((name, str(cells), *ranges))
    return rows


def describe(part: RegroupedPart) -> str:
    """One line on how the regrouping of a part ended."""
    said = f"{part.name}: {str(part.status).replace('_', ' ')}, {part.cells} cells"
    judged = part.validity
    if np.isfinite(judged.si):
        said += f", {judged.groups} groups, silhouette {judged.si:.3f}, Davies–Bouldin {judged.dbi:.2f}"
        if judged.noise_fraction:
            said += f" (noise {judged.noise_fraction:.1%}; without it {judged.si_kept:.3f}, {judged.dbi_kept:.2f})"
        if part.weak:
            said += "; weak: one cloud cut in pieces rather than clusters"
    return said
