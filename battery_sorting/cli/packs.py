"""`battery-sorting packs`: packs of a layout from a table of measured cells."""

from __future__ import annotations

import json as json_module
import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from battery_sorting.cli._cells import (
    CellsArgument,
    JsonOption,
    OutputOption,
    PlotOption,
    ReportOption,
    check_outputs,
    finite,
    read_cells,
    warn_of,
    write_table,
)
from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.settings import suggest
from battery_sorting.grading.packs import LEFT_OVER, REJECTED, WEIGHTS, Layout, PackBuilder, PackPlan, Tolerances
from battery_sorting.grading.specification import CellSpec
from battery_sorting.grading.table import CellTable

GRADE_COLUMN = "grade"
_SHOWN_PACKS = 40


def packs(
    cells: CellsArgument,
    layout: Annotated[str, typer.Option("--layout", help="Of each pack: 8s, 4s4p, 2p, …")],
    spec: Annotated[
        str | None,
        typer.Option("--spec", help="Kind of the cells, to grade them first; else the table's column 'grade'."),
    ] = None,
    within_grade: Annotated[
        bool, typer.Option("--within-grade/--across", help="Whether only cells of one grade share a pack.")
    ] = True,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(
            "--tolerance",
            help="Largest ranges in a pack: 'capacity=2% resistance=10% ocv=10mV', quoted, or one at a time.",
        ),
    ] = None,
    scale: Annotated[
        list[str] | None,
        typer.Option("--scale", help="What ranges are measured by, written the same way; else 1.4826 MAD."),
    ] = None,
    weights: Annotated[
        str, typer.Option("--weights", help="How much capacity, resistance and OCV count.")
    ] = ",".join(map(str, WEIGHTS)),
    reject: Annotated[str, typer.Option("--reject", help="Grades not to be used; '' for none.")] = ",".join(
        REJECTED
    ),
    priority: Annotated[
        str | None,
        typer.Option("--priority", help="Column of numbers: the higher, the sooner a cell must be used."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed gives the same packs.")] = 0,
    effort: Annotated[float, typer.Option("--effort", min=0.001, max=1000, help="Factor on the time spent.")] = 1.0,
    bound: Annotated[
        bool, typer.Option("--bound/--no-bound", help="Whether to compute the lower bound of J.")
    ] = True,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Else one per processor.")] = None,
    json: JsonOption = False,
    plot: PlotOption = None,
    report: ReportOption = None,
    output: OutputOption = None,
) -> None:
    """Build packs of cells that are alike, and say of each cell that is left over why."""
    builder = PackBuilder(
        Layout.parse(layout),
        within_grade,
        Tolerances.parse(tolerance) if tolerance else None,
        Tolerances.parse(scale) if scale else None,
        _weights(weights),
        [grade.strip() for grade in reject.split(",") if grade.strip()],
        seed,
        effort,
        bound,
        threads,
    )
    check_outputs(cells, plot, report, output)
    table, kind = (CellTable.read(cells), None) if spec is None else read_cells(cells, spec)
    grades = _grades(table, kind)
    plan = _build(builder, table, grades, _priorities(table, priority))
    if output is not None:
        write_table(output, table, _columns(plan))
    if plot is not None:
        from battery_sorting.cli._pack_plots import write_ranges

        write_ranges(plot, table, plan)
    if report is not None:
        from battery_sorting.cli._pack_html import write_report

        write_report(report, cells, table, plan)
    if json:
        typer.echo(json_module.dumps(as_dict(plan), indent=1, ensure_ascii=False))
        return
    _print(cells, plan)
    for path in (output, plot, report):
        if path is not None:
            typer.echo(f"written: {path}")


def as_dict(plan: PackPlan) -> dict[str, Any]:
    """What `--json` prints: per cell, per pack, in all. Numbers that aren't there are null; packs count from 1."""
    return {
        "layout": str(plan.layout),
        "status": str(plan.status),
        "cells": [
            {"id": name, "grade": grade, "pack": pack, "group": group, "reason": reason}
            for name, (grade, pack, group, reason) in zip(plan.ids, _per_cell(plan), strict=True)
        ],
        "packs": [
            {
                "pack": number + 1,
                "cost": finite(plan.costs[number], 6),
                "range_capacity_ah": finite(plan.ranges[number, 0], 6),
                "range_resistance_mohm": finite(plan.ranges[number, 1], 6),
                "range_ocv_v": finite(plan.ranges[number, 2], 6),
                "usable_ah": finite(plan.group_ah[number].min(), 6),
            }
            for number in range(len(plan.members))
        ],
        "counts": plan.counts(),
        "j": finite(plan.j, 6),
        "j_lower_bound": finite(plan.j_lower_bound, 6),
        "leftover": plan.leftover,
        "utilisation": finite(plan.utilisation, 6),
        "seconds": round(plan.seconds, 4),
    }


def _per_cell(plan: PackPlan) -> list[tuple[str | None, int | None, int | None, str]]:
    """Grade, pack and place in series from 1, and the reason of a leftover."""
    grades = [None] * len(plan.pack) if plan.grades is None else plan.grades.tolist()
    return [
        (grade, None, None, plan.reason(row)) if pack == LEFT_OVER else (grade, pack + 1, group + 1, "")
        for row, (grade, pack, group) in enumerate(
            zip(grades, plan.pack.tolist(), plan.group.tolist(), strict=True)
        )
    ]


def _columns(plan: PackPlan) -> dict[str, list[Any]]:
    grades, numbers, groups, reasons = map(list, zip(*_per_cell(plan), strict=True))
    columns = {"pack": numbers, "series_group": groups, "reason": reasons}
    return columns if plan.grades is None else {GRADE_COLUMN: grades, **columns}


def _weights(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigurationError(f"--weights {text}", ["write three numbers with commas: 0.32,0.45,0.23"]) from None


def _grades(table: CellTable, spec: CellSpec | None) -> list[str] | None:
    """By the specification, else as they stand in the table, else none."""
    if spec is not None:
        from battery_sorting.grading.grader import CellGrader

        return [str(grade) for grade in CellGrader(spec).fit(table).predict(table)]
    column = next((values for name, values in table.extra.items() if name.lower() == GRADE_COLUMN), None)
    return None if column is None else [str(value or "").strip() for value in column]


def _priorities(table: CellTable, column: str | None) -> list[float] | None:
    if column is None:
        return None
    if column not in table.extra:
        raise ConfigurationError(f"--priority {column}", [f"no such column: {suggest(column, list(table.extra))}"])
    values = []
    for name, value in zip(table.ids, table.extra[column], strict=True):
        try:
            number = 0.0 if value in (None, "") else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise ConfigurationError(f"--priority {column}", [f"cell {name}: '{value}' is not a number"])
        values.append(number)
    return values


def _build(
    builder: PackBuilder, table: CellTable, grades: list[str] | None, priority: list[float] | None
) -> PackPlan:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("building packs", total=len(table))
        return builder.fit(table, grades, priority, lambda cells: progress.advance(task, cells)).plan_


def _print(path: Path, plan: PackPlan) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = min(len(plan.members), _SHOWN_PACKS)
    view = Table(title=f"{path.name}: {len(plan.members)} packs {plan.layout}", title_justify="left")
    for heading in (
        "pack",
        "cost",
        "ΔAh",
        "ΔmΩ",
        "ΔmV",
        "usable Ah",
        *(("grade",) if plan.grades is not None else ()),
    ):
        view.add_column(heading, justify="left" if heading == "grade" else "right")
    for number in range(shown):
        capacity, resistance, voltage = plan.ranges[number]
        numbers = (plan.costs[number], capacity, resistance, 1000 * voltage)
        row = [f"{value:.3f}" for value in numbers]
        grade = [] if plan.grades is None else ["".join(sorted(set(plan.grades[plan.members[number]])))]
        view.add_row(str(number + 1), *row, f"{plan.group_ah[number].min():.2f}", *grade)
    console = Console(highlight=False)
    if shown:
        console.print(view)
    if shown < len(plan.members):
        typer.echo(f"… and {len(plan.members) - shown} more packs")
    if not plan.members.size:
        typer.echo(f"no packs: {str(plan.status).replace('_', ' ')}")
    else:
        least = "" if math.isnan(plan.j_lower_bound) else f" (no way below {plan.j_lower_bound:.4f})"
        typer.echo(f"J {plan.j:.4f}{least}; {plan.utilisation:.1%} of the capacity can be used")
    typer.echo(f"{plan.leftover} of {len(plan.pack)} cells left over; {plan.seconds:.2f} s")
    rows = np.flatnonzero(plan.pack == LEFT_OVER)
    warn_of({plan.ids[row]: plan.reason(row) for row in rows.tolist()})
