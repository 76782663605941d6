"""`battery-sorting packs`: packs of a layout from a table of measured cells."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from battery_sorting.cli._cells import (
    CellsArgument,
    ColumnsOption,
    DecimalOption,
    EncodingOption,
    JsonOption,
    OutputOption,
    PlotOption,
    Reading,
    ReportOption,
    SheetOption,
    check_outputs,
    finite,
    read_cells,
    say_written,
    warn_of,
    write_table,
)
from battery_sorting.cli._exit import ExitCode
from battery_sorting.cli._output import most, say, show, write_json
from battery_sorting.cli._progress import advancing_bar
from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.settings import suggest
from battery_sorting.grading._headers import plain
from battery_sorting.grading.packing.names import grade_named
from battery_sorting.grading.packs import LEFT_OVER, REJECTED, WEIGHTS, Layout, PackBuilder, PackPlan, Tolerances
from battery_sorting.grading.specification import CellSpec
from battery_sorting.grading.table import COLUMNS, INDICATORS, CellTable, TableError

GRADE_COLUMN = "grade"
GRADE_COLUMNS = (
    *(GRADE_COLUMN, "cell_grade", "quality_grade", "grading", "klasse", "güteklasse"),
    *("等级", "等級", "分级", "级别", "класс", "сорт", "등급"),
)
"""What the column of the grades may be called."""
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
    columns: ColumnsOption = None,
    decimal: DecimalOption = None,
    sheet: SheetOption = None,
    encoding: EncodingOption = None,
) -> None:
    """Build packs of cells that are alike, and say of each cell that is left over why."""
    shares = _weights(weights)
    builder = PackBuilder(
        Layout.parse(layout),
        within_grade,
        Tolerances.parse(tolerance) if tolerance else None,
        Tolerances.parse(scale) if scale else None,
        shares,
        [grade.strip() for grade in reject.split(",") if grade.strip()],
        seed,
        effort,
        bound,
        threads,
    )
    check_outputs(cells, plot, report, output)
    reading = Reading(columns, decimal, sheet, encoding)
    if spec is None:
        table, kind = _table(cells, reading, builder.heard()), None
    else:
        table, kind = read_cells(cells, spec, reading)
    grades = _grades(table, kind)
    plan = _build(builder, table, grades, _priorities(table, priority))
    if output is not None:
        write_table(output, table, _columns(plan))
    if plot is not None:
        from battery_sorting.report.grading.packs import write_pack_plot

        write_pack_plot(plot, table, plan)
    if report is not None:
        from battery_sorting.report.grading.packs import write_pack_page

        write_pack_page(report, cells, table, plan)
    if json:
        write_json(as_dict(plan), indent=1)
    else:
        _print(cells, plan)
        say_written(output, plot, report)
    if not plan.members.size:
        raise typer.Exit(ExitCode.NO)


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


def _table(path: Path, reading: Reading, heard: tuple[str, ...]) -> CellTable:
    """The table without a specification. What has neither weight nor tolerance may be missing."""
    try:
        return reading.table(path, needed=heard)
    except TableError as error:
        missing = [name for name in heard if any(f"no column '{COLUMNS[name]}'" in text for text in error.problems)]
        if not missing or len(missing) == len(INDICATORS):
            raise
        shares = ",".join("0" if name in missing or name not in heard else "1" for name in INDICATORS)
        remedy = f"to pack by the others alone: --weights {shares}, and no tolerance of what is missing"
        raise TableError(str(path), [*error.problems, remedy]) from None


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
    column = next((values for name, values in table.extra.items() if plain(name) in GRADE_COLUMNS), None)
    return None if column is None else [grade_named(value) for value in column]


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
    with advancing_bar("building packs", len(table)) as advance:
        return builder.fit(table, grades, priority, advance).plan_


def _print(path: Path, plan: PackPlan) -> None:
    from rich.table import Table

    shown = len(plan.members[: most(_SHOWN_PACKS)])
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
        row = ["–" if math.isnan(value) else f"{value:.3f}" for value in numbers]
        grade = [] if plan.grades is None else ["".join(sorted(set(plan.grades[plan.members[number]])))]
        view.add_row(str(number + 1), *row, f"{plan.group_ah[number].min():.2f}", *grade)
    if shown:
        show(view)
    if shown < len(plan.members):
        say(f"… and {len(plan.members) - shown} more packs")
    if not plan.members.size:
        say(f"no packs: {str(plan.status).replace('_', ' ')}")
    else:
        least = "" if math.isnan(plan.j_lower_bound) else f" (no way below {plan.j_lower_bound:.4f})"
        say(f"J {plan.j:.4f}{least}; {plan.utilisation:.1%} of the capacity can be used")
    say(f"{plan.leftover} of {len(plan.pack)} cells left over; {plan.seconds:.2f} s")
    rows = np.flatnonzero(plan.pack == LEFT_OVER)
    warn_of({plan.ids[row]: plan.reason(row) for row in rows.tolist()})
