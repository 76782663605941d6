"""What the commands on tables of cells share: reading them with their specification, and writing results."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from battery_sorting.core.errors import BatterySortingError, ConfigurationError
from battery_sorting.grading.specification import CellSpec
from battery_sorting.grading.table import CellTable

CellsArgument = Annotated[
    Path, typer.Argument(help="Table of cells: CSV or .xlsx with id, capacity_ah, resistance_mohm, ocv_v.")
]
SpecOption = Annotated[
    str, typer.Option("--spec", help="Kind of the cells: a name in config/cells, or a file; sets grades and units.")
]
NormOption = Annotated[
    str, typer.Option("--norm", help="What a cell is compared with: its specification (spec) or the batch (batch).")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PlotOption = Annotated[Path | None, typer.Option("--plot", help="Picture to write (.png, .svg or .pdf).")]
ReportOption = Annotated[Path | None, typer.Option("--report", help="HTML report to write.")]
OutputOption = Annotated[
    Path | None, typer.Option("--output", help="The table with the results beside it: .csv or .xlsx.")
]

TABLE_KINDS = (".csv", ".xlsx")
_SHOWN_FAULTS = 10


def read_cells(path: Path, spec: str) -> tuple[CellTable, CellSpec]:
    """The table and the specification of its cells.

    Raises:
        TableError: The table can't be read, or its columns can't be told.
        ConfigurationError: The specification is wrong.
    """
    kind = CellSpec.load(spec)
    return CellTable.read(path, kind.table_columns()), kind


def warn_of(reasons: Mapping[str, str]) -> None:
    """Tell on standard error which cells are left out and why: id → reason."""
    console = Console(stderr=True, highlight=False, markup=False)
    for name, reason in list(reasons.items())[:_SHOWN_FAULTS]:
        console.print(f"{name}: {reason}", soft_wrap=True)
    if len(reasons) > _SHOWN_FAULTS:
        console.print(f"… and {len(reasons) - _SHOWN_FAULTS} more")


def check_outputs(source: Path, *paths: Path | None, table: Path | None = None) -> None:
    """Refuse results that can't be written before any work is done for them.

    Args:
        source: The table of cells that is read.
        paths: Files that will be written.
        table: One of them that `write_table` will write.

    Raises:
        ConfigurationError: A file would replace the table itself, its folder isn't there, or its kind isn't known.
    """
    if table is not None and table.suffix.lower() not in TABLE_KINDS:
        raise ConfigurationError(str(table), [f"a table can be written as {' or '.join(TABLE_KINDS)}"])
    for path in paths:
        if path is None:
            continue
        if path.resolve() == source.resolve():
            raise ConfigurationError(str(path), ["is the table of cells itself: name another file for the result"])
        if not path.parent.is_dir():
            raise ConfigurationError(str(path), [f"there is no folder {path.parent}: make it first"])


def write_table(path: Path, cells: CellTable, results: Mapping[str, Sequence[Any]]) -> None:
    """Write the cells with further columns: CSV, or Excel if ``path`` ends in .xlsx.

    Raises:
        BatterySortingError: The file can't be written.
    """
    columns: dict[str, Sequence[Any]] = {
        "id": cells.ids,
        "capacity_ah": cells.capacity_ah.tolist(),
        "resistance_mohm": cells.resistance_mohm.tolist(),
        "ocv_v": cells.ocv_v.tolist(),
        **_uncertainties(cells),
        **{name: values for name, values in cells.extra.items() if name not in results},
        **results,
    }
    rows = ([_plain(value) for value in row] for row in zip(*columns.values(), strict=True))
    try:
        if path.suffix.lower() == ".xlsx":
            _write_excel(path, list(columns), rows)
        else:
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(columns)
                writer.writerows(rows)
    except OSError as error:
        raise BatterySortingError(f"{path}: can't be written ({error.strerror}); name another file") from error


def _uncertainties(cells: CellTable) -> dict[str, Sequence[Any]]:
    if cells.uncertainty is None:
        return {}
    names = ("capacity_uncertainty_ah", "resistance_uncertainty_mohm", "ocv_uncertainty_v")
    columns = zip(names, cells.uncertainty.T, strict=True)
    return {name: column.tolist() for name, column in columns if not np.isnan(column).all()}


def _write_excel(path: Path, header: list[str], rows: Iterable[list[Any]]) -> None:
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    book = Workbook(write_only=True)
    sheet = book.create_sheet("cells")
    sheet.append(header)
    for row in rows:
        cells = []
        for value in row:
            text = isinstance(value, str)
            cell = WriteOnlyCell(sheet, ILLEGAL_CHARACTERS_RE.sub(" ", value) if text else value)
            if text:
                cell.data_type = "s"  # an id like "=A1" is a text and no formula
            cells.append(cell)
        sheet.append(cells)
    book.save(path)


def _plain(value: Any) -> Any:
    """Nothing where there is no number."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def finite(value: float, digits: int) -> float | None:
    """A number as it stands in JSON, which knows neither NaN nor infinity."""
    return round(float(value), digits) if math.isfinite(value) else None
