"""The command battery-sorting packs: what it prints and writes, and how it fails."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from battery_sorting.core.errors import BatterySortingError, ConfigurationError

pytest.importorskip("numba", reason="pack building needs numba (requirements/wheels.txt)")
from battery_sorting.cli.packs import packs


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """22 cells with grades, of which the last has no resistance and the one before is grade D."""
    random = np.random.default_rng(0)
    rows = np.array([19.0, 1.6, 3.2]) + random.standard_normal((22, 3)) * np.array([0.4, 0.05, 0.002])
    lines = [
        f"c{number},{row[0]:.4f},{row[1]:.4f},{row[2]:.4f},{'AB'[number % 2]},{number == 3:d}"
        for number, row in enumerate(rows)
    ]
    lines[20] = "c20,19,1.6,3.2,D,0"
    lines[21] = "c21,19,,3.2,A,0"
    path = tmp_path / "cells.csv"
    path.write_text(
        "id,capacity_ah,resistance_mohm,ocv_v,grade,urgent\n" + "\n".join(lines) + "\n", encoding="utf-8"
    )
    return path


def run(*arguments: object, ends_with: int = 0) -> Any:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(packs)
    result = CliRunner().invoke(app, [*map(str, arguments), "--effort", "0.02"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == ends_with, result.output
    return result


def said(*arguments: object, ends_with: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(*arguments, "--json", ends_with=ends_with).stdout)
    return found


def test_json_has_every_cell_with_its_pack_or_the_reason(cells: Path) -> None:
    found = said(cells, "--layout", "4s")
    rows = {row["id"]: row for row in found["cells"]}
    assert list(rows) == [f"c{number}" for number in range(22)]
    for pack in range(1, 5):
        members = [row for row in rows.values() if row["pack"] == pack]
        assert len(members) == 4
        assert len({row["grade"] for row in members}) == 1
        assert sorted(row["group"] for row in members) == [1, 2, 3, 4]
    assert rows["c20"]["reason"] == "cells of grade D are not used"
    assert "missing" in rows["c21"]["reason"]
    assert all(bool(row["reason"]) == (row["pack"] is None) for row in rows.values())
    assert found["status"] == "built"
    left = {"fault": 1, "rejected": 1, "too_few": 0, "remainder": 4, "tolerance": 0}
    assert found["counts"] == {"cells": 22, "packed": 16, "packs": 4, **left}
    assert 0 < found["j_lower_bound"] <= found["j"]
    assert found["leftover"] == 6
    assert 0.9 < found["utilisation"] <= 1


def test_across_grades_leaves_fewer_over(cells: Path) -> None:
    assert said(cells, "--layout", "4s", "--across")["counts"]["packs"] == 5


def test_a_specification_grades_the_cells_first(cells: Path) -> None:
    grades = {row["grade"] for row in said(cells, "--layout", "2s", "--spec", "lfp-20ah")["cells"]}
    assert "invalid" in grades
    assert grades <= {"A", "B", "C", "D", "invalid"}


def test_tolerances_may_be_quoted_together_or_given_one_by_one(cells: Path) -> None:
    together = said(cells, "--layout", "4s", "--across", "--tolerance", "capacity=3% ocv=4mV")
    singly = said(cells, "--layout", "4s", "--across", "--tolerance", "capacity=3%", "--tolerance", "ocv=4mV")
    assert together["cells"] == singly["cells"]
    assert all(pack["range_ocv_v"] <= 0.004 + 1e-9 for pack in together["packs"])


def test_the_priority_column_decides_who_is_left_over(cells: Path) -> None:
    rows = said(cells, "--layout", "8s", "--across", "--priority", "urgent")["cells"]
    assert next(row for row in rows if row["id"] == "c3")["pack"] is not None


def test_no_packs_is_an_answer_and_ends_with_1(cells: Path) -> None:  # issue 15, D12
    found = said(cells, "--layout", "30s", "--across", ends_with=1)
    assert (found["status"], found["j"], found["leftover"]) == ("too_few_cells", None, 22)
    assert "no packs: too few cells" in run(cells, "--layout", "30s", "--across", ends_with=1).stdout


@pytest.mark.parametrize("layout", ["2s2p", "30s"])
def test_plot_report_and_table_are_written(cells: Path, tmp_path: Path, layout: str) -> None:
    plot, report, table = tmp_path / "ranges.svg", tmp_path / "packs.html", tmp_path / "packed.csv"
    run(
        cells,
        "--layout",
        layout,
        "--plot",
        plot,
        "--report",
        report,
        "--output",
        table,
        ends_with=int(layout == "30s"),
    )
    assert "<svg" in plot.read_text(encoding="utf-8")
    page = report.read_text(encoding="utf-8")
    assert "lower bound of J" in page
    assert "cells of grade D are not used" in page
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [f"c{number}" for number in range(22)]
    assert all(bool(row["pack"]) != bool(row["reason"]) for row in rows)
    assert {row["urgent"] for row in rows} == {"0", "1"}


def test_many_packs_are_plotted_as_a_distribution(tmp_path: Path) -> None:
    path, plot = tmp_path / "many.csv", tmp_path / "ranges.png"
    rows = np.array([19.0, 1.6, 3.2]) + np.random.default_rng(0).random((140, 3)) * 0.1
    header = "id,capacity_ah,resistance_mohm,ocv_v"
    np.savetxt(path, np.column_stack([np.arange(140), rows]), "%.5f", ",", header=header, comments="")
    run(path, "--layout", "2s", "--plot", plot)
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--layout", "8x"], "8s"),
        (["--layout", "4s", "--tolerance", "volts=1%"], "ocv"),
        (["--layout", "4s", "--weights", "1;2;3"], "three numbers"),
        (["--layout", "4s", "--priority", "urgnt"], "urgent"),
        (["--layout", "4s", "--priority", "grade"], "not a number"),
        (["--layout", "4s", "--output", "/nowhere/out.csv"], "no folder"),
    ],
)
def test_mistakes_say_what_to_do(cells: Path, arguments: list[str], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        run(cells, *arguments)


# ---- issue 15, points 1 and 4 ----


def test_a_list_of_capacities_alone_is_packed_by_capacity(tmp_path: Path) -> None:
    path = tmp_path / "harvest.csv"
    path.write_text(
        "id,Capacity (mAh)\n" + "".join(f"{n},{2000 + 7 * n}\n" for n in range(1, 10)), encoding="utf-8"
    )
    with pytest.raises(BatterySortingError, match=r"no column 'ocv_v'(.|\n)*--weights 1,0,0"):
        run(path, "--layout", "4s")
    said = json.loads(run(path, "--layout", "4s", "--weights", "1,0,0", "--json").stdout)
    assert (said["counts"]["packs"], said["leftover"]) == (2, 1)
    assert said["packs"][0]["range_ocv_v"] is None
    assert said["packs"][0]["range_capacity_ah"] == pytest.approx(0.021)
    report, plot, table = tmp_path / "packs.html", tmp_path / "packs.svg", tmp_path / "packed.csv"
    options = ("--weights", "1,0,0", "--report", report, "--plot", plot, "--output", table)
    assert "–" in run(path, "--layout", "4s", *options).stdout
    assert report.exists() and plot.exists() and table.exists()


def test_a_grade_in_small_letters_is_rejected_like_its_capital(tmp_path: Path) -> None:
    path = tmp_path / "graded.csv"
    rows = "".join(f"c{n},20.{n},1.5,3.2,{'a' if n < 4 else 'd'}\n" for n in range(8))
    path.write_text("id,capacity_ah,resistance_mohm,ocv_v,Klasse\n" + rows, encoding="utf-8")
    said = json.loads(run(path, "--layout", "2s", "--json").stdout)
    assert (said["counts"]["packed"], said["counts"]["rejected"]) == (4, 4)


def test_options_settle_what_a_table_leaves_open(tmp_path: Path) -> None:
    path = tmp_path / "cells.csv"
    path.write_text("Zelle;Kap;Ri\nä1;850.500;45.125\nä2;850.600;45.125\n", encoding="cp1252")
    told = ("--columns", "id=Zelle", "--columns", "capacity=Kap:mah", "--columns", "resistance=Ri:mohm")
    options = ("--layout", "2s", "--weights", "1,1,0", "--json", *told)
    with pytest.raises(BatterySortingError, match="--decimal point"):
        run(path, *options)
    for decimal, capacity in (("point", 0.8505), ("comma", 850.5)):
        said = json.loads(run(path, *options, "--decimal", decimal).stdout)
        assert said["packs"][0]["usable_ah"] == pytest.approx(capacity)
        assert said["cells"][0]["id"] == "ä1"
    for wrong, why in (
        (("--decimal", "dot"), "point or comma"),
        (("--columns", "cap=Kap"), "write one of id, capacity"),
    ):
        with pytest.raises(BatterySortingError, match=why):
            run(path, *options, *wrong)
