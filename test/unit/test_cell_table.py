"""Tables of cells as people send them: units, separators, encodings, and what is wrong in them."""

from __future__ import annotations

import numpy as np
import pytest
from openpyxl import Workbook

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


@pytest.mark.parametrize(
    "content",
    [
        'id,capacity_mah,resistance_mohm,ocv_v\nc1,"18,500",1.6,3.21\nc2,"17,250",1.75,3.2\n',
        "id;capacity_mah;resistance_mohm;ocv_v\nc1;18,500;1.6;3.21\nc2;1.7250;1.75;3.2\n",
    ],
)
def test_a_comma_that_may_separate_thousands_is_not_guessed_at(tmp_path, content):
    assert "write it with a decimal point" in read(tmp_path, content).faults[0]


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
