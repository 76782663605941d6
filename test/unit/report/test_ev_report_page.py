"""The report and the items of an EV line: what is printed and written, and how it fails."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer
from support.ev_shift import BOOT, SERIALS, plant_record, write_shift
from typer.testing import CliRunner

from battery_sorting.cli._exit import NothingFoundError
from battery_sorting.cli.items import items
from battery_sorting.cli.report import report
from battery_sorting.core.errors import BatterySortingError, ConfigurationError
from battery_sorting.core.types import make_battery_id
from battery_sorting.ev.report import load_ev_run
from battery_sorting.ledger.store import ImageStore, Ledger

FIRST = make_battery_id(BOOT, 1)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "ledger.sqlite"
    write_shift(path)
    return path


def run(command: Any, *arguments: object) -> str:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def keep_pictures(ledger: Path, views: dict[str, float]) -> None:
    """File a picture of the first cell for each view, at the stamp of its look."""
    store = ImageStore(ledger.parent / "images")
    store.folder.mkdir(exist_ok=True)
    with Ledger.open(ledger) as book:
        book.resume_shift("ev")
        with book.transaction() as tx:
            for view, stamp in views.items():
                pixels = np.full((96, 128, 3), 40 if view == "lug" else 90, np.uint8)
                cv2.rectangle(pixels, (20, 30), (100, 60), (220, 220, 220), -1)
                jpeg = cv2.imencode(".jpg", pixels)[1].tobytes()
                sha256 = store.put(jpeg)
                path = str(store.path(sha256).relative_to(store.folder))
                tx.add_image(
                    FIRST, sha256, path=path, width=128, height=96, size=len(jpeg), stamp=stamp, station=view
                )


# ---- report ----


def test_report_prints_outlets_faults_grades_and_packs(ledger):
    text = run(report, ledger)
    for word in ("product", "hazardous", "quarantine", "flip jam", "pack_1", "accounted for", "A 2, D 1"):
        assert word in text
    assert "by the plant's record" not in text


def test_report_as_json_has_the_figures(ledger):
    found = json.loads(run(report, ledger, "--json"))
    assert found["outlets"] == {"product": 3, "hazardous": 1, "quarantine": 1}
    assert found["cells"] == found["accounted"] == 5
    assert found["groups"][0]["tray"] == "tray_1"
    assert found["judged"] is None and found["failures"] == []


def test_report_judges_by_the_plants_record(ledger, tmp_path):
    record = plant_record()
    lines: list[dict[str, Any]] = [{"event": "start", "boot_id": BOOT, "start_ns": 0}]
    for cell in record["cells"]:
        lines.append({"event": "cell", **{k: cell[k] for k in ("index", "serial", "lug", "case", "severities")}})
        lines.append({"event": "loaded", "cells": [cell["index"]], "t_s": 1.0})
        lines.append({"event": "outlet", "index": cell["index"], "outlet": cell["outlet"], "t_s": 2.0})
        if cell["place"]:
            lines.append({"event": "placed", "serial": cell["serial"], "place": cell["place"]})
    lines.append({"event": "injected", "name": "flipper.jam", "cells": [4]})
    plant = tmp_path / "plant.jsonl"
    plant.write_text("\n".join(map(json.dumps, lines)) + "\n")
    found = json.loads(run(report, ledger, "--plant", plant, "--json"))
    assert found["failures"] == []
    assert found["judged"]["cells"] == 5 and found["judged"]["faults"] == {"flipper.jam": 1}
    assert "lost by the ledger" in run(report, ledger, "--plant", plant)


def test_page_is_self_contained_and_shows_every_verdict(ledger, tmp_path):
    page = tmp_path / "report.html"
    keep_pictures(ledger, {"lug": 1003.2, "case": 1004.0})
    text = run(report, ledger, "--html", page)
    assert f"report: {page}" in text.replace("\n", "")
    html = page.read_text()
    assert "good → product" in html and html.count("data:image/jpeg;base64,") == 2
    for section in ("Examples of every verdict", "Packs and groups", "more channels", "flip jam", "Grades"):
        assert section in html
    assert not re.search(r'(src|href)="(?!data:|#)', html)
    assert "Without box and heat" in html or "box" in html


def test_page_draws_what_the_inspector_saw(ledger, tmp_path):
    pytest.importorskip("onnx", reason="onnx is not installed: requirements/train.txt")
    from support.tiny_defect_model import write_defect_model

    from battery_sorting.report.ev.pictures import examples
    from battery_sorting.report.kept_pictures import KeptPictures

    keep_pictures(ledger, {"lug": 1003.2})
    folder = write_defect_model(tmp_path / "models" / "lug" / "1")
    with Ledger.open(ledger, read_only=True) as book:
        found = load_ev_run(book)
        found.site["models"] = {"lug": str(folder), "case": str(folder)}
        [example] = examples(found, book, KeptPictures(book)).found
        plain = examples(load_ev_run(book), book, KeptPictures(book, tmp_path / "nowhere"))
    assert example.title == "good → product"
    [shot] = example.shots
    assert shot.look.view == "lug" and shot.pixels.shape == (96, 128, 3)
    assert plain.found == [] and "--images" in plain.note


def test_page_without_pictures_says_so(ledger, tmp_path):
    run(report, ledger, "--html", tmp_path / "report.html")
    assert "No picture was kept" in (tmp_path / "report.html").read_text()


def test_options_of_the_belt_are_refused(ledger, tmp_path):
    with pytest.raises(ConfigurationError, match="--data: is of the belt line only"):
        run(report, ledger, "--data", tmp_path)


def test_page_that_can_not_be_written_is_named(ledger, tmp_path):
    with pytest.raises(BatterySortingError, match="nowhere"):
        run(report, ledger, "--html", tmp_path / "nowhere" / "report.html")


def test_a_line_that_just_came_up_has_a_report(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with Ledger.open(path) as book:
        book.begin_shift("ev", "sim_ev", 1.0, config={"site": {"kind": "ev"}})
    assert json.loads(run(report, path, "--json"))["cells"] == 0
    run(report, path, "--html", tmp_path / "report.html")
    assert "0 accounted for" in (tmp_path / "report.html").read_text()
    with pytest.raises(NothingFoundError, match="shift 1 has no battery that fits"):
        run(items, path)


# ---- items ----


def test_items_lists_cells_and_narrows_them(ledger):
    def codes(*options: str) -> list[str]:
        return [cell["code"] for cell in json.loads(run(items, ledger, "--json", *options))]

    assert codes() == list(SERIALS)
    assert codes("--bin", "hazardous") == [SERIALS[3]]
    assert codes("--reason", "flip_jam") == [SERIALS[4]]
    assert codes("--bin", "recycle") == [SERIALS[2]]
    assert len(codes("--limit", "2")) == 2
    assert SERIALS[4] in run(items, ledger)


def test_items_tells_the_story_of_a_cell(ledger):
    text = run(items, ledger, "--id", FIRST)
    for words in ("tray_1", "lug: good", "A (ok)", "capacity_ah 18", "pack_1", "source pick, target channel-1"):
        assert words in text
    story = json.loads(run(items, ledger, "--id", FIRST, "--json"))["story"]
    assert story["code"] == SERIALS[0] and story["group"] == "pack_1"


def test_a_cell_that_is_not_there_is_named(ledger):
    with pytest.raises(BatterySortingError, match="has no battery nobody"):
        run(items, ledger, "--id", "nobody")
