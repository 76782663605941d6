"""Stories and figures of an EV line: of a station on the plant's mechanics, and of a shift written by hand."""

from __future__ import annotations

import json
import math

import pytest
from support.ev_cell import EvCell
from support.ev_shift import BOOT, SERIALS, plant_record, write_shift

from battery_sorting.ev.measurement import Programme
from battery_sorting.ev.plant_record import EvPlantRecord
from battery_sorting.ev.report import (
    NAMED_AS,
    ev_figures,
    judge_ev_run,
    load_ev_run,
    programme_hours,
    what_if,
)
from battery_sorting.ledger.store import Ledger
from battery_sorting.lines import kind_of
from battery_sorting.plant.ev_station import FAULTS

RATES = {
    "loader.jam": 0.05,
    "loader.no_cell": 0.05,
    "loader.two_cells": 0.05,
    "loader.upside_down": 0.05,
    "flipper.jam": 0.05,
    "flipper.half": 0.05,
    "flipper.twice": 0.05,
    "station.swap": 0.08,
    "plc.restart": 0.05,
    "lug.drop": 0.05,
    "case.blank": 0.05,
    "case.late": 0.03,
}


def judge(cell: EvCell, path, boot_id=0x5EED0000):
    """What the report says of a station that has run, its records written into a ledger."""
    with Ledger.open(path / "ledger.sqlite") as ledger:
        ledger.begin_shift("ev", "sim", 0.0, config={"site": {"kind": "ev"}, "recipe": cell.recipe.model_dump()})
        with ledger.transaction() as tx:
            for record in cell.records:
                tx.record(record.data, record.battery_id, record.stamp)
        truth = EvPlantRecord()
        truth.apply({"event": "start", "boot_id": boot_id, "start_ns": 0})
        for event in cell.events:
            truth.apply(event)
        record = truth.as_dict()
        run = load_ev_run(ledger, record=record)
    return run, judge_ev_run(run, record), record


@pytest.fixture(scope="module")
def struck(tmp_path_factory):
    cell = EvCell(items=150, seed=4, fault_rates=RATES, defective=0.3)
    cell.run_all()
    return judge(cell, tmp_path_factory.mktemp("struck"))


def test_cells_with_faults_are_matched_and_every_fault_is_named(struck):
    run, figures, record = struck
    judged = figures.judged
    assert len({story.battery_id for story in run.stories}) == len(run.stories)
    assert judged.cells == len(record["cells"]) == 150
    assert judged.lost == [] and judged.faulty_products == [] and judged.disagreements == []
    assert judged.faults_unnamed == []
    assert figures.failures == []
    assert sum(judged.faults.values()) > 40


def test_the_matching_reaches_cells_whose_code_was_never_read(struck):
    run, _, record = struck
    unread = [story for story in run.stories if not story.codes and story.outlet]
    assert unread, "the seed no longer makes such cells"
    assert len(record["loads"]) > 150 - sum(load["cells"] == [] for load in record["loads"]) - 20
    assert record["swaps"]


def test_outlets_of_the_report_are_those_of_the_plant(struck):
    _, figures, record = struck
    products = sum(cell["outlet"] == "product" for cell in record["cells"])
    assert figures.outlets["product"] == products > 0
    assert figures.cells == figures.accounted
    assert sum(figures.outlets.values()) == figures.cells
    for outlet, reasons in figures.reasons.items():
        assert sum(reasons.values()) == figures.outlets[outlet]


def test_a_perfect_inspector_lets_nothing_escape_and_rejects_nothing_good(tmp_path):
    cell = EvCell(items=40, seed=5, defective=0.6)
    cell.run_all()
    run, figures, record = judge(cell, tmp_path)
    judged = figures.judged
    assert judged.escapes == [] and judged.good_rejected == {}
    defects = [cell[view] for cell in record["cells"] for view in ("lug", "case") if cell[view] != "good"]
    assert sum(counts["cells"] for counts in judged.defects.values()) == len(defects)
    early = [cell for cell in record["cells"] if cell["lug"] == "broken" and cell["case"] in run.hazards]
    assert len(judged.hazards_elsewhere) == len(early)
    assert run.hazards == {"bulging", "leaking"}
    assert {entry["kind"] for entry in judged.detections} <= set(judged.defects)


def test_a_blind_inspector_is_found_out(tmp_path, monkeypatch):
    cell = EvCell(items=30, seed=5, defective=0.6)
    sees = cell._judge

    def blind(exposure):
        result = sees(exposure)
        object.__setattr__(result, "verdict", "good")
        return result

    monkeypatch.setattr(cell, "_judge", blind)
    cell.run_all()
    _, figures, record = judge(cell, tmp_path)
    defective = [cell for cell in record["cells"] if (cell["lug"], cell["case"]) != ("good", "good")]
    assert {row["serial"] for row in figures.judged.escapes} == {cell["serial"] for cell in defective}
    assert figures.judged.hazards == len(figures.judged.hazards_elsewhere) > 0
    assert figures.failures == [], "a misjudged cell is the model's fault"


def test_every_fault_of_the_plant_has_a_name_in_the_ledger_or_is_none():
    harmless = {f"{view}.{name}" for view in ("lug", "case") for name in ("gray", "depth16")}
    assert set(FAULTS) - harmless == set(NAMED_AS)


# ---- a shift by hand ----


@pytest.fixture
def shift(tmp_path):
    """Ledger and record of a shift in which everything is as it should be."""
    write_shift(tmp_path / "ledger.sqlite")
    with Ledger.open(tmp_path / "ledger.sqlite", read_only=True) as ledger:
        yield ledger, plant_record()


def test_a_story_has_all_that_the_ledger_knows(shift):
    ledger, _ = shift
    run = load_ev_run(ledger)
    story = run.stories[0]
    assert kind_of(run.shift).name == "ev"
    assert (story.battery_id, story.code, story.outlet) == (f"{BOOT:08x}-000001", SERIALS[0], "product")
    assert story.views["lug"].verdict == story.views["case"].verdict == "good"
    assert story.station_s == pytest.approx(2.0)
    assert (story.grade, story.grade_status, story.relation_degree) == ("A", "ok", 0.9)
    assert story.probabilities == (0.9, 0.1, 0.0, 0.0)
    assert (story.group, story.place, story.bin, story.bin_reason) == ("pack_1", "tray_1-1", "tray_1", "grouped")
    assert story.measurement["capacity_ah"] == 18.0
    assert [move[:2] for move in story.moves] == [
        ("pick", "channel-1"),
        ("channel-1", "buffer-1"),
        ("buffer-1", "tray_1-1"),
    ]
    assert story.where == "tray_1-1"
    json.dumps(story.to_dict(), allow_nan=False)


def test_figures_count_what_was_written(shift):
    ledger, _ = shift
    figures = ev_figures(load_ev_run(ledger))
    assert (figures.cells, figures.accounted, figures.open, figures.measured) == (5, 5, 0, 3)
    assert figures.outlets == {"product": 3, "hazardous": 1, "quarantine": 1}
    assert figures.faults == {"flip_jam": 1}
    assert figures.grades == {"A": 2, "D": 1}
    assert figures.trays == {"tray_1": 2, "recycle": 1}
    assert figures.moves == {"done": 8}
    assert figures.verdicts["case"] == {"good": 3, "defective": 1}
    [pack] = figures.groups
    assert (pack.name, pack.tray, len(pack.cells), pack.grades) == ("pack_1", "tray_1", 2, {"A": 2})
    assert pack.ranges["capacity_ah"] == pytest.approx(0.5)
    assert figures.inference_s["median"] == pytest.approx(0.1)
    assert figures.test_s["median"] == pytest.approx(10.0)
    assert figures.judged is None
    json.dumps(figures.to_dict(), allow_nan=False)


def test_a_line_that_worked_has_no_failures(shift):
    ledger, record = shift
    figures = judge_ev_run(load_ev_run(ledger, record=record), record)
    assert figures.failures == []
    assert figures.judged.errors["capacity_ah"]["cells"] == 3
    assert figures.judged.errors["capacity_ah"]["max_abs"] == pytest.approx(0.05)
    assert figures.judged.errors["capacity_ah"]["within_limit"] == 2
    assert figures.judged.good_rejected == {}
    assert figures.judged.faults == {"flipper.jam": 1}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"place": "tray_2-1"}, "another place"),
        ({"place": "floor"}, "another place"),
        ({"outlet": "review", "place": None}, "another place"),
        ({"faults": ["case.blank"]}, "became a product"),
    ],
)
def test_what_the_plant_knows_better_is_a_failure(shift, change, what):
    ledger, record = shift
    record["cells"][0].update(change)
    figures = judge_ev_run(load_ev_run(ledger, record=record), record)
    assert any(what in failure for failure in figures.failures), figures.failures


@pytest.mark.parametrize("name", ["lug.gray", "case.depth16"])
def test_a_frame_without_colour_or_with_16_bits_keeps_no_cell_from_being_a_product(shift, name):
    ledger, record = shift
    record["cells"][0]["faults"] = [name]
    figures = judge_ev_run(load_ev_run(ledger, record=record), record)
    assert figures.judged.faulty_products == [] and figures.failures == []


def test_a_cell_that_the_ledger_never_saw_is_lost(shift):
    ledger, record = shift
    record["cells"].append({**record["cells"][0], "index": 9, "serial": "LFUNSEEN", "outlet": "product"})
    record["loads"].append({"boot_id": BOOT, "number": 9, "cells": [9]})
    figures = judge_ev_run(load_ev_run(ledger, record=record), record)
    assert [row["serial"] for row in figures.judged.lost] == ["LFUNSEEN"]


def test_a_fault_without_a_name_is_told(shift):
    ledger, record = shift
    record["cells"][3]["faults"] = ["case.blank"]
    record["cells"][4]["faults"] = ["flipper.jam", "case.drop"]
    judged = judge_ev_run(load_ev_run(ledger, record=record), record).judged
    assert [row["fault"] for row in judged.faults_unnamed] == ["case.blank"]
    assert [row["fault"] for row in judged.faults_named_otherwise] == ["case.drop"]


def test_cells_of_another_run_of_the_plant_are_left_out(shift):
    ledger, record = shift
    record["boot_id"] += 7
    for load in record["loads"]:
        load["boot_id"] += 7
    assert load_ev_run(ledger, record=record).stories == []


def test_channels_set_the_rate(shift):
    ledger, _ = shift
    run = load_ev_run(ledger)
    found = what_if(run, ev_figures(run))
    assert found.channels_now == 8
    assert found.test_h == pytest.approx(5.31, abs=0.01)
    assert found.needed == math.ceil(found.products_per_h * found.test_h)
    by_channels = {row.channels: row for row in found.rows}
    assert by_channels[8].tested_per_h == pytest.approx(8 / found.test_h)
    assert by_channels[found.needed].station_share == 1.0
    assert [row.channels for row in found.rows] == sorted(by_channels)


def test_hours_of_a_programme_follow_from_capacity_and_currents():
    programme = Programme.capacity_test(20.0, rate=0.5, rest_s=1800)
    assert programme_hours(programme, 20.0) == pytest.approx(2 + 2 + 1 + 3 * 0.5 + 70 / 3600)
