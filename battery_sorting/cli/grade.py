"""`battery-sorting grade`: grades A to D of a table of measured cells."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import typer

from battery_sorting.cli._cells import (
    CellsArgument,
    ColumnsOption,
    DecimalOption,
    EncodingOption,
    JsonOption,
    NormOption,
    OutputOption,
    PlotOption,
    Reading,
    ReportOption,
    SheetOption,
    SpecOption,
    check_outputs,
    finite,
    read_cells,
    say_written,
    warn_of,
    write_table,
)
from battery_sorting.cli._exit import ExitCode
from battery_sorting.cli._output import say, show, write_json
from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.settings import suggest
from battery_sorting.grading.grader import GRADES, INVALID, CellGrader, Grades
from battery_sorting.grading.specification import CellSpec
from battery_sorting.grading.table import CellTable

NORMS = ("spec", "batch")


def grade(
    cells: CellsArgument,
    spec: SpecOption,
    norm: NormOption = "spec",
    json: JsonOption = False,
    plot: PlotOption = None,
    report: ReportOption = None,
    output: OutputOption = None,
    columns: ColumnsOption = None,
    decimal: DecimalOption = None,
    sheet: SheetOption = None,
    encoding: EncodingOption = None,
) -> None:
    """Grade cells A to D by capacity, internal resistance and open-circuit voltage."""
    if norm not in NORMS:
        raise ConfigurationError(f"--norm {norm}", [suggest(norm, NORMS)])
    check_outputs(cells, plot, report, output)
    table, kind = read_cells(cells, spec, Reading(columns, decimal, sheet, encoding))
    begin = time.perf_counter()
    grader = CellGrader(kind, norm).fit(table)  # type: ignore[arg-type]  # checked above
    grades = grader.grade(table)
    seconds = time.perf_counter() - begin
    if output is not None:
        write_table(output, table, _columns(grades))
    if plot is not None:
        from battery_sorting.report.grading.grades import write_grade_map

        write_grade_map(plot, table, grades, grader)
    if report is not None:
        from battery_sorting.report.grading.grades import write_grade_page

        write_grade_page(report, cells, table, grades, grader, seconds)
    if json:
        write_json(as_dict(kind, norm, grades, seconds), indent=1)
    else:
        _print(cells, kind, table, grades, seconds)
        say_written(output, plot, report)
    if grades.counts()[INVALID] == len(grades):
        raise typer.Exit(ExitCode.NO)


def as_dict(spec: CellSpec, norm: str, grades: Grades, seconds: float) -> dict[str, Any]:
    """What `--json` prints: per cell, and in all. Numbers that aren't there are null."""
    rows = [
        {
            "id": name,
            "grade": grade,
            "relation_degree": finite(degree, 6),
            "status": status,
            "probabilities": None
            if grade == INVALID
            else {each: finite(share, 4) for each, share in zip(GRADES, shares, strict=True)},
            "reason": grades.reasons.get(row, ""),
        }
        for row, (name, grade, degree, status, shares) in enumerate(
            zip(
                grades.ids,
                grades.grades.tolist(),
                grades.degrees.tolist(),
                grades.statuses.tolist(),
                grades.probabilities.tolist(),
                strict=True,
            )
        )
    ]
    return {
        "spec": spec.name,
        "norm": norm,
        "cells": rows,
        "counts": grades.counts(),
        "remeasure": grades.undecided,
        "seconds": round(seconds, 4),
    }


def _columns(grades: Grades) -> dict[str, list[Any]]:
    return {
        "grade": grades.grades.tolist(),
        "relation_degree": [finite(degree, 6) for degree in grades.degrees.tolist()],
        "status": grades.statuses.tolist(),
        **{
            f"probability_{grade.lower()}": [finite(share, 4) for share in grades.probabilities[:, column].tolist()]
            for column, grade in enumerate(GRADES)
        },
        "reason": [grades.reasons.get(row, "") for row in range(len(grades))],
    }


def _print(path: Path, spec: CellSpec, table: CellTable, grades: Grades, seconds: float) -> None:
    from rich.table import Table

    view = Table(title=f"{path.name}: {len(table)} cells graded as {spec.name}", title_justify="left")
    for heading in ("grade", "cells", "share", "Ah", "mΩ", "V", "degree"):
        view.add_column(heading, justify="left" if heading == "grade" else "right")
    counts = grades.counts()
    for name in (*GRADES, INVALID):
        chosen = grades.grades == name
        ranges = [
            _range(values[chosen], digits)
            for values, digits in (
                (table.capacity_ah, 2),
                (table.resistance_mohm, 3),
                (table.ocv_v, 3),
                (grades.degrees, 2),
            )
        ]
        if name == INVALID:
            ranges = [""] * len(ranges)
        if name != INVALID or counts[name]:
            view.add_row(name, str(counts[name]), f"{counts[name] / len(table):.1%}", *ranges)
    show(view)
    say(f"{seconds:.2f} s; {grades.undecided} to be measured again")
    warn_of({grades.ids[row]: reason for row, reason in grades.reasons.items()})


def _range(values: Any, digits: int) -> str:
    values = values[np.isfinite(values)]
    if not len(values):
        return ""
    low, high = f"{values.min():.{digits}f}", f"{values.max():.{digits}f}"
    return low if low == high else f"{low}–{high}"
