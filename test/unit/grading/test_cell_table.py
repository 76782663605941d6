"""Tables of cells as people send them: units, separators, encodings, and what is wrong in them."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from openpyxl import Workbook

from battery_sorting.grading import _sheets
from battery_sorting.grading.table import CellTable, Column, TableError

HEADER = "id,capacity_ah,resistance_mohm,ocv_v"
ROWS = [("c1", 18.5, 1.6, 3.21), ("c2", 17.25, 1.75, 3.2)]


def read(tmp_path, content, columns=None, name="cells.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return CellTable.read(path, columns)


def expect_two_cells(table):
    assert list(table.ids) == ["c1", "c2"]
    assert table.as_array() == pytest.approx(np.array([row[1:] for row in ROWS]))
    assert table.as_array().dtype == np.float64
    assert table.valid.all()


@pytest.mark.parametrize(
    "content",
    [
        f"{HEADER}\nc1,18.5,1.6,3.21\nc2,17.25,1.75,3.2\n",
        f"{HEADER}\r\nc1,18.5,1.6,3.21\r\n\r\nc2,17.25,1.75,3.2\r\n,,,\r\n",
        f"\ufeff{HEADER}\nc1,18.5,1.6,3.21\nc2,17.25,1.75,3.2",
        "id;capacity_ah;resistance_mohm;ocv_v\nc1;18,5;1,6;3,21\nc2;17,25;1,75;3,2\n",
        "sep=;\nid;capacity_ah;resistance_mohm;ocv_v\nc1;18.5;1.6;3.21\nc2;17.25;1.75;3.2\n",
        "id\tcapacity_ah\tresistance_mohm\tocv_v\nc1\t18,5\t1.6\t3,210\nc2\t17,25\t1.75\t3,200\n",
        "ocv_v,id,resistance_mohm,capacity_ah\n3.21,c1,1.6,18.5\n3.2,c2,1.75,17.25\n",
        "cell_id,capacity_mah,resistance_ohm,ocv_mv\nc1,18500,0.0016,3210\nc2,17250,0.00175,3200\n",
        "Cell ID,Capacity (Ah),Internal resistance [mΩ],Open-circuit voltage / V\n"
        "c1,18.5,1.6,3.21\nc2,17.25,1.75,3.2\n",
        "id,serial,capacity_ah,resistance_mohm,ocv_v,voltage_v,cap_ah\n"
        "c1,x,18.5,1.6,3.21,3.1,1\nc2,x,17.25,1.75,3.2,3.1,1\n",
        "id,capacity_Ah,IR_uohm,OCV (mV)\nc1,18.5,1600,3210\nc2,17.25,1750,3200\n",
        'id,capacity_ah,resistance_mohm,ocv_v\nc1,"18,5",1.6,"3,21"\nc2,"17,25",1.75,"3,2"\n',
        'id,capacity_ah,resistance_mohm,ocv_v\n"c1", 18.5 ," 1.6",3.21\nc2,17.25,1.75,3.2\n',
        "id,capacity_ah,resistance_mohm,ocv_v\nc1,1.85e1,1.6,3.21\nc2,+17.25,1.75,3.2\n",
    ],
)
def test_the_same_cells_are_read_however_they_are_written(tmp_path, content):
    expect_two_cells(read(tmp_path, content))


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252"])
def test_other_encodings_are_read(tmp_path, encoding):
    text = "id;capacity_ah;resistance_mohm;ocv_v;Händler\nc1;18,5;1,6;3,21;Müller\nc2;17,25;1,75;3,2;x\n"
    table = read(tmp_path, text.encode(encoding))
    expect_two_cells(table)
    assert table.extra["Händler"] == ["Müller", "x"]


def make_workbook(path, header, rows):
    book = Workbook()
    for row in (header, *rows):
        book.active.append(row)
    book.save(path)


def test_excel_is_read_whatever_it_is_called(tmp_path):
    for name in ("cells.xlsx", "cells.csv"):
        make_workbook(tmp_path / name, HEADER.split(","), ROWS)
        expect_two_cells(CellTable.read(tmp_path / name))


def test_excel_cells_that_are_no_numbers_are_faults_of_their_row(tmp_path):
    rows = [(1, 18.5, 1.6, 3.21), (2, "#DIV/0!", 1.6, 3.2), (3, None, 1.6, 3.2), (4, True, 1.6, 3.2)]
    make_workbook(tmp_path / "cells.xlsx", HEADER.split(","), rows)
    table = CellTable.read(tmp_path / "cells.xlsx")
    assert list(table.ids) == ["1", "2", "3", "4"]
    assert table.valid.tolist() == [True, False, False, False]


def test_columns_are_those_that_the_spec_names(tmp_path):
    columns = {
        "id": Column("Nr"),
        "capacity": Column("Q", "mah"),
        "resistance": Column("R", "ohm"),
        "ocv": Column(unit="mv"),
    }
    text = "Nr,Q,R,ocv,capacity_ah\nc1,18500,0.0016,3210,99\nc2,17250,0.00175,3200,99\n"
    expect_two_cells(read(tmp_path, text, columns))


@pytest.mark.parametrize(
    "name", ["capacity_uncertainty_ah", "u_capacity_ah", "capacity_ah_std", "Capacity (Ah) sigma", "capacity_sd_ah"]
)
def test_an_uncertainty_may_be_named_in_several_ways(tmp_path, name):
    table = read(tmp_path, f"{HEADER},{name}\nc1,18.5,1.6,3.21,0.1\nc2,17.25,1.75,3.2,0.2\n")
    expect_two_cells(table)
    assert table.uncertainty[:, 0].tolist() == [0.1, 0.2]


def test_uncertainties_and_further_columns_are_kept(tmp_path):
    text = (
        "id,capacity_ah,resistance_mohm,ocv_v,capacity_uncertainty_mah,u_x,ocv_uncertainty_v,note\n"
        "c1,18.5,1.6,3.21,50,7,0.001,fine\nc2,17.25,1.75,3.2,,8,0.002,\n"
    )
    table = read(tmp_path, text)
    expect_two_cells(table)
    assert table.uncertainty == pytest.approx(
        np.array([[0.05, np.nan, 0.001], [np.nan, np.nan, 0.002]]), nan_ok=True
    )
    assert dict(table.extra) == {"u_x": ["7", "8"], "note": ["fine", ""]}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("bad,abc,1.6,3.2", "capacity_ah: 'abc' is not a number"),
        ("bad,,1.6,3.2", "capacity_ah: is missing"),
        ("bad,18.5,nan,3.2", "resistance_mohm: is missing"),
        ("bad,18.5,inf,3.2", "resistance_mohm is not a finite number"),
        ("bad,-18.5,1.6,3.2", "capacity_ah is negative"),
        ("bad,18.5,1.6,1e999", "ocv_v is not a finite number"),
        ("bad,18.5,1.6", "ocv_v: is missing"),
        ('bad,"18,5",1.6,3.2', "write it with a decimal point"),
        ("bad,1_8,1.6,3.2", "'1_8' is not a number"),
        ("bad,18.5,1.6,3.2,7", "more values than the header"),
        (",18.5,1.6,3.2", "has no id"),
        ('"a\nb",18.5,1.6,3.2', "is a quotation mark not closed?"),
        ("c1,18.5,1.6,3.2", "2 cells have the id 'c1'"),
    ],
)
def test_a_bad_cell_has_its_fault_and_the_others_are_read(tmp_path, row, expected):
    table = read(tmp_path, f"{HEADER}\nc1,18.5,1.6,3.21\n{row}\nc2,17.25,1.75,3.2\n")
    assert len(table) == 3
    assert expected in table.faults[1]
    assert table.valid[2]
    assert not table.valid[1]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "is empty: it needs a header"),
        ("\n\n", "is empty"),
        (HEADER, "has a header but no cells"),
        ("id,capacity_ah,resistance_mohm\nc1,18,1.6\n", "no column 'ocv_v'"),
        ("id,capacity_ah,resistance_mohm,ovc_v\nc1,18,1.6,3\n", "no column 'ocv_v': did you mean 'ovc_v'"),
        ("capacity_ah,resistance_mohm,ocv_v\n18,1.6,3\n", "no column 'id'"),
        ("id,capacity,resistance_mohm,ocv_v\nc1,18,1.6,3\n", "call it capacity_ah or capacity_mah"),
        (
            "id,capacity_ah,capacity_mah,resistance_mohm,ocv_v\nc1,18,18000,1.6,3\n",
            "'capacity_ah' and 'capacity_mah' both hold",
        ),
        ("id,capacity_ah,resistance_mohm,ocv_v\nc1,18,5,1,6,3,21\n", "separate the columns by semicolons"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "neither a text nor an Excel file"),
        (b"PK\x03\x04 broken", "no Excel workbook"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old kind"),
        ("c1,18.5,1.6,3.21\nc2,17.25,1.75,3.2\n", "no column 'id'"),
    ],
)
def test_a_table_that_can_not_be_told_is_refused_with_a_remedy(tmp_path, content, expected):
    with pytest.raises(TableError, match=expected) as error:
        read(tmp_path, content)
    assert "cells.csv" in str(error.value)


# Issue 15, point 1: numbers that were wrong without a word


@pytest.mark.parametrize(
    "content",
    [
        'id,capacity_mah,resistance_mohm,ocv_v\nc1,"18,500",1.6,3.21\nc2,"17,250",1.75,3.2\n',
        "id;capacity_mah;resistance_mohm;ocv_v\nc1;18.500;1,6;3,210\nc2;17.250;1,75;3,200\n",
        "id;capacity_mah;resistance_mohm;ocv_mv\nc1;18.500;1,6;3.210\nc2;17.250;1,75;3.200\n",
        "id\tcapacity_mah\tresistance_mohm\tocv_v\nc1\t18,500\t1.600\t3.210\nc2\t17,250\t1.75\t3.200\n",
        "id;capacity_mah;resistance_mohm;ocv_v\nc1;18 500;1,600;3,210\nc2;17\u202f250;1,750;3,200\n",
        "id;capacity_mah;resistance_mohm;ocv_v\nc1;18'500.0;1.600;3.210\nc2;17'250.0;1.750;3.200\n",
        "id;capacity_ah;resistance_uohm;ocv_v\nc1;18,500;1.600;3,210\nc2;17,250;1.750;3,200\n",
        "id;capacity_ah;resistance_mohm;ocv_v\nc1;18.500;1.600;3.210\nc2;17.250;1.750;3.200\n",
        "id;capacity_mah;resistance_mohm;ocv_v\nc1;1.8500E+04;1.6;3.21\nc2;17250;1.75;3.2\n",
        "id;capacity_mah;resistance_mohm;ocv_v\nc1;１８５００;1.6;3.21\nc2;17250;1.75;3.2\n",
    ],
)
def test_thousands_are_told_from_decimals_by_the_other_values(tmp_path, content):
    expect_two_cells(read(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "point", "comma"),
    [
        ("id;capacity_mah;resistance_mohm;ocv_mv\nc1;850.500;1.600;3210\nc2;1;1;1\n", 0.8505, 850.5),
        ("id\tcapacity_mah\tresistance_mohm\tocv_mv\nc1\t850,500\t1\t3210\nc2\t1\t1\t1\n", 850.5, 0.8505),
        ("id\tcapacity_ah\tresistance_mohm\tocv_v\nc1\t2,500\t45.1\t3.65\nc2\t1\t1\t1\n", 2500, 2.5),
    ],
)
def test_a_number_that_can_be_meant_in_two_ways_is_asked_about(tmp_path, content, point, comma):
    with pytest.raises(TableError, match=r"line 2, column 'capacity_m?ah': .* --decimal"):
        read(tmp_path, content)
    path = tmp_path / "cells.csv"
    assert CellTable.read(path, decimal=".").capacity_ah[0] == pytest.approx(point)
    read_by_comma = CellTable.read(path, decimal=",").capacity_ah[0]
    assert read_by_comma == pytest.approx(comma)


MARKS = "9.9E+37 +9.90000000E+37 -9.9E37 9.91E37 1E10 +1.00000E+10 -1e12 1.0000e+20 1e9 OL O.L. OVER ---- 超量程"


@pytest.mark.parametrize("mark", [*MARKS.split(), "0", "0.000", "-3.2", "inf"])
@pytest.mark.parametrize("column", [1, 2, 3])
def test_marks_of_an_overload_and_zeros_are_faults_of_their_row(tmp_path, mark, column):
    row = ["bad", "18.5", "1.6", "3.2"]
    row[column] = mark
    table = read(tmp_path, f"{HEADER}\nc1,18.5,1.6,3.21\n{','.join(row)}\nc2,17.25,1.75,3.2\n")
    assert list(table.faults) == [1]
    number = [9.9e37 if value == mark else float(value) for value in row[1:]]
    assert not CellTable.of_arrays(*([value] for value in number)).valid.any()


TOTALS = (
    "Average,AVG,Mean:,Std,Std. Dev.,Standard deviation,Total: 2,Sum,Min,Max,Median,Average (n=2),Mittelwert,Summe,"
)
TOTALS += "Stabw.,平均,平均值,标准差,合计,Среднее,Итого"


@pytest.mark.parametrize("label", TOTALS.split(","))
def test_rows_of_totals_are_no_cells(tmp_path, label):
    table = read(tmp_path, f"{HEADER}\nc1,18.5,1.6,3.21\nc2,17.25,1.75,3.2\n{label},17.9,1.7,3.205\n")
    expect_two_cells(table)
    assert "line 4" in " ".join(table.notes)


@pytest.mark.parametrize("name", ["Max-1", "MIN23", "Sum A", "Total-B7", "Standard 4", "Cell 5", "A1", "12"])
def test_cells_whose_names_only_begin_like_totals_stay(tmp_path, name):
    table = read(tmp_path, f"{HEADER}\nc1,18.5,1.6,3.21\n{name},17.9,1.7,3.205\n")
    assert list(table.ids) == ["c1", name]


@pytest.mark.parametrize(
    "content",
    [
        "id;Capacity, Ah;Resistance, mOhm;OCV, V\nc1;18.5;1.6;3.21\nc2;17.25;1.75;3.2\n",
        "id,Capacity (Ah; 0.5C),x\n".replace(" (Ah; 0.5C),x", "_ah,resistance_mohm,ocv_v")
        + "c1,18.5,1.6,3.21\nc2,17.25,1.75,3.2\n",
        "id|capacity_ah|resistance_mohm|ocv_v\nc1|18,5|1,6|3,21\nc2|17,25|1,75|3,2\n",
        "Tester 3; operator: Li, Wang, Wu, Zhao\nLot 7, Monday\n\n"
        "id;capacity_ah;resistance_mohm;ocv_v\nc1;18,5;1,6;3,21\nc2;17,25;1,75;3,2\n",
        "id,capacity,resistance,ocv\n,Ah,mΩ,V\nc1,18.5,1.6,3.21\nc2,17.25,1.75,3.2\n",
        "id,capacity,resistance,ocv\n-,[mAh],[Ohm],[mV]\nc1,18500,0.0016,3210\nc2,17250,0.00175,3200\n",
        "编号,放电容量(mAh),内阻(mΩ),电压(V),备注\nc1,18500,1.6,3.21,好\nc2,17250,1.75,3.2,好\n",
        "编号，容量\n".replace("，容量", ",容量（安时）,内阻（毫欧）,开路电压（伏）")
        + "c1,18.5,1.6,3.21\nc2,17.25,1.75,3.2\n",
        "Номер;Ёмкость, мАч;Сопротивление, мОм;Напряжение, В\nc1;18500;1,6;3,21\nc2;17250;1,75;3,2\n",
        "Zellnummer;Kapazität [mAh];Innenwiderstand [mΩ];Spannung [V]\nc1;18500;1,6;3,21\nc2;17250;1,75;3,2\n",
        f"{HEADER}\nc1,18.5,1.6,3.21\n{HEADER}\nc2,17.25,1.75,3.2\n",
    ],
)
def test_delimiters_preambles_units_and_headers_are_found_by_the_whole_file(tmp_path, content):
    expect_two_cells(read(tmp_path, content))


def test_headers_without_latin_letters_are_compared_as_they_are(tmp_path):
    columns = {
        "id": Column("甲"),
        "capacity": Column("乙", "ah"),
        "resistance": Column("丙", "mohm"),
        "ocv": Column("丁", "v"),
    }
    expect_two_cells(read(tmp_path, "甲,乙,丙,丁,戊\nc1,18.5,1.6,3.21,x\nc2,17.25,1.75,3.2,y\n", columns))


def test_a_unit_that_header_and_row_of_units_tell_differently_is_refused(tmp_path):
    with pytest.raises(TableError, match="two units, ah and mah"):
        read(tmp_path, "id,capacity_ah,resistance,ocv\n,mAh,mΩ,V\nc1,18.5,1.6,3.21\n")
    with pytest.raises(TableError, match=r"line 2, column 'capacity': 'Wh' is a unit that is not known"):
        read(tmp_path, "id,capacity,resistance,ocv\n,Wh,mΩ,V\nc1,18.5,1.6,3.21\n")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "cp1252", "gb18030", "cp1251"])
def test_ids_are_the_same_in_every_encoding_that_can_be_told(tmp_path, encoding):
    names = {"cp1251": ["Ячейка 1", "Образец 2"], "gb18030": ["电池一", "样品二"]}.get(
        encoding, ["Größe 1", "Mühle 2"]
    )
    header = "编号,capacity_ah,resistance_mohm,ocv_v" if encoding == "gb18030" else HEADER
    text = f"{header}\n{names[0]},18.5,1.6,3.21\n{names[1]},17.25,1.75,3.2\n"
    table = read(tmp_path, text.encode(encoding))
    assert list(table.ids) == names
    assert any("read as" in note for note in table.notes) == (encoding not in ("utf-8", "utf-16"))


def test_an_encoding_that_can_not_be_told_is_asked_for_where_it_matters(tmp_path):
    text = f"{HEADER},note\nセル一,18.5,1.6,3.21,x\nc2,17.25,1.75,3.2,y\n"
    with pytest.raises(TableError, match=r"line 2: its text may be in .* --encoding"):
        read(tmp_path, text.encode("shift_jis"))
    assert CellTable.read(tmp_path / "cells.csv", encoding="shift_jis").ids[0] == "セル一"
    with pytest.raises(TableError, match="no encoding 'klingon'"):
        CellTable.read(tmp_path / "cells.csv", encoding="klingon")
    for other in ("mac_roman", "cp850"):
        with pytest.raises(TableError, match="--encoding"):
            read(tmp_path, f"{HEADER}\nMüller,18.5,1.6,3.21\n".encode(other))
    remark = f"{HEADER},note\nc1,18.5,1.6,3.21,良い\nc2,17.25,1.75,3.2,y\n"
    expect_two_cells(read(tmp_path, remark.encode("shift_jis")))


def workbook(path, sheets, hidden=()):
    book = Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
        sheet.sheet_state = "hidden" if name in hidden else "visible"
    book.save(path)
    return path


TABLE = [HEADER.split(","), *ROWS]
OTHER = [HEADER.split(","), ("old", 1.0, 9.0, 2.0)]


def test_a_hidden_sheet_is_not_taken_for_the_visible_one(tmp_path):
    expect_two_cells(CellTable.read(workbook(tmp_path / "a.xlsx", {"old": OTHER, "new": TABLE}, hidden=["old"])))
    path = workbook(tmp_path / "b.xlsx", {"empty": [], "old": OTHER}, hidden=["old"])
    with pytest.raises(TableError, match=r"only hidden sheets have cells \('old'\)"):
        CellTable.read(path)
    assert list(CellTable.read(path, sheet="old").ids) == ["old"]


def test_several_sheets_with_cells_are_a_question(tmp_path):
    path = workbook(tmp_path / "a.xlsx", {"Lot 1": OTHER, "Lot 2": TABLE, "notes": [["by Li"]]})
    with pytest.raises(TableError, match=r"several sheets have cells \('Lot 1', 'Lot 2'\): say which with --sheet"):
        CellTable.read(path)
    expect_two_cells(CellTable.read(path, sheet="lot 2"))
    with pytest.raises(TableError, match="no sheet 'Lot 3'"):
        CellTable.read(path, sheet="Lot 3")
    expect_two_cells(CellTable.read(workbook(tmp_path / "b.xlsx", {"notes": [["by Li"]], "cells": TABLE})))


def test_formulas_without_a_value_are_no_zeros(tmp_path):
    rows = [
        HEADER.split(","),
        ("c1", "=37/2", 1.6, 3.21),
        ("c2", 17.25, 1.75, 3.2),
        ("Mean", "=AVERAGE(B2:B3)", 1, 3),
    ]
    with pytest.raises(TableError, match=r"line 2, column 'capacity_ah': a formula .* open and save the file"):
        CellTable.read(workbook(tmp_path / "a.xlsx", {"cells": rows}))
    rows[1] = ("c1", 18.5, 1.6, 3.21)  # what is left is the row of means
    expect_two_cells(CellTable.read(workbook(tmp_path / "b.xlsx", {"cells": rows})))
    noted = [[*HEADER.split(","), "note"], *((*row, "=1+1") for row in ROWS)]
    expect_two_cells(CellTable.read(workbook(tmp_path / "c.xlsx", {"cells": noted})))


@pytest.mark.parametrize(("cached", "accepted"), [("18.5", True), ("0", False), ("", False)])
def test_a_formula_counts_with_the_value_that_a_program_has_calculated(tmp_path, cached, accepted):
    rows = [HEADER.split(","), ("c1", "=37/2", 1.6, 3.21), ("c2", 17.25, 1.75, 3.2)]
    written = workbook(tmp_path / "written.xlsx", {"cells": rows})
    path = tmp_path / "cells.xlsx"
    with zipfile.ZipFile(written) as source, zipfile.ZipFile(path, "w") as target:
        for part in source.infolist():
            content = source.read(part)
            if part.filename == "xl/worksheets/sheet1.xml":
                assert b"<f>37/2</f>" in content
                content = re.sub(
                    rb"<f>37/2</f><v ?/>|<f>37/2</f><v></v>", b"<f>37/2</f><v>%s</v>" % cached.encode(), content
                )
            target.writestr(part, content)
    if accepted:
        expect_two_cells(CellTable.read(path))
    else:
        with pytest.raises(TableError, match="never calculated"):
            CellTable.read(path)


# Issue 15, points 10 and 11: files that never end, or are no tables


def test_what_is_no_plain_file_is_refused_at_once(tmp_path):
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), tmp_path):
        with pytest.raises(TableError, match=r"is (no plain file|a folder)"):
            CellTable.read(path)


def test_files_without_bounds_are_refused_in_bounded_memory(tmp_path, monkeypatch):
    huge = tmp_path / "huge.csv"
    with huge.open("wb") as file:
        file.truncate(2**36)  # 64 GB of zeros on paper
    with pytest.raises(TableError, match="is larger than 256 MiB"):
        CellTable.read(huge)
    with pytest.raises(TableError, match="has a line of"):
        read(tmp_path, f"{HEADER}\n" + "x" * (2**20 + 1))
    bomb = tmp_path / "bomb.xlsx"
    with (
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("xl/sharedStrings.xml", "w") as part,
    ):
        for _ in range(260):
            part.write(bytes(2**20))
    with pytest.raises(TableError, match="no table of cells"):
        CellTable.read(bomb)
    far = tmp_path / "far.xlsx"
    with (
        zipfile.ZipFile(workbook(tmp_path / "near.xlsx", {"cells": TABLE})) as source,
        zipfile.ZipFile(far, "w") as copy,
    ):
        for name in source.namelist():
            copy.writestr(name, source.read(name).replace(b'<row r="3"', b'<row r="999999999"'))
    with pytest.raises(TableError, match="names a row beyond 1,048,576"):
        CellTable.read(far)
    monkeypatch.setattr(_sheets, "MOST_VALUES", 1000)
    wide = workbook(tmp_path / "wide.xlsx", {"cells": [*TABLE, *[(f"c{n}", 18, 1.6, 3.2) for n in range(300)]]})
    with pytest.raises(TableError, match="has more than 1,000 values"):
        CellTable.read(wide)


# Issue 15, point 4: what has no say


def test_what_is_not_needed_may_be_missing_and_spoils_no_cell(tmp_path):
    path = tmp_path / "cells.csv"
    path.write_text("id,Capacity (mAh),note\n1,2019,x\n2,1649,y\n", encoding="utf-8")
    table = CellTable.read(path, needed=["capacity"])
    assert table.capacity_ah == pytest.approx([2.019, 1.649])
    assert table.valid.all()
    assert "ocv_v is missing" in table.heard(["ocv"]).faults[0]
    gaps = read(tmp_path, f"{HEADER}\nc1,18.5,,3.21\nc2,17.25,OL,0\n")
    assert not gaps.valid.any()
    assert gaps.heard(["capacity"]).valid.all()


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TableError, match=r"nowhere\.csv: .*\n.*can't be read"):
        CellTable.read(tmp_path / "nowhere.csv")


def test_arrays_become_a_table_and_bad_cells_faults():
    table = CellTable.of_arrays([18, np.nan, 17], [1.6, 1.6, np.inf], [3.2, 3.2, 3.2], ["a", "b", "c"])
    assert table.valid.tolist() == [True, False, False]
    with pytest.raises(ValueError, match="differ in length"):
        CellTable.of_arrays([18], [1.6, 1.7], [3.2])


def test_chosen_rows_keep_their_faults_and_columns(tmp_path):
    table = read(tmp_path, f"{HEADER},note\nc1,18.5,1.6,3.21,x\nbad,abc,1.6,3.2,y\nc2,17.25,1.75,3.2,z\n")
    chosen = table.select([2, 1])
    assert list(chosen.ids) == ["c2", "bad"]
    assert list(chosen.faults) == [1]
    assert chosen.extra["note"] == ["z", "y"]
    assert list(table.select(table.valid).ids) == ["c1", "c2"]
