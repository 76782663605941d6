"""`battery-sorting regroup`: groups of cells that are alike, within the grades or across them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from battery_sorting.cli._progress import status
from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.settings import suggest
from battery_sorting.report.grading.group_text import describe, summary

if TYPE_CHECKING:
    from battery_sorting.grading.grader import Grades
    from battery_sorting.grading.groups import RegroupedPart, Regrouping, RegroupOptions
    from battery_sorting.grading.table import CellTable

METHODS = ("dbscan-gmm", "dbscan-gmm-published", "gmm", "dbscan", "kmeans", "agglomerative")
NOISE = ("assign", "apart")


def regroup(
    cells: CellsArgument,
    spec: SpecOption,
    norm: NormOption = "spec",
    method: Annotated[str, typer.Option("--method", help=f"One of {', '.join(METHODS)}.")] = "dbscan-gmm",
    groups: Annotated[
        int | None, typer.Option("--groups", min=1, help="Groups of each grade; else the number is found.")
    ] = None,
    noise: Annotated[
        str, typer.Option("--noise", help="Noise of DBSCAN: to its likeliest group (assign), or to none (apart).")
    ] = "assign",
    across: Annotated[
        bool, typer.Option("--across/--within-grade", help="Cells of different grades may share a group.")
    ] = False,
    min_group_size: Annotated[
        int, typer.Option("--min-group-size", min=1, help="Least cells of a group, for dbscan-gmm.")
    ] = 2,
    max_groups: Annotated[
        int | None,
        typer.Option(
            "--max-groups",
            min=2,
            help="Most groups of a grade if their number is found; else 8, or all twins.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the random starts of gmm and kmeans.")] = 0,
    json: JsonOption = False,
    plot: PlotOption = None,
    report: ReportOption = None,
    output: OutputOption = None,
    columns: ColumnsOption = None,
    decimal: DecimalOption = None,
    sheet: SheetOption = None,
    encoding: EncodingOption = None,
) -> None:
    """Regroup graded cells: those that are alike in capacity, resistance and voltage."""
    for option, value, known in (
        ("--method", method, METHODS),
        ("--noise", noise, NOISE),
        ("--norm", norm, ("spec", "batch")),
    ):
        if value not in known:
            raise ConfigurationError(f"{option} {value}", [suggest(value, known)])
    check_outputs(cells, plot, report, output)
    table, kind = read_cells(cells, spec, Reading(columns, decimal, sheet, encoding))
    from battery_sorting.grading.grader import CellGrader
    from battery_sorting.grading.grouper import Noise
    from battery_sorting.grading.groups import Method, RegroupOptions

    grades = CellGrader(kind, norm).fit(table).grade(table)  # type: ignore[arg-type]  # checked above
    options = RegroupOptions(
        Method(method), groups, Noise(noise), across, min_group_size, max_groups, seed, kind.units()
    )
    found = _regroup(table, grades, options)
    if output is not None:
        write_table(output, table, {"grade": grades.grades.tolist(), **_columns(found)})
    if plot is not None:
        from battery_sorting.report.grading.groups import write_group_plot

        write_group_plot(plot, table, found)
    if report is not None:
        from battery_sorting.report.grading.groups import write_group_page

        write_group_page(report, cells, table, grades, found, options)
    if json:
        write_json(as_dict(table, grades, found, options), indent=1)
    else:
        _print(cells, table, found, options)
        say_written(output, plot, report)
    if not found.counts():
        raise typer.Exit(ExitCode.NO)


def _regroup(table: CellTable, grades: Grades, options: RegroupOptions) -> Regrouping:
    from battery_sorting.grading.groups import regroup as run

    with status("regrouping") as told:
        found = run(table.as_array(), grades.grades, options, lambda name: told(f"regrouping {name}"))
    for row in np.flatnonzero(found.groups == "").tolist():
        found.reasons[row] = grades.reasons.get(row) or found.reasons.get(row, "")
    return found


def as_dict(table: CellTable, grades: Grades, found: Regrouping, options: RegroupOptions) -> dict[str, Any]:
    """What `--json` prints: per cell, per part, and in all. Numbers that aren't there are null."""
    rows = [
        {
            "id": name,
            "grade": str(grade),
            "relation_degree": finite(degree, 6),
            "group": group or None,
            "reason": found.reasons.get(row, ""),
        }
        for row, (name, grade, degree, group) in enumerate(
            zip(table.ids, grades.grades.tolist(), grades.degrees.tolist(), found.groups.tolist(), strict=True)
        )
    ]
    return {
        "method": str(options.method),
        "noise": str(options.noise),
        "across": options.across,
        "cells": rows,
        "parts": [_part(part) for part in found.parts],
        "counts": found.counts(),
        "ungrouped": int((found.groups == "").sum()),
        "si": finite(found.si(), 6),
        "dbi": finite(found.dbi(), 6),
        "noise_fraction": round(found.noise_fraction(), 6),
        "seconds": round(found.seconds, 4),
    }


def _part(part: RegroupedPart) -> dict[str, Any]:
    indices = {key: value if value is None else round(value, 6) for key, value in part.validity.as_dict().items()}
    return {
        "name": part.name,
        "status": str(part.status),
        "cells": part.cells,
        **indices,
        "groups": dict(part.groups),
        "weak": part.weak,
        "eps": finite(part.eps, 6),
        "min_pts": part.min_pts or None,
        "seconds": round(part.seconds, 4),
    }


def _columns(found: Regrouping) -> dict[str, list[Any]]:
    return {
        "group": found.groups.tolist(),
        "group_reason": [found.reasons.get(row, "") for row in range(len(found.groups))],
    }


def _print(path: Path, table: CellTable, found: Regrouping, options: RegroupOptions) -> None:
    from rich.table import Table

    view = Table(title=f"{path.name}: {len(table)} cells regrouped by {options.method}", title_justify="left")
    for heading in ("group", "cells", "capacity, Ah", "resistance, mΩ", "OCV, V"):
        view.add_column(heading, justify="left" if heading == "group" else "right")
    for name, *columns in summary(table, found):
        view.add_row(name, *columns)
    show(view)
    for part in found.parts:
        say(describe(part))
    say(f"{found.seconds:.2f} s")
    warn_of({table.ids[row]: reason for row, reason in sorted(found.reasons.items())})
