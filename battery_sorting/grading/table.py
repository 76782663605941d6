"""A table of measured cells, from CSV, Excel or arrays. A bad cell carries its fault and spoils no other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from battery_sorting.core.settings import suggest
from battery_sorting.grading._headers import NAMES as QUANTITIES
from battery_sorting.grading._headers import (
    UNIT_OF,
    UNITS,
    is_no_unit,
    meaning,
    names_a_total,
    plain,
    same,
    unit_at_end,
)
from battery_sorting.grading._numerals import NAMES as SIGN_NAMES
from battery_sorting.grading._numerals import OVERLOAD, Floats, Numerals, read_together
from battery_sorting.grading._sheets import (
    SEARCHED_ROWS,
    Recognise,
    Sheet,
    TableError,
    header_place,
    is_blank,
    read_sheet,
)

__all__ = ["COLUMNS", "INDICATORS", "OVERLOAD", "UNITS", "CellTable", "Column", "Floats", "TableError"]

INDICATORS = ("capacity", "resistance", "ocv")
"""The three quantities by which cells are judged, in the order of `CellTable.as_array`."""
COLUMNS = {"capacity": "capacity_ah", "resistance": "resistance_mohm", "ocv": "ocv_v"}
"""What the columns of the quantities are called in the table's own units."""


@dataclass(frozen=True)
class Column:
    """Where a quantity stands in a file: ``name`` of its column and ``unit``, each None if the header tells it."""

    name: str | None = None
    unit: str | None = None


@dataclass(frozen=True)
class CellTable:
    """Measured cells, one row each.

    Attributes:
        ids: Names of the n cells.
        capacity_ah: (n,) in Ah; NaN where there is no number. So also the two that follow.
        resistance_mohm: (n,) in mΩ.
        ocv_v: (n,) in V.
        uncertainty: Standard uncertainties (n, 3) in the order and units of `as_array`, or None. NaN: not given.
        faults: Row → why the cell can't be used. Rows without an entry have finite numbers above 0 in all
            quantities that are heard (`heard`; unless said otherwise, all three).
        extra: Further columns as they stood in the file: name → n values.
        row_faults: Those of `faults` that concern the cell as a whole: no id, or that of another.
        value_faults: Quantity → row → why its value can't be used, whether or not it is heard.
        notes: What was decided about the file when it was read.
    """

    ids: Sequence[str]
    capacity_ah: Floats
    resistance_mohm: Floats
    ocv_v: Floats
    uncertainty: Floats | None = None
    faults: Mapping[int, str] = field(default_factory=dict)
    extra: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    row_faults: Mapping[int, str] = field(default_factory=dict)
    value_faults: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.capacity_ah)

    @property
    def valid(self) -> npt.NDArray[np.bool_]:
        """(n,) whether a cell has no fault."""
        mask = np.ones(len(self), bool)
        mask[list(self.faults)] = False
        return mask

    def as_array(self) -> Floats:
        """(n, 3) float64: capacity in Ah, resistance in mΩ, open-circuit voltage in V."""
        return np.column_stack([self.capacity_ah, self.resistance_mohm, self.ocv_v])

    def heard(self, indicators: Sequence[str]) -> CellTable:
        """The same cells where only ``indicators`` have a say: a missing or impossible value of others is none."""
        faults = dict(self.row_faults)
        for indicator in INDICATORS:
            if indicator in indicators:
                for row, why in self.value_faults.get(indicator, {}).items():
                    faults.setdefault(row, why)
        return replace(self, faults=faults)

    def select(self, rows: npt.ArrayLike) -> CellTable:
        """The cells of ``rows``, a mask (n,) or indices, in that order."""
        chosen = np.asarray(rows)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.intp)
        numbers = chosen.tolist()
        return CellTable(
            ids=[self.ids[row] for row in numbers],
            capacity_ah=self.capacity_ah[chosen],
            resistance_mohm=self.resistance_mohm[chosen],
            ocv_v=self.ocv_v[chosen],
            uncertainty=None if self.uncertainty is None else self.uncertainty[chosen],
            faults=_renumbered(self.faults, numbers),
            row_faults=_renumbered(self.row_faults, numbers),
            value_faults={name: _renumbered(faults, numbers) for name, faults in self.value_faults.items()},
            notes=self.notes,
            extra={name: [values[row] for row in numbers] for name, values in self.extra.items()},
        )

    @classmethod
    def of_arrays(
        cls,
        capacity_ah: npt.ArrayLike,
        resistance_mohm: npt.ArrayLike,
        ocv_v: npt.ArrayLike,
        ids: Sequence[str] | None = None,
        uncertainty: npt.ArrayLike | None = None,
    ) -> CellTable:
        """A table of numbers. Cells with a value that is not finite, 0, negative or an instrument's mark of an
        overload, and cells that are named twice, get a fault. No ids: 1, 2, 3, …

        Raises:
            ValueError: The arrays differ in length.
        """
        columns = [np.array(values, float).reshape(-1) for values in (capacity_ah, resistance_mohm, ocv_v)]
        names = [str(number) for number in range(1, len(columns[0]) + 1)] if ids is None else list(ids)
        spread = None if uncertainty is None else np.array(uncertainty, float).reshape(-1, 3)
        lengths = {len(names), *map(len, columns), *([] if spread is None else [len(spread)])}
        if len(lengths) > 1:
            raise ValueError(f"columns of one table differ in length: {sorted(lengths)}")
        return _checked(names, columns, spread, {}, {}, {})

    @classmethod
    def read(
        cls,
        path: str | Path,
        columns: Mapping[str, Column] | None = None,
        *,
        needed: Sequence[str] = INDICATORS,
        decimal: str | None = None,
        sheet: str | None = None,
        encoding: str | None = None,
    ) -> CellTable:
        """Read a text file (comma, semicolon, tab or bar; decimal point or comma) or an Excel workbook.

        Quantities are known by the names of their columns, which end in the unit: ``capacity_ah`` or ``_mah``,
        ``resistance_mohm``, ``_ohm`` or ``_uohm``, ``ocv_v`` or ``_mv``, and the same with ``_uncertainty`` before
        the unit for the standard uncertainty. Other ways to write it, like "Capacity (mAh)", are understood. What a
        file leaves open (delimiter, decimal sign, encoding, sheet) is decided by all of it; what that does not
        decide is refused, with the argument that does.

        Args:
            path: The file.
            columns: For files with other headers: column and unit of ``id`` and of the `INDICATORS`.
            needed: Those of the `INDICATORS` that have a say. Others may be missing.
            decimal: The sign before decimals, ``.`` or ``,``; the other one then separates thousands.
            sheet: Of a workbook; not needed where one visible sheet has cells.
            encoding: Of a text file.

        Raises:
            TableError: The file can't be read, has no cells, its columns can't be told, or its numbers can be meant
                in two ways.
        """
        told = dict(columns or {})
        recognise = _recognise(told)
        return _Parser(read_sheet(Path(path), recognise, sheet, encoding), told, needed, decimal, recognise).table()


def _renumbered(faults: Mapping[int, str], rows: Sequence[int]) -> dict[int, str]:
    return {new: faults[old] for new, old in enumerate(rows) if old in faults}


# ---- from rows to a table ----


@dataclass(frozen=True)
class _Found:
    """A column of the file: its place, and the factor to the table's unit."""

    index: int
    factor: float = 1.0


class _Parser:
    """Makes a table of the rows of a file."""

    def __init__(
        self,
        sheet: Sheet,
        columns: dict[str, Column],
        needed: Sequence[str],
        decimal: str | None,
        recognise: Recognise,
    ) -> None:
        if decimal not in (None, ",", "."):
            raise ValueError(f"decimal is ',' or '.', not {decimal!r}")
        self.sheet, self.columns, self.needed, self.decimal = sheet, columns, needed, decimal
        self.source, self.notes = sheet.source, list(sheet.notes)
        rows = sheet.rows
        if not rows:
            wanted = ", ".join(COLUMNS.values())
            raise TableError(self.source, [f"is empty: it needs a header (id, {wanted}) and cells"])
        place, _ = header_place([row for _, row in rows[:SEARCHED_ROWS]], recognise)
        if place:
            self.notes.append(f"the header is line {rows[place][0]}; what stands above it was left out")
        self.header = ["" if name is None else str(name).strip() for name in rows[place][1]]
        self.body = rows[place + 1 :]
        units = self._units_row()
        try:
            self.found, self.used = _find_columns(self.source, self.header, columns, units, needed)
        except TableError as error:
            if sheet.undecided:
                error = TableError(self.source, [*error.problems, self._undecided(rows[place][0])])
            raise error from None
        self._check_encoding(rows[place][0])
        self._leave_out_totals()

    def table(self) -> CellTable:
        source, header, body = self.source, self.header, self.body
        if not body:
            raise TableError(source, ["has a header but no cells"])
        width = len(header)
        misfits = [line for line, row in body if len(row) > width and not is_blank(row[width:])]
        if len(misfits) == len(body):
            remedy = "numbers with a decimal comma? Then separate the columns by semicolons"
            raise TableError(source, [f"rows have more values than the {width} columns of the header: {remedy}"])
        wide = set(misfits)
        faults = {
            n: f"line {line} has more values than the header" for n, (line, _) in enumerate(body) if line in wide
        }
        self._check_formulas()
        ids = [_name(value) for value in self._values(self.found["id"].index)]
        for row, name in enumerate(ids):
            if not name:
                ids[row] = f"line {body[row][0]}"
                faults.setdefault(row, "has no id")
            elif "\n" in name or "\r" in name:
                faults.setdefault(row, "its id has line breaks: is a quotation mark not closed?")
        read = self._numbers()
        values: dict[str, dict[int, str]] = {indicator: {} for indicator in INDICATORS}
        numbers, spread = [], np.full((len(body), len(INDICATORS)), np.nan)
        for place, indicator in enumerate(INDICATORS):
            if indicator not in read:
                numbers.append(np.full(len(body), np.nan))
                values[indicator] = dict.fromkeys(range(len(body)), f"{COLUMNS[indicator]} is missing")
                continue
            column = read[indicator]
            numbers.append(column.values * column.factor)
            for row, why in column.faults.items():
                values[indicator][row] = f"{column.title}: {why}"
            for row in np.flatnonzero(np.isfinite(column.values) & (np.abs(column.values) >= OVERLOAD)).tolist():
                values[indicator][row] = (
                    f"{column.title}: {column.values[row]:g} is the mark of an overload, no reading"
                )
            beside = read.get(f"{indicator}_uncertainty")
            if beside is not None:
                spread[:, place] = beside.values * beside.factor
                for row, why in beside.faults.items():
                    if beside.raw[row] not in (None, ""):  # no uncertainty is no fault
                        values[indicator].setdefault(row, f"{beside.title}: {why}")
        extra = {name: self._values(index) for index, name in enumerate(header) if name and index not in self.used}
        given = any(f"{indicator}_uncertainty" in read for indicator in INDICATORS)
        return _checked(ids, numbers, spread if given else None, faults, values, extra, self.notes, self.needed)

    def _values(self, index: int) -> list[Any]:
        return [row[index] if index < len(row) else None for _, row in self.body]

    def _numbers(self) -> dict[str, Numerals]:
        """The columns of measurements, read together."""
        read = {}
        for key, place in self.found.items():
            if key != "id":
                kind = key if key in INDICATORS else ""
                read[key] = Numerals(self.header[place.index], self._values(place.index), kind, place.factor)
        read_together(list(read.values()), self.decimal)
        problems = []
        for key, column in read.items():
            if column.unclear is None or key.removesuffix("_uncertainty") not in self.needed:
                continue
            row, sign = column.unclear
            other = "." if sign == "," else ","
            problems.append(
                f"line {self.body[row][0]}, column '{column.title}': '{column.raw[row]}' may be a number or a "
                f"thousand times it, and nothing else in the file tells which: if the {SIGN_NAMES[sign]} separates "
                f"decimals add --decimal {SIGN_NAMES[sign]}, if thousands --decimal {SIGN_NAMES[other]}"
            )
        if problems:
            raise TableError(self.source, problems)
        return read

    def _units_row(self) -> dict[int, str]:
        """Column → unit, of a row of units under the header, which is taken away."""
        if not self.body:
            return {}
        line, row = self.body[0]
        row = row[: len(self.header)]
        filled = {index: value for index, value in enumerate(row) if not is_no_unit(value)}
        if not filled or any(not isinstance(value, str) for value in filled.values()):
            return {}
        units = {index: UNIT_OF.get(plain(value)) for index, value in filled.items()}
        if not any(units.values()) or any(re.search(r"\d", str(value)) for value in filled.values()):
            return {}
        measured = {index for index, title in enumerate(self.header) if self._key(title) in (*INDICATORS, "id")}
        unknown = [index for index in measured if index in filled and units[index] is None]
        if unknown and len(unknown) >= sum(1 for index in measured if units.get(index)):
            return {}
        if unknown:
            index = unknown[0]
            problem = f"line {line}, column '{self.header[index]}': '{filled[index]}' is a unit that is not known"
            raise TableError(self.source, [f"{problem}: name the column's unit in the spec or with --columns"])
        self.body = self.body[1:]
        self.notes.append(f"line {line} names the units")
        return {index: unit for index, unit in units.items() if unit}

    def _key(self, title: str) -> str:
        named = {same(column.name): key for key, column in self.columns.items() if column.name}
        return named.get(same(title)) or meaning(plain(title))[0]

    def _leave_out_totals(self) -> None:
        """Rows that hold no cell: totals, averages, and headers that are repeated on each page."""
        place = self.found["id"].index
        kept: list[tuple[int, list[Any]]] = []
        left: list[tuple[int, list[Any]]] = []
        for line, row in self.body:
            name = row[place] if place < len(row) else None
            label = name if not is_blank([name]) else next((v for v in row if not is_blank([v])), None)
            repeated = [("" if v is None else str(v).strip()) for v in row] == self.header
            (left if repeated or names_a_total(label) else kept).append((line, row))
        if left and kept:
            self.body = kept
            shown = ", ".join(str(line) for line, _ in left[:5]) + (", …" if len(left) > 5 else "")
            self.notes.append(f"no cells but totals or headers, left out: line {shown}")

    def _check_encoding(self, line: int) -> None:
        """Texts whose encoding can't be told do no harm in a remark, but in an id or a header they do."""
        if not self.sheet.undecided:
            return
        places = {place.index for place in self.found.values()}
        where = [line for index in places if not self.header[index].isascii()]
        index = self.found["id"].index
        where += [line for line, row in self.body if index < len(row) and not str(row[index]).isascii()]
        if where:
            raise TableError(self.source, [self._undecided(where[0])])

    def _undecided(self, line: int) -> str:
        remedy = "save the table as UTF-8, or say which it is with --encoding (cp1252, gb18030, …)"
        return f"line {line}: its text may be in {self.sheet.undecided}: {remedy}"

    def _check_formulas(self) -> None:
        """A formula whose value nobody has calculated is no 0."""
        formulas = self.sheet.formulas
        if not formulas:
            return
        keys = {place.index: key for key, place in self.found.items()}
        needed = {index for index, key in keys.items() if key.removesuffix("_uncertainty") in ("id", *self.needed)}
        problems = []
        for index in sorted(needed):
            of_column = [(line, formulas[line, index]) for line, _ in self.body if (line, index) in formulas]
            open_ones = [line for line, value in of_column if value is None or (value == "" and index in needed)]
            zeros = [line for line, value in of_column if value == 0 and not isinstance(value, bool)]
            if zeros and (self.sheet.uncalculated or len(zeros) == len(of_column)):
                open_ones += zeros
            if open_ones:
                remedy = "open and save the file in a spreadsheet program, or paste the values in place of formulas"
                where = f"line {min(open_ones)}, column '{self.header[index]}'"
                problems.append(f"{where}: a formula whose value was never calculated: {remedy}")
        if problems:
            raise TableError(self.source, problems)


def _checked(
    ids: Sequence[str],
    columns: list[Floats],
    spread: Floats | None,
    row_faults: dict[int, str],
    value_faults: dict[str, dict[int, str]],
    extra: Mapping[str, Sequence[Any]],
    notes: Sequence[str] = (),
    needed: Sequence[str] = INDICATORS,
) -> CellTable:
    """The table, with a fault for every cell that has no usable numbers or shares its name."""
    for place, (indicator, column) in enumerate(zip(INDICATORS, columns, strict=True)):
        own = value_faults.setdefault(indicator, {})
        for mask, why in (
            (~np.isfinite(column), "is not a finite number"),
            (np.isfinite(column) & (np.abs(column) >= OVERLOAD), "is the mark of an overload, no reading"),
            (column < 0, "is negative"),
            (column == 0, "is 0, which no cell has: not measured?"),
        ):
            for row in np.flatnonzero(mask).tolist():
                own.setdefault(row, f"{COLUMNS[indicator]} {why}")
        if spread is not None:
            beside = spread[:, place]
            for row in np.flatnonzero((beside < 0) | (np.abs(beside) >= OVERLOAD)).tolist():
                own.setdefault(row, "an uncertainty is negative or infinite")
    if len(set(ids)) < len(ids):
        _mark_duplicates(ids, row_faults)
    table = CellTable(
        ids,
        columns[0],
        columns[1],
        columns[2],
        spread,
        extra=extra,
        row_faults=row_faults,
        value_faults=value_faults,
        notes=tuple(notes),
    )
    return table.heard(needed)


def _mark_duplicates(ids: Sequence[str], faults: dict[int, str]) -> None:
    """Which of two cells of one name is which, nobody can say: neither is used."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(ids):
        rows.setdefault(name, []).append(row)
    for name, same_name in rows.items():
        for row in same_name if len(same_name) > 1 else ():
            faults.setdefault(row, f"{len(same_name)} cells have the id '{name}'")


def _name(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():  # Excel knows no integers
        value = int(value)
    return "" if value is None else str(value).strip()


# ---- which column is which ----


def _recognise(columns: Mapping[str, Column]) -> Recognise:
    """Counts the quantities that a row of texts names."""
    named = {same(column.name): key for key, column in columns.items() if column.name}

    def count(row: list[Any]) -> int:
        texts = [value for value in row if isinstance(value, str)]
        keys = {named.get(same(text)) or meaning(plain(text))[0] for text in texts}
        keys |= {_of_unit(plain(text)) for text in texts}
        return len(keys & {"id", *INDICATORS})

    return count


def _of_unit(title: str) -> str:
    """Quantity of a name that is known but for its unit: ``capacity_wh``."""
    stem = title.rpartition("_")[0]
    return next((indicator for indicator in INDICATORS if stem in QUANTITIES[indicator]), "")


def _find_columns(
    source: str, header: list[str], columns: dict[str, Column], units: Mapping[int, str], needed: Sequence[str]
) -> tuple[dict[str, _Found], set[int]]:
    """Quantity → its column, and the indices of all columns that have a meaning."""
    problems: list[str] = []
    candidates: dict[str, list[_Found]] = {}
    named = {same(column.name): key for key, column in columns.items() if column.name}
    for index, title in enumerate(header):
        flat = plain(title)
        by_name = same(title) in named and bool(title)
        key, unit = (named[same(title)], None) if by_name else meaning(flat)
        indicator = key.removesuffix("_uncertainty")
        if not key or (not by_name and columns.get(key, Column()).name):
            continue
        if key == "id":
            candidates.setdefault(key, []).append(_Found(index))
            continue
        stated = columns.get(indicator, Column()).unit
        below = units.get(index)
        told = {unit or unit_at_end(indicator, flat), below} - {None}
        if not told and stated:
            told = {stated}
        if len(told) != 1 or not told <= set(UNITS[indicator]):
            if indicator in needed:
                first, *others = UNITS[indicator]
                names = f"{flat}_{first} or {flat}_{', '.join(others)}"
                remedy = f"call it {names}, or name the unit in the spec or by --columns"
                what = (
                    f"has two units, {' and '.join(sorted(map(str, told)))}"
                    if len(told) > 1
                    else "does not tell its unit"
                )
                problems.append(f"column '{title}' {what}: {remedy}")
            continue
        candidates.setdefault(key, []).append(_Found(index, UNITS[indicator][str(told.pop())]))
    for key, places in candidates.items():
        places[:] = _best_named(key, places, header, named)
        if len(places) > 1 and key.removesuffix("_uncertainty") in ("id", *needed):
            titles = " and ".join(f"'{header[place.index]}'" for place in places)
            problems.append(f"columns {titles} both hold the {key.replace('_', ' ')}: keep one of them")
    told_keys = {meaning(plain(title))[0] for title in header}
    for key, wanted in (("id", "id"), *((name, COLUMNS[name]) for name in INDICATORS if name in needed)):
        if key not in candidates and not (key in told_keys and key not in columns):
            stated_name = columns.get(key, Column()).name
            close = suggest(stated_name or wanted, [title for title in header if title])
            problems.append(f"there is no column '{stated_name or wanted}': {close}")
    if problems:
        raise TableError(source, problems)
    found = {key: places[0] for key, places in candidates.items()}
    return found, {place.index for place in found.values()}


def _best_named(key: str, places: list[_Found], header: list[str], named: Mapping[str, str]) -> list[_Found]:
    """Of the columns that may hold a quantity those with its plainest name: ``ocv_v`` rather than ``voltage_v``."""
    names = QUANTITIES[key.removesuffix("_uncertainty")]

    def rank(place: _Found) -> int:
        if same(header[place.index]) in named:
            return -1
        flat = plain(header[place.index])
        return next((n for n, name in enumerate(names) if name == flat or f"_{name}_" in f"_{flat}_"), -1)

    best = min(map(rank, places))
    return [place for place in places if rank(place) == best]
