"""Packs from a table of cells: the page, and for each feature the cells of every pack next to all cells."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from battery_sorting.grading.packs import LEFT_OVER, PackPlan
from battery_sorting.grading.table import COLUMNS, INDICATORS, CellTable
from battery_sorting.report.page import page_environment, write_page
from battery_sorting.report.plots import LABELS, save, svg

MOST_ROWS = 1000
"""A page of more rows is slow to open; the whole table is for a file."""


def write_pack_page(path: Path, source: Path, table: CellTable, plan: PackPlan) -> None:
    """Write a self-contained page.

    Raises:
        BatterySortingError: The file can't be written.
    """
    left = np.flatnonzero(plan.pack == LEFT_OVER).tolist()
    page = (
        page_environment()
        .get_template("packs.html.j2")
        .render(
            title=f"Packs from {source.name}",
            about=f"{len(table)} cells, packs {plan.layout}, "
            f"{'within grades' if plan.within_grade and plan.grades is not None else 'across grades'}, "
            f"in {plan.seconds:.2f} s",
            tiles=[
                (len(plan.members), "packs"),
                (plan.leftover, "cells left over"),
                (_number(plan.j, 4), "J, mean cost of a pack"),
                (_number(plan.j_lower_bound, 4), "lower bound of J"),
                (f"{plan.utilisation:.1%}" if math.isfinite(plan.utilisation) else "–", "of the capacity usable"),
            ],
            plot=ranges_svg(table, plan),
            basis=_basis(plan),
            quantities=[COLUMNS[name] for name in INDICATORS],
            packs=[_pack(plan, number) for number in range(min(len(plan.members), MOST_ROWS))],
            packs_left_out=max(0, len(plan.members) - MOST_ROWS),
            leftovers=[{"id": plan.ids[row], "reason": plan.reason(row)} for row in left[:MOST_ROWS]],
            leftovers_left_out=max(0, len(left) - MOST_ROWS),
        )
    )
    write_page(path, page, "report")


def _pack(plan: PackPlan, number: int) -> dict[str, Any]:
    members = plan.members[number]
    groups = members.reshape(plan.layout.series, plan.layout.parallel)
    return {
        "number": number + 1,
        "grades": "" if plan.grades is None else ", ".join(sorted(set(plan.grades[members].tolist()))),
        "cost": f"{plan.costs[number]:.3f}",
        "ranges": [f"{value:.4g}" for value in plan.ranges[number]],
        "usable": f"{plan.group_ah[number].min():.4g}",
        "cells": " · ".join(" ∥ ".join(plan.ids[row] for row in group) for group in groups.tolist()),
    }


def _basis(plan: PackPlan) -> list[dict[str, str]]:
    goal = plan.objective
    if goal is None:
        return []
    return [
        {
            "name": COLUMNS[name],
            "weight": f"{weight:.4f}",
            "scale": f"{scale:.4g}",
            "cap": f"{cap:.4g}" if math.isfinite(cap) else "–",
        }
        for name, weight, scale, cap in zip(INDICATORS, goal.weights, goal.scale, goal.caps, strict=True)
    ]


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


# ---- plot ----

MOST_PACKS = 60
"""Above this the packs are shown as a distribution of their ranges."""
_BLUE, _GREY = "#2b6cb0", "#9aa5b1"


def write_pack_plot(path: Path, table: CellTable, plan: PackPlan) -> None:
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
