"""A table of measured cells, from CSV, Excel or arrays. A bad cell carries its fault and spoils no other."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from battery_sorting.core.errors import ConfigurationError
from battery_sorting.core.settings import suggest

Floats = npt.NDArray[np.float64]

INDICATORS = ("capacity", "resistance", "ocv")
"""The three quantities by which cells are judged, in the order of `CellTable.as_array`."""
UNITS: dict[str, dict[str, float]] = {
    "capacity": {"ah": 1.0, "mah": 1e-3},
    "resistance": {"mohm": 1.0, "ohm": 1e3, "uohm": 1e-3},
    "ocv": {"v": 1.0, "mv": 1e-3},
}
"""Units that columns may have, as factors to those of the table: Ah, mΩ, V."""
COLUMNS = {"capacity": "capacity_ah", "resistance": "resistance_mohm", "ocv": "ocv_v"}
"""What the columns of the quantities are called in the table's own units."""

_NAMES = {
    "capacity": ("capacity", "discharge_capacity", "cap"),
    "resistance": ("resistance", "internal_resistance", "impedance", "dcir", "acir", "ir"),
    "ocv": ("ocv", "open_circuit_voltage", "voltage"),
}
_ID_NAMES = ("id", "cell_id", "battery_id", "cell", "serial", "serial_number")
_UNCERTAINTY = {"uncertainty", "unc", "std", "sd", "sigma", "u"}
_DELIMITERS = (",", ";", "\t")
_LONGEST_LIST = 3


class TableError(ConfigurationError):
    """A file of cells can't be read as a table. ``problems`` says what is wrong and what to do."""

    code = "cell_table"


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
        faults: Row → why the cell can't be used. Rows without an entry have finite numbers that aren't negative.
        extra: Further columns as they stood in the file: name → n values.
    """

    ids: Sequence[str]
    capacity_ah: Floats
    resistance_mohm: Floats
    ocv_v: Floats
    uncertainty: Floats | None = None
    faults: Mapping[int, str] = field(default_factory=dict)
    extra: Mapping[str, Sequence[Any]] = field(default_factory=dict)

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
            faults={new: self.faults[old] for new, old in enumerate(numbers) if old in self.faults},
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
        """A table of numbers; cells that are not finite, negative or named twice get a fault. No ids: 1, 2, 3, …

        Raises:
            ValueError: The arrays differ in length.
        """
        columns = [np.array(values, float).reshape(-1) for values in (capacity_ah, resistance_mohm, ocv_v)]
        names = [str(number) for number in range(1, len(columns[0]) + 1)] if ids is None else list(ids)
        spread = None if uncertainty is None else np.array(uncertainty, float).reshape(-1, 3)
        lengths = {len(names), *map(len, columns), *([] if spread is None else [len(spread)])}
        if len(lengths) > 1:
            raise ValueError(f"columns of one table differ in length: {sorted(lengths)}")
        return _checked(names, columns, spread, {}, {})

    @classmethod
    def read(cls, path: str | Path, columns: Mapping[str, Column] | None = None) -> CellTable:
        """Read a CSV file (comma, semicolon or tab; decimal point or comma) or an Excel workbook.

        Quantities are known by the names of their columns, which end in the unit: ``capacity_ah`` or ``_mah``,
        ``resistance_mohm``, ``_ohm`` or ``_uohm``, ``ocv_v`` or ``_mv``, and the same with ``_uncertainty`` before
        the unit for the standard uncertainty. Other ways to write it, like "Capacity (mAh)", are understood.

        Args:
            path: The file. Of a workbook the first sheet is read.
            columns: For files with other headers: column and unit of ``id`` and of the `INDICATORS`.

        Raises:
            TableError: The file can't be read, has no cells, or its columns can't be told.
        """
        return _parse(_read(Path(path)), dict(columns or {}))


# ---- from file to rows of values ----


@dataclass(frozen=True)
class _Sheet:
    """Rows of a file that aren't empty, each with its line. ``decimal_comma``: no comma is a separator there."""

    source: str
    rows: list[tuple[int, list[Any]]]
    decimal_comma: bool = False


def _read(path: Path) -> _Sheet:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TableError(str(path), [f"can't be read: {error.strerror}"]) from error
    if content.startswith(b"PK\x03\x04"):
        return _Sheet(str(path), _without_blanks(_excel_rows(str(path), content)))
    if content.startswith(b"\xd0\xcf\x11\xe0"):
        raise TableError(str(path), ["is an Excel file of the old kind (.xls): save it as .xlsx or CSV"])
    return _read_csv(str(path), _decoded(str(path), content))


def _without_blanks(rows: Iterable[tuple[int, list[Any]]]) -> list[tuple[int, list[Any]]]:
    return [(line, row) for line, row in rows if row and (row[0] or not _is_blank(row))]


def _is_blank(row: Sequence[Any]) -> bool:
    return all(value in (None, "") for value in row)


def _decoded(source: str, content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", errors="replace")
    if b"\0" in content[:4096]:
        raise TableError(source, ["is neither a text nor an Excel file: give a CSV or .xlsx table"])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")  # what Excel writes in Western Europe


def _read_csv(source: str, text: str) -> _Sheet:
    first_line, _, rest = text.partition("\n")
    skipped = 0
    stated = re.fullmatch(r"sep=(.)\r?", first_line.strip("\n"))  # Excel's way to name the delimiter
    if stated:
        text, skipped, delimiter = rest, 1, stated[1]
    else:
        header = next((line for line in text.splitlines() if line.strip()), "")
        delimiter = max(_DELIMITERS, key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    try:
        rows = _without_blanks((reader.line_num + skipped, row) for row in reader)
    except csv.Error as error:
        raise TableError(source, [f"line {reader.line_num + skipped}: is not CSV: {error}"]) from error
    return _Sheet(source, rows, decimal_comma=delimiter != ",")


def _excel_rows(source: str, content: bytes) -> Iterable[tuple[int, list[Any]]]:
    from openpyxl import load_workbook

    try:
        book = load_workbook(io.BytesIO(content), read_only=True, data_only=True)
    except Exception as error:  # a broken archive fails in many ways
        raise TableError(source, [f"is no Excel workbook that can be read: {error}"]) from error
    try:
        if not book.worksheets:
            raise TableError(source, ["has no sheet with cells"])
        sheet = book.worksheets[0]
        sheet.reset_dimensions()  # some programs write wrong ones
        return [(line, list(row)) for line, row in enumerate(sheet.iter_rows(values_only=True), 1)]
    except TableError:
        raise
    except Exception as error:
        raise TableError(source, [f"its first sheet can't be read: {error}"]) from error
    finally:
        book.close()


# ---- from rows to a table ----


@dataclass(frozen=True)
class _Found:
    """A column of the file: its place, and the factor to the table's unit."""

    index: int
    factor: float = 1.0


def _parse(sheet: _Sheet, columns: dict[str, Column]) -> CellTable:
    source, rows = sheet.source, sheet.rows
    if not rows:
        raise TableError(source, [f"is empty: it needs a header (id, {', '.join(COLUMNS.values())}) and cells"])
    header = ["" if name is None else str(name).strip() for name in rows[0][1]]
    found, used = _find_columns(source, header, columns)
    body = rows[1:]
    if not body:
        raise TableError(source, ["has a header but no cells"])
    width = len(header)
    misfits = [line for line, row in body if len(row) > width and not _is_blank(row[width:])]
    if len(misfits) == len(body):
        remedy = "numbers with a decimal comma? Then separate the columns by semicolons"
        raise TableError(source, [f"rows have more values than the {width} columns of the header: {remedy}"])
    wide = set(misfits)
    faults = {n: f"line {line} has more values than the header" for n, (line, _) in enumerate(body) if line in wide}

    def values(index: int) -> list[Any]:
        return [row[index] if index < len(row) else None for _, row in body]

    def measured(index: int) -> list[Any]:
        return _with_points(values(index), sheet.decimal_comma)

    ids = [_name(value) for value in values(found["id"].index)]
    for row, name in enumerate(ids):
        if not name:
            ids[row] = f"line {body[row][0]}"
            faults.setdefault(row, "has no id")
        elif "\n" in name or "\r" in name:
            faults.setdefault(row, "its id has line breaks: is a quotation mark not closed?")
    numbers = []
    for indicator in INDICATORS:
        place = found[indicator]
        column, bad = _numbers(measured(place.index))
        numbers.append(column * place.factor)
        for row, why in bad.items():
            faults.setdefault(row, f"{header[place.index]}: {why}")
    spread = _uncertainties(header, found, measured, len(body), faults)
    extra = {name: values(index) for index, name in enumerate(header) if name and index not in used}
    return _checked(ids, numbers, spread, faults, extra)


def _uncertainties(
    header: list[str], found: dict[str, _Found], measured: Any, count: int, faults: dict[int, str]
) -> Floats | None:
    """(count, 3) as in the file, None where no column has any; adds to ``faults``."""
    given = [indicator for indicator in INDICATORS if f"{indicator}_uncertainty" in found]
    if not given:
        return None
    spread = np.full((count, len(INDICATORS)), np.nan)
    for indicator in given:
        place = found[f"{indicator}_uncertainty"]
        raw = measured(place.index)
        column, bad = _numbers(raw)
        for row, why in bad.items():
            if raw[row] not in (None, ""):  # no uncertainty is no fault
                faults.setdefault(row, f"{header[place.index]}: {why}")
        spread[:, INDICATORS.index(indicator)] = column * place.factor
    return spread


def _checked(
    ids: Sequence[str],
    columns: list[Floats],
    spread: Floats | None,
    faults: dict[int, str],
    extra: Mapping[str, Sequence[Any]],
) -> CellTable:
    """The table, with a fault for every cell that has no usable numbers or shares its name."""
    for indicator, column in zip(INDICATORS, columns, strict=True):
        for mask, why in ((~np.isfinite(column), "is not a finite number"), (column < 0, "is negative")):
            for row in np.flatnonzero(mask).tolist():
                faults.setdefault(row, f"{COLUMNS[indicator]} {why}")
    if spread is not None:
        for row in np.flatnonzero(((spread < 0) | np.isinf(spread)).any(axis=1)).tolist():
            faults.setdefault(row, "an uncertainty is negative or infinite")
    if len(set(ids)) < len(ids):
        _mark_duplicates(ids, faults)
    return CellTable(ids, columns[0], columns[1], columns[2], spread, faults, extra)


def _mark_duplicates(ids: Sequence[str], faults: dict[int, str]) -> None:
    """Which of two cells of one name is which, nobody can say: neither is used."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(ids):
        rows.setdefault(name, []).append(row)
    for name, same in rows.items():
        for row in same if len(same) > 1 else ():
            faults.setdefault(row, f"{len(same)} cells have the id '{name}'")


def _name(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():  # Excel knows no integers
        value = int(value)
    return "" if value is None else str(value).strip()


_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d*,\d+(?:[eE][+-]?\d+)?\s*")
_LIKE_THOUSANDS = re.compile(r"\s*[+-]?\d{1,3},\d{3}\s*")


def _with_points(raw: list[Any], decimal_comma: bool) -> list[Any]:
    """A column of ``19,8`` as one of ``19.8``, but only if it can't be meant in another way.

    A column that has points as well is left alone. So is one where every comma may separate thousands, unless the
    file has a ``decimal_comma`` by its kind.
    """
    with_comma = [value for value in raw if isinstance(value, str) and "," in value]
    if not with_comma or any(isinstance(value, str) and "." in value for value in raw):
        return raw
    if not decimal_comma and all(_LIKE_THOUSANDS.fullmatch(value) for value in with_comma):
        return raw
    return [
        value.replace(",", ".") if isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value) else value
        for value in raw
    ]


def _numbers(raw: Sequence[Any]) -> tuple[Floats, dict[int, str]]:
    """Values as numbers, NaN where there is none, and row → why."""
    try:
        column = np.array(raw, dtype=float)  # a million clean values at once
        if not np.isnan(column).any() and not _has_strange_numbers(raw):
            return column, {}
    except (ValueError, TypeError):
        pass
    column, bad = np.full(len(raw), np.nan), {}
    for row, value in enumerate(raw):
        try:
            column[row] = _number(value)
        except ValueError as error:
            bad[row] = str(error)
    return column, bad


def _has_strange_numbers(raw: Sequence[Any]) -> bool:
    """Whether there are values that Python takes for numbers and people don't: True, 1_000."""
    texts = [value for value in raw if isinstance(value, str)]
    return "_" in "".join(texts) or any(isinstance(value, bool) for value in raw if len(texts) < len(raw))


def _number(value: Any) -> float:
    text = "" if value is None else str(value).strip()
    if not text or text.lower() in ("nan", "na", "n/a", "-", "none", "null"):
        raise ValueError("is missing")
    if isinstance(value, bool) or "_" in text:
        raise ValueError(f"'{text[:30]}' is not a number")
    try:
        number = float(value)
    except (ValueError, TypeError):
        remedy = ": write it with a decimal point" if re.fullmatch(r"[\d., ]+", text) else ""
        raise ValueError(f"'{text[:30]}' is not a number{remedy}") from None
    if math.isnan(number):
        raise ValueError("is missing")
    return number


# ---- which column is which ----


def _find_columns(source: str, header: list[str], columns: dict[str, Column]) -> tuple[dict[str, _Found], set[int]]:
    """Quantity → its column, and the indices of all columns that have a meaning."""
    problems: list[str] = []
    candidates: dict[str, list[_Found]] = {}
    named = {_plain(column.name): key for key, column in columns.items() if column.name}
    for index, title in enumerate(header):
        plain = _plain(title)
        key, unit = (named[plain], None) if plain in named else _meaning(plain)
        if not key or (plain not in named and columns.get(key, Column()).name):
            continue
        stated = columns.get(key.removesuffix("_uncertainty"), Column()).unit
        if key != "id" and (unit or _unit_at_end(key, plain) or stated) is None:
            first, *others = UNITS[key.removesuffix("_uncertainty")]
            remedy = f"call it {plain}_{first} or {plain}_{', '.join(others)}, or name the unit in the spec"
            problems.append(f"column '{title}' does not tell its unit: {remedy}")
            continue
        unit = unit or _unit_at_end(key, plain) or stated
        candidates.setdefault(key, []).append(_Found(index, 1.0 if unit is None else _factor(key, unit)))
    for key, places in candidates.items():
        places[:] = _best_named(key, places, header)
        if len(places) > 1:
            titles = " and ".join(f"'{header[place.index]}'" for place in places)
            problems.append(f"columns {titles} both hold the {key.replace('_', ' ')}: keep one of them")
    told = {_meaning(_plain(title))[0] for title in header}
    for key, wanted in (("id", "id"), *COLUMNS.items()):
        if key not in candidates and not (key in told and key not in columns):
            stated_name = columns.get(key, Column()).name
            close = suggest(stated_name or wanted, [title for title in header if title])
            problems.append(f"there is no column '{stated_name or wanted}': {close}")
    if problems:
        raise TableError(source, problems)
    found = {key: places[0] for key, places in candidates.items()}
    return found, {place.index for place in found.values()}


def _best_named(key: str, places: list[_Found], header: list[str]) -> list[_Found]:
    """Of the columns that may hold a quantity those with its plainest name: ``ocv_v`` rather than ``voltage_v``."""
    names = _ID_NAMES if key == "id" else _NAMES[key.removesuffix("_uncertainty")]

    def rank(place: _Found) -> int:
        plain = _plain(header[place.index])
        return next((n for n, name in enumerate(names) if name == plain or f"_{name}_" in f"_{plain}_"), -1)

    best = min(map(rank, places))
    return [place for place in places if rank(place) == best]


def _plain(title: str | None) -> str:
    """``Capacity (mAh)`` as ``capacity_mah``."""
    text = (title or "").lower()
    for sign, word in (("ω", "ohm"), ("Ω", "ohm"), ("µ", "u"), ("μ", "u")):
        text = text.replace(sign, word)
    return re.sub(r"[^0-9a-zäöüß]+", "_", text).strip("_")


def _meaning(plain: str) -> tuple[str, str | None]:
    """Quantity and unit that a header tells: ``("capacity_uncertainty", "mah")``; empty if it tells none."""
    if plain in _ID_NAMES:
        return "id", None
    stem, _, last = plain.rpartition("_")
    for indicator, units in UNITS.items():
        for name, unit in ((stem, last), (plain, None)):
            if unit is not None and unit not in units:
                continue
            if name in _NAMES[indicator]:
                return indicator, unit
    words = plain.split("_")
    marks = [word for word in words if word in _UNCERTAINTY]
    if len(marks) == 1:  # wherever it stands: capacity_uncertainty_ah, u_capacity_ah, capacity_ah_std
        quantity, unit = _meaning("_".join(word for word in words if word != marks[0]))
        return (f"{quantity}_uncertainty", unit) if quantity in UNITS else ("", None)
    return "", None


def _unit_at_end(key: str, plain: str) -> str | None:
    last = plain.rpartition("_")[2]
    return last if last in UNITS.get(key.removesuffix("_uncertainty"), {}) else None


def _factor(key: str, unit: str) -> float:
    return UNITS[key.removesuffix("_uncertainty")][unit]
