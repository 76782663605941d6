"""What the commands on tables of cells share: reading them with their specification, and writing results."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from battery_sorting.cli._destinations import PAGES, PICTURES, TABLES, check_files
from battery_sorting.cli._output import remark, say
from battery_sorting.core.errors import BatterySortingError, ConfigurationError
from battery_sorting.grading.specification import CellSpec
from battery_sorting.grading.table import INDICATORS, UNITS, CellTable, Column

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

DecimalOption = Annotated[
    str | None,
    typer.Option("--decimal", help="What separates decimals in the table: point or comma; else the file tells it."),
]
SheetOption = Annotated[str | None, typer.Option("--sheet", help="Sheet of a workbook, if several have cells.")]
EncodingOption = Annotated[
    str | None,
    typer.Option("--encoding", help="Of a text table: utf-8, cp1252, gb18030, …; else found."),
]
ColumnsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--columns", help="A column by its header: 'capacity=Entladekap. (mAh)', 'resistance=Ri:mohm', 'id=编号'."
    ),
]

_SHOWN_FAULTS = 10


@dataclass(frozen=True)
class Reading:
    """How the user says a table is to be read: the options `--columns`, `--decimal`, `--sheet`, `--encoding`."""

    columns: Sequence[str] | None = None
    decimal: str | None = None
    sheet: str | None = None
    encoding: str | None = None

    def table(
        self, path: Path, of_spec: Mapping[str, Column] | None = None, needed: Sequence[str] = INDICATORS
    ) -> CellTable:
        """The table; what was decided about it is told on standard error.

        Raises:
            TableError: The table can't be read, its columns can't be told, or its numbers can be meant in two ways.
            ConfigurationError: An option is wrong.
        """
        columns = {**(of_spec or {}), **_columns(self.columns or [])}
        table = CellTable.read(
            path, columns, needed=needed, decimal=self._sign(), sheet=self.sheet, encoding=self.encoding
        )
        for note in table.notes:
            remark(f"{path.name}: {note}")
        return table

    def _sign(self) -> str | None:
        signs = {"point": ".", ".": ".", "comma": ",", ",": ","}
        if self.decimal is None:
            return None
        if self.decimal.lower() not in signs:
            raise ConfigurationError(f"--decimal {self.decimal}", ["is either point or comma"])
        return signs[self.decimal.lower()]


def _columns(texts: Sequence[str]) -> dict[str, Column]:
    """Of options like ``capacity=Kap. (mAh)`` and ``resistance=Ri:mohm``."""
    columns, problems = {}, []
    for text in texts:
        key, _, title = text.partition("=")
        key = key.strip().lower()
        name, colon, unit = title.rpartition(":")
        if not colon or unit.strip().lower() not in UNITS.get(key, {}):
            name, unit = title, ""
        if key not in ("id", *INDICATORS) or not name.strip():
            known = ", ".join(("id", *INDICATORS))
            problems.append(f"'{text}': write one of {known}, then = and the header, as in capacity=Kap:mah")
        columns[key] = Column(name.strip(), unit.strip().lower() or None)
    if problems:
        raise ConfigurationError("--columns", problems)
    return columns


def read_cells(path: Path, spec: str, reading: Reading) -> tuple[CellTable, CellSpec]:
    """The table and the specification of its cells. What has no say in a grade may be missing.

    Raises:
        TableError: The table can't be read, its columns can't be told, or its numbers can be meant in two ways.
        ConfigurationError: The specification or an option is wrong.
    """
    kind = CellSpec.load(spec)
    return reading.table(path, kind.table_columns(), kind.heard()), kind


def warn_of(reasons: Mapping[str, str]) -> None:
    """Tell on standard error which cells are left out and why: id → reason."""
    for name, reason in list(reasons.items())[:_SHOWN_FAULTS]:
        remark(f"{name}: {reason}")
    if len(reasons) > _SHOWN_FAULTS:
        remark(f"… and {len(reasons) - _SHOWN_FAULTS} more")


def check_outputs(source: Path, plot: Path | None, report: Path | None, output: Path | None) -> None:
    """Refuse results that can't be written before any work is done for them; ``source`` is the table that is read.

    Raises:
        ConfigurationError: A file would replace the table itself or another result, it can't be written, or its
            kind isn't known.
    """
    options = {"--plot": (plot, PICTURES), "--report": (report, PAGES), "--output": (output, TABLES)}
    check_files(options, [source], "the table of cells")


def say_written(*paths: Path | None) -> None:
    """Name the files that were asked for."""
    for path in paths:
        if path is not None:
            say(f"written: {path}")


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
