"""Packs from a table of cells as one HTML page: what the template packs.html.j2 needs of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from battery_sorting.cli._pack_plots import ranges_svg
from battery_sorting.cli._page import page_environment, write_page
from battery_sorting.grading.packs import LEFT_OVER, PackPlan
from battery_sorting.grading.table import COLUMNS, INDICATORS, CellTable

MOST_ROWS = 1000
"""A page of more rows is slow to open; the whole table is for a file."""


def write_report(path: Path, source: Path, table: CellTable, plan: PackPlan) -> None:
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
