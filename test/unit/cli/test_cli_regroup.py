"""`battery-sorting regroup` on tables of cells."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")

from typer.testing import CliRunner

from battery_sorting.cli.main import make_app
from battery_sorting.core.errors import ConfigurationError


def run(*arguments: str, ok: bool = True):
    result = CliRunner().invoke(make_app("regroup"), ["regroup", *map(str, arguments)])
    if ok:
        assert result.exit_code == 0, result.output + repr(result.exception)
    return result


def write_cells(path: Path, rows: list[tuple]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "capacity_ah", "resistance_mohm", "ocv_v"])
        writer.writerows(rows)
    return path


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Two batches of grade A and B, one cell that is broken, one in mAh and one without resistance."""
    random = np.random.default_rng(0)
    centres = np.repeat([[19.9, 1.51, 3.2], [19.3, 1.6, 3.2], [18.0, 1.9, 3.2], [17.5, 2.1, 3.2]], 8, axis=0)
    values = centres + [0.05, 0.01, 0.0005] * random.normal(size=centres.shape)
    rows = [(f"c{n}", *row) for n, row in enumerate(values.round(5).tolist())]
    return write_cells(
        tmp_path / "cells.csv",
        [*rows, ("dead", 1.0, 9.0, 3.0), ("unit", 19000.0, 1.5, 3.2), ("open", 19.0, "", 3.2)],
    )


def as_json(*arguments: str) -> dict:
    return json.loads(run(*arguments, "--json").stdout)


def test_json_tells_the_group_of_each_cell_and_the_indices(cells):
    found = as_json(cells, "--spec", "lfp-20ah", "--groups", "2")
    assert len(found["cells"]) == 35
    for cell in found["cells"]:
        assert set(cell) == {"id", "grade", "relation_degree", "group", "reason"}
        assert cell["group"] is None or cell["group"].startswith(cell["grade"])
        assert (cell["group"] is None) == bool(cell["reason"])
    assert {cell["id"] for cell in found["cells"] if cell["group"] is None} >= {"dead", "unit", "open"}
    assert sum(found["counts"].values()) + found["ungrouped"] == 35
    assert found["si"] > 0.3 and found["dbi"] > 0 and found["noise_fraction"] == 0 and found["seconds"] > 0
    assert all(part["status"] == "grouped" and len(part["groups"]) == 2 for part in found["parts"])


def test_a_shuffled_table_gives_the_same_groups(cells, tmp_path):
    rows = list(csv.reader(cells.open()))
    order = np.random.default_rng(1).permutation(len(rows) - 1)
    shuffled = write_cells(tmp_path / "shuffled.csv", [tuple(rows[1 + n]) for n in order])
    groups = [
        {cell["id"]: cell["group"] for cell in as_json(path, "--spec", "lfp-20ah", "--groups", "2")["cells"]}
        for path in (cells, shuffled)
    ]
    assert groups[0] == groups[1]


def test_groups_may_cross_the_grades(cells):
    found = as_json(cells, "--spec", "lfp-20ah", "--across", "--groups", "4")
    assert [part["name"] for part in found["parts"]] == ["all"]
    assert set(found["counts"]) == {"G1", "G2", "G3", "G4"}


@pytest.mark.parametrize("method", ["dbscan-gmm-published", "gmm", "dbscan", "kmeans", "agglomerative"])
def test_the_other_methods_can_be_asked(cells, method):
    found = as_json(cells, "--spec", "lfp-20ah", "--method", method, "--noise", "apart", "--max-groups", "3")
    assert found["method"] == method
    assert len(found["cells"]) == 35


def test_table_plot_report_and_output(cells, tmp_path):
    plot, report, output = tmp_path / "groups.png", tmp_path / "groups.html", tmp_path / "out.csv"
    said = run(
        cells, "--spec", "lfp-20ah", "--groups", "2", "--plot", plot, "--report", report, "--output", output
    ).output
    assert "silhouette" in said and "dead" in said
    assert plot.read_bytes().startswith(b"\x89PNG")
    page = report.read_text()
    assert "<svg" in page and "c0" in page and "unit" in page
    rows = list(csv.DictReader(output.open()))
    assert len(rows) == 35 and rows[0]["group"].startswith(rows[0]["grade"])


def test_a_table_of_one_cell_ends_in_a_status(tmp_path):
    path = write_cells(tmp_path / "one.csv", [("c1", 19.5, 1.5, 3.2)])
    found = as_json(path, "--spec", "lfp-20ah")
    assert found["parts"][0]["status"] == "one_cell"
    assert found["si"] is None and found["dbi"] is None
    assert "one cell" in run(path, "--spec", "lfp-20ah", "--report", tmp_path / "r.html").output


@pytest.mark.parametrize(
    "wrong", [("--method", "dbscan-gm"), ("--noise", "drop"), ("--norm", "sepc"), ("--spec", "lfp-20")]
)
def test_wrong_options_are_refused_with_what_was_meant(cells, wrong):
    options = {"--spec": "lfp-20ah"} | {wrong[0]: wrong[1]}
    result = run(cells, *(word for pair in options.items() for word in pair), ok=False)
    assert isinstance(result.exception, ConfigurationError)
    assert wrong[1] in str(result.exception)


# ---- issue 15, point 3 ----

OUTPUTS = (("--plot", ".svg"), ("--report", ".html"), ("--output", ".csv"))
ICR18650 = """
name: icr18650
chemistry: NMC
nominal_capacity_ah: 2.6
ideal: {capacity_ah: 2.6, resistance_mohm: 40, ocv_v: 4.15}
worst: {capacity_ah: 1.3, resistance_mohm: 120, ocv_v: 3.9}
weights: {capacity: 0.5, resistance: 0.4, ocv: 0.1}
plausible: {capacity_ah: [0, 4], resistance_mohm: [5, 1000], ocv_v: [0, 4.3]}
"""


def written(folder, rows):
    (folder / "18650.yaml").write_text(ICR18650, encoding="utf-8")
    path = folder / "cells.csv"
    text = "".join(f"C{n},{a:.4f},{r:.3f},{v:.4f}\n" for n, (a, r, v) in enumerate(rows))
    path.write_text("id,capacity_ah,resistance_mohm,ocv_v\n" + text, encoding="utf-8")
    return path


@pytest.mark.timeout(120)
def test_cells_in_steps_of_a_charger_are_groups_of_identical_cells(tmp_path):
    random = np.random.default_rng(4)
    rows = [(2 + 0.1 * a, 50 + 10 * r, 4.1) for a, r in random.integers(0, (4, 3), (200, 2)).tolist()]
    said = json.loads(run(written(tmp_path, rows), "--spec", tmp_path / "18650.yaml", "--across", "--json").stdout)
    assert said["si"] == 1.0
    assert len(said["counts"]) == 12


@pytest.mark.parametrize("command", ["grade", "regroup", "packs"])
def test_a_quantity_without_weight_may_be_missing_in_every_output(tmp_path, command):
    (tmp_path / "spec.yaml").write_text(ICR18650.replace("resistance: 0.4, ocv: 0.1", "resistance: 0.5, ocv: 0"))
    path = tmp_path / "cells.csv"
    cells = [f"c{n},{1800 + 400 * (n % 2) + n},{45 + n % 7}" for n in range(24)]
    path.write_text("id,capacity_mah,ir_mohm\n" + "\n".join(cells), encoding="utf-8")
    outputs = {option: tmp_path / f"out{ending}" for option, ending in OUTPUTS}
    layout = ["--layout", "4s", "--weights", "1,1,0"] if command == "packs" else []
    options = [str(part) for pair in outputs.items() for part in pair]
    called = [command, str(path), "--spec", str(tmp_path / "spec.yaml"), *layout, *options]
    result = CliRunner().invoke(make_app(command), called)
    assert result.exit_code == 0, result.output
    assert all(output.stat().st_size for output in outputs.values())
    assert ",invalid," not in outputs["--output"].read_text(encoding="utf-8")


def test_two_lots_are_two_groups_whatever_the_noise_of_the_rest(tmp_path):
    random = np.random.default_rng(5)
    rows = [(lot, 45 + r, 3.95 + v) for lot in (2.2, 1.7) for r, v in random.uniform(-1, 1, (60, 2)) * [1, 0.002]]
    said = json.loads(run(written(tmp_path, rows), "--spec", tmp_path / "18650.yaml", "--across", "--json").stdout)
    assert list(said["counts"].values()) == [60, 60]
    assert said["si"] > 0.9
    assert not said["parts"][0]["weak"]
