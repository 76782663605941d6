"""Grades of a table of cells as one HTML page: what the template grades.html.j2 needs of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from battery_sorting.cli._grade_plots import grade_map_svg
from battery_sorting.cli._page import page_environment, write_page
from battery_sorting.grading.grader import GRADES, INVALID, CellGrader, Grades
from battery_sorting.grading.table import COLUMNS, INDICATORS, CellTable

MOST_ROWS = 2000
"""A page of more rows is slow to open; the whole table is for a file."""


def write_report(
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
