"""Figures of a run with known numbers, and the pages and tables made of them."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from battery_sorting.belt.report import ALL, UNKNOWN, Figures, figures, judge, load_run, timelines
from battery_sorting.cli.items import items
from battery_sorting.cli.report import report
from battery_sorting.core.errors import BatterySortingError, LedgerError
from battery_sorting.core.types import NOWHERE, EjectOutcome, Reason, make_battery_id
from battery_sorting.ledger.events import Decided, Detected, Disposed, EjectOrdered, EjectReported, Exited, Typed
from battery_sorting.ledger.store import Ledger
from battery_sorting.line.reporting import spread
from battery_sorting.report.belt.tables import type_table

BOOT = 0x6A000001
ROUTES = {"Klarus": "klarus", "IKEA": "ikea"}
KEYS = {
    "items",
    "accounted",
    "correct_bin",
    "wrong_bin",
    "others",
    "missed",
    "late",
    "double_ejected",
    "named_but_misplaced",
    "type_accuracy",
    "purity",
    "yield",
    "decision_latency_ms",
    "position_error_mm",
    "startup_s",
    "memory_mb",
    "cpu_percent",
    "real_time_factor",
    "others_reasons",
    "table",
    "confusion",
    "disagreements",
    "lost",
}

# Of each battery: true type, named type, confidence, decided reason, final bin, final reason, bin by the plant.
STORY = [
    ("Klarus", "Klarus", 0.99, "sorted", "klarus", "sorted", "klarus"),
    ("Klarus", "Klarus", 0.98, "sorted", "klarus", "sorted", "klarus"),
    ("Klarus", "IKEA", 0.90, "sorted", "ikea", "sorted", "ikea"),  # wrongly named
    ("IKEA", "IKEA", 0.95, "sorted", "ikea", "sorted", "ikea"),
    ("IKEA", "IKEA", 0.60, "low_confidence", "others", "low_confidence", "others"),
    ("IKEA", "IKEA", 0.97, "sorted", "others", "missed", "others"),  # named right, air missed it
    (
        "acme",
        "Klarus",
        0.40,
        "low_confidence",
        "others",
        "low_confidence",
        "others",
    ),  # unknown brand, rightly refused
    ("acme", "Klarus", 0.85, "sorted", "klarus", "sorted", "klarus"),  # unknown brand, taken for a Klarus
]


def write_ledger(path):
    with Ledger.open(path) as ledger:
        ledger.begin_shift("belt", "sim", 1000.0, software_version="0.1", config={"recipe": {"routes": ROUTES}})
        with ledger.transaction() as tx:
            for number, battery in enumerate(STORY, start=1):
                write_battery(tx, number, *battery[1:6])


def write_battery(tx, number, label, confidence, decided_reason, bin_, reason):
    battery_id = make_battery_id(BOOT, number)
    eye = 1000.0 + number
    bin_decided = ROUTES[label] if decided_reason == "sorted" else "others"
    tx.record(Detected(trigger_count=number, encoder_count=number * 1000), battery_id, eye)
    accepted = decided_reason == "sorted"
    tx.record(Typed(label=label, confidence=confidence, accepted=accepted), battery_id, eye + 0.02)
    tx.record(Decided(bin=bin_decided, reason=decided_reason), battery_id, eye + 0.02)
    if accepted:
        tx.record(EjectOrdered(token=number, bin=bin_decided), battery_id, eye + 0.02)
        for outcome, stamp, latency in (("scheduled", 0.03, number / 1000), ("fired", 1.5, math.nan)):
            tx.record(
                EjectReported(token=number, outcome=EjectOutcome[outcome.upper()], latency_s=latency),
                battery_id,
                eye + stamp,
            )
    if bin_ == "others":
        tx.record(Exited(exit_count=number), battery_id, eye + 4.0)
    tx.record(Disposed(bin=bin_, reason=reason), battery_id, eye + 4.2)


def plant_record():
    return {
        "boot_id": BOOT,
        "items": [
            {
                "index": number - 1,
                "trigger_count": number,
                "label": true,
                "known": true in ROUTES,
                "bin": bin_,
                "t_s": 1.0,
            }
            for number, (true, *_, bin_) in enumerate(STORY, start=1)
        ],
        "pulses": [
            {"token": number, "valve": 0, "bin": "x", "t_s": 1.0, "hit": [], "position_error_mm": error}
            for number, error in ((1, -1.0), (2, 2.0), (3, 3.0), (4, -4.0), (6, 5.0), (8, None))
        ],
        "real_time_factor": 1.0,
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / "ledger.sqlite"
    write_ledger(path)
    return path


@pytest.fixture
def path(written, tmp_path):
    return Path(shutil.copy(written, tmp_path))


@pytest.fixture
def ledger(path):
    with Ledger.open(path) as ledger:
        ledger.resume_shift("belt")
        yield ledger


def test_figures_of_a_run_judged_by_the_plant(ledger):
    result = judge(ledger, plant_record(), startup_s=3.0, memory_mb={"plant": 90.0, ALL: 500.0})
    assert (result.items, result.accounted, result.lost) == (8, 8, [])
    assert (result.correct_bin, result.wrong_bin, result.others) == (4, 2, 3)
    assert (result.missed, result.late, result.double_ejected, result.named_but_misplaced) == (1, 0, 0, 1)
    assert result.type_accuracy == pytest.approx(5 / 6)
    assert result.purity == {"ikea": 1 / 2, "klarus": 2 / 3, ALL: 3 / 5}
    assert result.yield_ == {"ikea": 1 / 3, "klarus": 2 / 3, ALL: 3 / 6}
    assert result.table["Klarus"] == {"ikea": 1, "klarus": 2}
    assert result.table[UNKNOWN] == {"klarus": 1, "others": 1}
    assert result.confusion["IKEA"] == {"IKEA": 2, UNKNOWN: 1}
    assert result.others_reasons == {"low_confidence": 2, "missed": 1}
    assert result.decision_latency_ms["p50"] == pytest.approx(3.5)
    assert result.decision_latency_ms["max"] == pytest.approx(8.0)
    assert result.position_error_mm["p50"] == 3.0
    assert (result.startup_s, result.real_time_factor, result.disagreements) == (3.0, 1.0, [])


def test_without_the_plant_nothing_is_claimed_about_the_truth(ledger):
    result = figures(ledger)
    assert (result.items, result.accounted, result.others, result.missed) == (8, 8, 3, 1)
    assert (result.correct_bin, result.type_accuracy, result.purity) == (None, None, {ALL: None})
    assert result.table["Klarus"] == {"klarus": 3}


def test_a_battery_elsewhere_than_the_ledger_says_is_a_disagreement(ledger):
    record = plant_record()
    record["items"][0]["bin"] = "others"
    result = judge(ledger, record)
    assert [row["battery_id"] for row in result.disagreements] == [make_battery_id(BOOT, 1)]
    assert (result.missed, result.named_but_misplaced) == (2, 2)


def test_an_ejection_that_nobody_ordered_is_a_disagreement(ledger):
    record = plant_record()
    record["pulses"].append({**record["pulses"][0], "token": 999})
    assert [row["reason"] for row in judge(ledger, record).disagreements] == ["token 999"]


def test_a_second_pulse_of_one_token_is_a_double_ejection(ledger):
    record = plant_record()
    record["pulses"].append(record["pulses"][0])
    assert judge(ledger, record).double_ejected == 1


def test_batteries_without_a_place_in_the_ledger_are_lost(ledger):
    record = plant_record()
    record["items"].append(
        {"index": 8, "trigger_count": None, "label": "IKEA", "known": True, "bin": "others", "t_s": 9}
    )
    record["items"].append(
        {"index": 9, "trigger_count": 9, "label": "IKEA", "known": True, "bin": "others", "t_s": 9}
    )
    with ledger.transaction() as tx:
        tx.record(Detected(trigger_count=9, encoder_count=1), make_battery_id(BOOT, 9), 1009.0)
        tx.record(Disposed(bin=NOWHERE, reason=Reason.UNACCOUNTED), make_battery_id(BOOT, 9), 1013.0)
    result = judge(ledger, record)
    assert (result.items, result.accounted) == (10, 8)
    assert [row["index"] for row in result.lost] == [8, 9]
    assert result.disagreements == []


def test_a_false_trigger_is_no_battery(ledger):
    with ledger.transaction() as tx:
        tx.record(Detected(trigger_count=9, encoder_count=1), make_battery_id(BOOT, 9), 1009.0)
        tx.record(Disposed(bin=NOWHERE, reason=Reason.FALSE_TRIGGER), make_battery_id(BOOT, 9), 1013.0)
    assert figures(ledger).items == 8


def test_a_battery_still_on_the_belt_counts_neither_way(ledger):
    record = plant_record()
    record["items"].append({"index": 8, "trigger_count": 9, "label": "IKEA", "known": True, "bin": None, "t_s": 9})
    result = judge(ledger, record)
    assert (result.items, result.correct_bin, result.wrong_bin, result.named_but_misplaced) == (9, 4, 2, 1)
    assert result.table["IKEA"]["on_belt"] == 1


def test_only_batteries_of_the_plants_run_are_judged(ledger):
    with ledger.transaction() as tx:
        tx.record(Detected(trigger_count=1, encoder_count=1), make_battery_id(BOOT - 1, 1), 900.0)
    ledger.begin_shift("belt", "sim", 2000.0, config={"recipe": {"routes": ROUTES}})
    assert judge(ledger, plant_record()).items == 8
    assert judge(ledger, plant_record()).correct_bin == 4


def test_without_a_recipe_on_record_a_type_has_the_bin_of_its_name(tmp_path):
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        ledger.begin_shift("belt", "sim", 1000.0)
        record = {"boot_id": BOOT, "pulses": [], "items": []}
        record["items"].append(
            {"index": 0, "trigger_count": 1, "label": "aa", "known": True, "bin": "aa", "t_s": 1}
        )
        assert judge(ledger, record).correct_bin == 1
        assert judge(ledger, record, routes={"aa": "bin_aa"}).wrong_bin == 1


def test_the_json_has_the_agreed_keys_and_no_nan(ledger):
    result = judge(ledger, plant_record(), startup_s=math.nan, cpu_percent={ALL: math.inf})
    text = json.dumps(result.to_dict(), allow_nan=False)
    assert set(json.loads(text)) == KEYS == set(Figures().to_dict())
    assert json.loads(text)["startup_s"] is None
    assert json.loads(text)["cpu_percent"] == {ALL: None}


@pytest.mark.parametrize("count", [1, 2, 3, 100, 201])
def test_percentiles_are_those_of_numpy(count):
    numpy = pytest.importorskip("numpy")
    values = [(7919 * number) % 1009 for number in range(count)]
    result = spread(values, p50=50, p99=99, p999=99.9, max=100)
    assert list(result.values()) == pytest.approx(list(numpy.percentile(values, [50, 99, 99.9, 100])))
    assert spread([], p50=50) == {"p50": None}


def test_timelines_are_relative_to_the_photo_eye(ledger):
    lines = timelines(load_run(ledger))
    first, refused = lines[0], lines[4]
    assert (first.typed_s, first.ordered_s, first.fired_s, first.disposed_s) == pytest.approx(
        (0.02, 0.02, 1.5, 4.2)
    )
    assert (first.exited_s, refused.fired_s, refused.ordered_s) == (None, None, None)
    assert refused.exited_s == pytest.approx(4.0)


def test_a_shift_that_is_not_there_is_named(ledger, tmp_path):
    with pytest.raises(LedgerError, match="has no shift 7; its last shifts are 1"):
        figures(ledger, 7)
    with Ledger.open(tmp_path / "new.sqlite") as empty, pytest.raises(LedgerError, match="no shift yet"):
        figures(empty)


# ---- command line ----


@pytest.fixture
def run(monkeypatch):
    app = typer.Typer()
    app.command()(report)
    app.command()(items)
    monkeypatch.setenv("COLUMNS", "100")

    def invoke(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return invoke


@pytest.fixture
def plant(tmp_path):
    record = plant_record()
    lines = [{"event": "start", "boot_id": BOOT, "start_ns": 0}]
    for item in record["items"]:
        index = item["index"]
        lines.append({"event": "item", "index": index, "label": item["label"], "known": item["known"], "t_s": 0.0})
        lines.append({"event": "trigger", "index": index, "trigger_count": item["trigger_count"], "t_s": 0.5})
        lines.append({"event": "bin", "index": index, "bin": item["bin"], "t_s": 1.0})
    lines += [{"event": "pulse", **pulse} for pulse in record["pulses"]]
    path = tmp_path / "plant.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


def test_the_html_stands_alone_and_shows_all_plots(run, path, plant, tmp_path):
    html = tmp_path / "report.html"
    result = run("report", path, "--plant", plant, "--html", html)
    assert result.exit_code == 0, result.output
    assert str(html) in result.output.replace("\n", "")
    page = html.read_text()
    assert page.count("<svg") == 4
    assert not re.search(r"https?:", page)
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", page)
    assert "@import" not in page
    assert "Batteries that were not sorted" in page


def test_the_page_escapes_what_the_ledger_says(run, ledger, path, tmp_path):
    ledger.begin_shift("belt", "<script>alert(1)</script>", 2000.0)
    assert run("report", path, "--html", tmp_path / "r.html").exit_code == 0
    assert "<script" not in (tmp_path / "r.html").read_text()


def test_the_json_report_is_what_judge_says(run, path, plant, ledger):
    result = run("report", path, "--plant", plant, "--json")
    assert json.loads(result.stdout) == {
        **judge(ledger, plant_record()).to_dict(),
        "real_time_factor": None,
    }


def test_the_tables_name_reasons_and_misses(run, path, plant):
    output = run("report", path, "--plant", plant).output
    for text in ("True type by bin", "Purity and yield", "low confidence", "missed", "unknown brand", "66.7 %"):
        assert text in output


def test_narrow_terminals_number_the_bins_and_pipes_get_their_names(run, path, ledger, monkeypatch):
    assert type_table(figures(ledger), 40).caption.startswith("1 ikea, 2 klarus, 3 others")
    assert type_table(figures(ledger), 400).caption is None
    monkeypatch.setenv("COLUMNS", "40")  # says nothing of a pipe: issue 15, D12
    assert "type\tikea\tklarus\tothers" in run("report", path).output


def test_items_are_listed_and_narrowed(run, path):
    assert run("items", path).output.count("6a000001-") == 8
    missed = run("items", path, "--reason", "missed").output
    assert missed.count("6a000001-") == 1
    assert "6a000001-000006" in missed
    assert len(json.loads(run("items", path, "--bin", "klarus", "--limit", "2", "--json").stdout)) == 2


def test_the_story_of_a_battery_is_told_from_the_photo_eye_on(run, path, ledger):
    with ledger.transaction() as tx:
        tx.add_image("6a000001-000006", "ab" * 32, path="ab/x.jpg", width=1280, height=1024, size=9, stamp=1006.001)
    picture = path.parent / "images" / "ab" / "x.jpg"
    picture.parent.mkdir(parents=True)
    picture.touch()
    output = run("items", path, "--id", "6a000001-000006").output
    assert "6a000001-000006: others (missed)" in output
    assert re.search(r"\+0\.020 s +typed +IKEA 97\.0 %", output)
    assert re.search(r"\+1\.500 s +eject_reported +token 6, outcome fired", output)
    assert f"image           {picture} (1280 x 1024, infeed)" in output
    story = json.loads(run("items", path, "--id", "6a000001-000006", "--json").stdout)
    assert story["battery"]["reason"] == "missed"
    assert [event["kind"] for event in story["events"]][-1] == "disposed"


def test_what_can_not_be_reported_is_an_error_that_names_it(run, path, tmp_path):
    foreign = tmp_path / "notes.txt"
    foreign.write_text("no ledger at all, just some notes")
    for arguments, message in (
        (("report", tmp_path / "none.sqlite"), "none.sqlite: no such ledger"),
        (("items", foreign), "notes.txt: is not a ledger"),
        (("report", path, "--html", tmp_path / "no" / "r.html"), "no: make it first"),
        (("items", path, "--id", "nobody"), "has no battery nobody"),
        (("report", path, "--plant", tmp_path / "none.jsonl"), "none.jsonl"),
    ):
        result = run(*arguments)
        assert isinstance(result.exception, BatterySortingError)
        assert message in str(result.exception)


def test_the_command_ends_with_2_and_one_line_for_a_missing_ledger(tmp_path):
    code = "from battery_sorting.cli.main import main; main()"
    arguments = [sys.executable, "-c", code, "report", str(tmp_path / "none.sqlite")]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert "none.sqlite: no such ledger" in result.stderr
