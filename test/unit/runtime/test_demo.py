"""`battery-sorting demo`: what it refuses, what it says before the line starts, and how it fails."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from support.ev_shift import plant_record, write_shift

from battery_sorting.cli import demo as command
from battery_sorting.cli.demo import demo
from battery_sorting.core.errors import ConfigurationError
from battery_sorting.ev.report import EvReport, judge_ev_run, load_ev_run
from battery_sorting.ledger.store import Ledger
from battery_sorting.lines import LINES
from battery_sorting.runtime.demo import DEMOS, BeltJob, DemoError, DemoOutcome, EvJob
from battery_sorting.runtime.demo.ev import _room_for


class CellWouldStartError(Exception):
    """The cell itself is started in test/system."""


def start(*_):
    raise CellWouldStartError


# issue 15, B9
def test_what_is_left_out_of_the_pictures_is_told_before_the_cell_starts(tmp_path, monkeypatch, capsys):
    for name in ("Red/1.png", "@eaDir/1.png", "__MACOSX/1.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (16, 16)).save(tmp_path / name)
    (tmp_path / "Red" / "1.cr2").write_bytes(b"raw")
    monkeypatch.setattr(command, "run_demo", start)
    with pytest.raises(CellWouldStartError):
        demo(items=5, images=tmp_path)
    told = capsys.readouterr().err
    assert "2 (@eaDir/, __MACOSX/)" in told
    assert "raw files of cameras: 1 (Red/1.cr2); convert them" in told


def test_a_folder_that_is_not_there_is_named_before_the_cell_starts(tmp_path):
    with pytest.raises(ConfigurationError, match=r"--images(.|\n)*nowhere: no such folder"):
        demo(items=5, images=tmp_path / "nowhere")


# ---- either line ----


def test_there_is_a_demo_of_each_line_that_the_package_brings():
    assert DEMOS.keys() == LINES.keys()


@pytest.mark.parametrize("option", [{"rate": 3.0}, {"speed": 0.5}, {"images": "."}])
def test_options_of_the_belt_are_refused_for_the_ev_line(option):
    with pytest.raises(
        ConfigurationError, match=rf"--line ev(.|\n)*--{next(iter(option))}: is of the belt line only"
    ):
        demo(line="ev", **option)


def test_a_line_that_there_is_not_names_those_there_are():
    with pytest.raises(ConfigurationError, match="belt or ev"):
        demo(line="tram")


def test_the_options_come_to_the_job(monkeypatch, tmp_path):
    jobs = []

    def run(job, *_):
        jobs.append(job)
        start()

    monkeypatch.setattr(command, "run_demo", run)
    for options in (
        {"rate": 3.0, "speed": 0.5, "items": 7, "seed": 4, "run_dir": tmp_path, "overrides": ["a=b"]},
        {},
        {"line": "ev"},
    ):
        with pytest.raises(CellWouldStartError):
            demo(**options)
    assert jobs == [
        BeltJob(7, 4, tmp_path, ("a=b",), rate_per_s=3.0, speed_mps=0.5),
        BeltJob(200, rate_per_s=5.0, site="sim"),
        EvJob(60, site="sim_ev"),
    ]


def test_there_is_room_for_all_cells():
    overrides = dict(text.partition("=")[::2] for text in _room_for(EvJob(items=200)))
    trays = {tray["name"]: tray["slots"] for tray in json.loads(overrides["measuring.trays"])}
    assert int(overrides["measuring.buffer"]) >= 200
    assert trays["leftover"] >= 200 and trays["recycle"] >= 200 and trays["quarantine"] >= 200
    assert sum(slots for name, slots in trays.items() if name.startswith("tray_")) >= 200


def test_it_fails_where_the_plant_knows_better(tmp_path, monkeypatch, capsys):
    ledger = tmp_path / "ledger.sqlite"
    write_shift(ledger)
    record = plant_record()
    record["cells"][0]["place"] = "floor"
    with Ledger.open(ledger, read_only=True) as book:
        found = load_ev_run(book, record=record)
    plan = type("Plan", (), {"site": None, "run_dir": tmp_path})()
    outcome = DemoOutcome(plan, EvReport(found, judge_ev_run(found, record)), {})
    monkeypatch.setattr(command, "run_demo", lambda *_: outcome)
    monkeypatch.setattr(command, "ledger_location", lambda *_: ledger)
    with pytest.raises(DemoError, match="the line has not worked: cells in another place than the ledger says: 1"):
        demo(line="ev", json_file=tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["failures"]
    assert (tmp_path / "report.html").exists()
    assert f"report: {tmp_path}/report.html" in capsys.readouterr().out
