"""Whatever dialect a table of known cells is written in: it is read as these very cells, or refused.

Issue 15, point 1.
"""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openpyxl import Workbook

from battery_sorting.grading.table import CellTable, TableError

IDS = {
    "latin": ["Zelle-1", "Zelle-2", "Z3", "Z-4a", "Z5"],
    "german": ["Prüfling 1", "Größe 2", "Müller 3", "Ärger 4", "Zürich 5"],
    "chinese": ["电池01", "电池02", "电池03", "样品04", "样品05"],
    "russian": ["Ячейка 1", "Ячейка 2", "Образец 3", "Образец 4", "Образец 5"],
}
ENCODINGS = {
    "latin": ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"],
    "german": ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "cp1252"],
    "chinese": ["utf-8", "utf-8-sig", "utf-16", "gb18030"],
    "russian": ["utf-8", "utf-8-sig", "utf-16", "cp1251", "koi8_r"],
}
TITLES = {
    "latin": ("Cell ID", "Capacity{}", "Internal resistance{}", "OCV{}", "Remark"),
    "german": ("Zellnummer", "Kapazität{}", "Innenwiderstand{}", "Leerlaufspannung{}", "Bemerkung"),
    "chinese": ("编号", "放电容量{}", "内阻{}", "电压{}", "备注"),
    "russian": ("Номер", "Емкость{}", "Сопротивление{}", "Напряжение{}", "Примечание"),
}
UNITS = {"capacity": {"Ah": 1, "mAh": 1000}, "resistance": {"mOhm": 1, "µΩ": 1000}, "ocv": {"V": 1, "mV": 1000}}
GROUPS = ["", "", ",", ".", " ", "'", "\u00a0", "\u202f"]


def written(value: float, digits: int, decimal: str, thousands: str) -> str:
    whole, _, rest = f"{value:,.{digits}f}".partition(".")
    return whole.replace(",", thousands) + (decimal + rest if rest else "")


@st.composite
def tables(draw: Any) -> dict[str, Any]:
    script = draw(st.sampled_from(list(IDS)))
    count = draw(st.integers(2, 5))
    chosen = [draw(st.sampled_from(list(units))) for units in UNITS.values()]
    factors = np.array([UNITS[name][unit] for name, unit in zip(UNITS, chosen, strict=True)])
    size = draw(st.sampled_from([2.5, 20.0, 150.0]))
    digits = [draw(st.integers(0, 4)) for _ in range(3)]
    digits[2] = max(digits[2], 2) if chosen[2] == "V" else digits[2]
    digits[0] = max(digits[0], 2) if chosen[0] == "Ah" else digits[0]
    digits[1] = max(digits[1], 1) if chosen[1] == "mOhm" else digits[1]
    rows = []
    for _ in range(count):
        row = [
            size * draw(st.floats(0.7, 1.05)),
            draw(st.floats(0.5, 90.0)),
            draw(st.floats(3.0, 4.2)),
        ]
        rows.append([round(v * f, d) for v, f, d in zip(row, factors, digits, strict=True)])
    return {
        "script": script,
        "ids": IDS[script][:count],
        "units": chosen,
        "factors": factors,
        "digits": digits,
        "rows": np.array(rows),
        "decimal": draw(st.sampled_from([",", "."])),
        "thousands": draw(st.sampled_from(GROUPS)),
        "delimiter": draw(st.sampled_from([",", ";", "\t", "|"])),
        "encoding": draw(st.sampled_from(ENCODINGS[script])),
        "unit_style": draw(st.sampled_from([" ({})", " [{}]", ", {}", "_{}", "row"])),
        "preamble": draw(st.integers(0, 3)),
        "totals": draw(st.booleans()),
        "order": draw(st.permutations(range(5))),
        "newline": draw(st.sampled_from(["\n", "\r\n"])),
        "blank": draw(st.booleans()),
        "excel": draw(st.sampled_from(["no", "no", "numbers", "texts"])),
    }


def lines_of(table: dict[str, Any], as_texts: bool) -> list[list[Any]]:
    style = table["unit_style"]
    units = ["" if style == "row" else style.format(unit) for unit in table["units"]]
    titles = list(TITLES[table["script"]])
    header = [titles[0], *(title.format(unit) for title, unit in zip(titles[1:4], units, strict=True)), titles[4]]
    lines: list[list[Any]] = [
        ["Report", "", "", "", ""],
        ["Date: 2026-12-01", "", "", "", ""],
        ["", "", "", "", ""],
    ]
    lines = lines[: table["preamble"]]
    order = table["order"]
    body: list[list[Any]] = [header]
    if style == "row":
        body.append(["", *table["units"], ""])
    data = [(name, row) for name, row in zip(table["ids"], table["rows"].tolist(), strict=True)]
    if table["totals"]:
        data += [
            ("Average", table["rows"].mean(axis=0).tolist()),
            ("Std. dev.", table["rows"].std(axis=0).tolist()),
        ]
    for name, row in data:
        texts: list[Any] = [
            written(value, digits, table["decimal"], table["thousands"]) if as_texts else value
            for value, digits in zip(row, table["digits"], strict=True)
        ]
        body.append([name, *texts, "ok"])
    if table["blank"]:
        body.insert(2 + (style == "row"), ["", "", "", "", ""])
    return [*lines, *([line[place] for place in order] for line in body)]


def save(table: dict[str, Any], folder: Any) -> Any:
    if table["excel"] != "no":
        path = folder / "cells.xlsx"
        book = Workbook()
        assert book.active is not None
        for line in lines_of(table, table["excel"] == "texts"):
            book.active.append(line)
        book.save(path)
        return path
    path = folder / "cells.csv"
    text = io.StringIO()
    csv.writer(text, delimiter=table["delimiter"], lineterminator=table["newline"]).writerows(lines_of(table, True))
    try:
        content = text.getvalue().encode(table["encoding"])
    except UnicodeEncodeError:  # not every encoding has Ω and all kinds of spaces
        table["encoding"] = "utf-8"
        content = text.getvalue().encode()
    path.write_bytes(content)
    return path


@settings(
    max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(table=tables())
def test_known_cells_are_read_exactly_or_refused_in_every_dialect(tmp_path: Any, table: dict[str, Any]) -> None:
    if table["thousands"] == table["decimal"]:
        table["thousands"] = ""
    path = save(table, tmp_path)
    try:
        read = CellTable.read(path)
    except TableError as error:
        assert any(word in str(error) for word in ("--decimal", "--encoding")), str(error)
        return
    assert list(read.ids) == table["ids"]
    expected = table["rows"] / table["factors"]
    valid = read.valid
    assert read.as_array()[valid] == pytest.approx(expected[valid], rel=1e-9)
    assert valid.all(), dict(read.faults)


@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(table=tables())
def test_with_decimal_and_encoding_told_every_dialect_is_read(tmp_path: Any, table: dict[str, Any]) -> None:
    if table["thousands"] == table["decimal"]:
        table["thousands"] = ""
    path = save(table, tmp_path)
    told = {} if table["excel"] != "no" else {"encoding": table["encoding"]}
    read = CellTable.read(path, decimal=table["decimal"], **told)
    assert list(read.ids) == table["ids"]
    assert read.valid.all(), dict(read.faults)
    assert read.as_array() == pytest.approx(table["rows"] / table["factors"], rel=1e-9)
