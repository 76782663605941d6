"""The command battery-sorting grade: what it prints and writes, and how it fails."""

from __future__ import annotations

import csv
import json
import math

import pytest
from openpyxl import load_workbook
from typer.testing import CliRunner

from battery_sorting.cli.grade import grade
from battery_sorting.core.errors import BatterySortingError, ConfigurationError
from battery_sorting.grading.table import CellTable

CELLS = """id,capacity_ah,resistance_mohm,ocv_v,capacity_uncertainty_ah,seat
a,19.5,1.55,3.2,0.05,1
b,16.9,1.8,3.19,0.05,2
toss,18.2,1.62,3.197,0.9,3
dead,3,1.6,3.2,0.05,4
typo,29000,1.6,3.2,0.05,5
text,abc,1.6,3.2,0.05,6
"""


@pytest.fixture
def cells(tmp_path):
    path = tmp_path / "cells.csv"
    path.write_text(CELLS, encoding="utf-8")
    return path


def run(*arguments, ends_with=0):
    import typer

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(grade)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == ends_with, result.output
    return result


def test_json_has_every_cell_and_the_counts(cells):
    said = json.loads(run(cells, "--spec", "lfp-20ah", "--json").stdout)
    rows = {row["id"]: row for row in said["cells"]}
    assert list(rows) == ["a", "b", "toss", "dead", "typo", "text"]
    assert rows["a"]["grade"] == "A"
    assert 0.8 <= rows["a"]["relation_degree"] <= 1
    assert rows["a"]["probabilities"]["A"] == 1
    assert rows["toss"]["status"] == "re-measure"
    assert math.isclose(sum(rows["toss"]["probabilities"].values()), 1, abs_tol=1e-3)
    assert (rows["dead"]["grade"], rows["dead"]["status"]) == ("D", "graded")
    assert (rows["typo"]["grade"], rows["typo"]["status"]) == ("invalid", "invalid")
    assert rows["typo"]["relation_degree"] is None
    assert "mAh" in rows["typo"]["reason"]
    assert sum(said["counts"].values()) == 6
    assert said["counts"]["invalid"] == 2
    assert said["remeasure"] == 1
    assert said["seconds"] >= 0


def test_json_is_strict_and_stands_alone_on_standard_output(cells):
    text = run(cells, "--spec", "lfp-20ah", "--norm", "batch", "--json").stdout
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_summary_tells_grades_and_what_is_wrong(cells):
    result = run(cells, "--spec", "lfp-20ah")
    assert "6 cells graded as lfp-20ah" in result.stdout
    assert "1 to be measured again" in result.stdout
    assert "typo: capacity_ah 29000 is not within 0 to 30" in result.stderr


@pytest.mark.parametrize("name", ["graded.csv", "graded.xlsx"])
def test_the_table_is_written_with_its_results_and_can_be_read_again(cells, tmp_path, name):
    run(cells, "--spec", "lfp-20ah", "--output", tmp_path / name)
    again = CellTable.read(tmp_path / name)
    assert list(again.ids) == ["a", "b", "toss", "dead", "typo", "text"]
    assert list(again.extra["grade"]) == ["A", "B", again.extra["grade"][2], "D", "invalid", "invalid"]
    assert [str(seat) for seat in again.extra["seat"]] == ["1", "2", "3", "4", "5", "6"]
    assert again.uncertainty is not None
    assert again.uncertainty[2, 0] == 0.9


def test_an_id_that_looks_like_a_formula_stays_text(tmp_path):
    (tmp_path / "cells.csv").write_text("id,capacity_ah,resistance_mohm,ocv_v\n=1+1,19,1.6,3.2\n")
    run(tmp_path / "cells.csv", "--spec", "lfp-20ah", "--output", tmp_path / "out.xlsx")
    assert load_workbook(tmp_path / "out.xlsx").active["A2"].data_type == "s"


def test_plot_and_report_are_written(cells, tmp_path):
    run(cells, "--spec", "lfp-20ah", "--plot", tmp_path / "map.png", "--report", tmp_path / "report.html")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "29000 is not within" in page
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )


def test_markup_in_an_id_is_shown_and_not_run(tmp_path):
    text = "id,capacity_ah,resistance_mohm,ocv_v\n<script>alert(1)</script>,19,1.6,3.2\n[red]x,abc,1.6,3.2\n"
    (tmp_path / "cells.csv").write_text(text)
    result = run(tmp_path / "cells.csv", "--spec", "lfp-20ah", "--report", tmp_path / "report.html")
    assert "<script>alert" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "[red]x: capacity_ah: 'abc' is not a number" in result.stderr


@pytest.mark.parametrize(
    ("rows", "norm", "ends_with"),
    [
        (["x,abc,1,3"], "batch", 1),  # nothing could be graded: issue 15, D12
        (["x,19,1.6,3.2"], "spec", 0),
        (["x,19,1.6,3.2"] * 3, "batch", 1),
    ],
)
def test_tables_with_little_in_them_make_all_outputs(tmp_path, rows, norm, ends_with):
    text = "\n".join(["id,capacity_ah,resistance_mohm,ocv_v", *(f"{n}{row}" for n, row in enumerate(rows))])
    (tmp_path / "cells.csv").write_text(text)
    outputs = ["--plot", tmp_path / "p.svg", "--report", tmp_path / "r.html", "--output", tmp_path / "o.csv"]
    run(tmp_path / "cells.csv", "--spec", "lfp-20ah", "--norm", norm, *outputs, ends_with=ends_with)
    with (tmp_path / "o.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(rows)


def test_mistakes_are_told(cells, tmp_path):
    with pytest.raises(ConfigurationError, match="did you mean 'batch'"):
        run(cells, "--spec", "lfp-20ah", "--norm", "bach")
    with pytest.raises(ConfigurationError, match="is the table of cells itself"):
        run(cells, "--spec", "lfp-20ah", "--output", cells)
    with pytest.raises(ConfigurationError, match="make it first"):
        run(cells, "--spec", "lfp-20ah", "--plot", tmp_path / "nowhere" / "map.png")
    with pytest.raises(BatterySortingError, match=r"name a \.png file"):
        run(cells, "--spec", "lfp-20ah", "--plot", tmp_path / "map.docx")
