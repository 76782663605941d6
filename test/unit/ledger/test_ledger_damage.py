"""Damaged and foreign ledgers: what can't be read is named with its number, and the rest is reported."""

from __future__ import annotations

import ast
import contextlib
import json
import math
import os
import random
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest
from support.ledger_damage import BELT, EV, WRITERS, commands, damage, faults, fresh, run
from typer.testing import CliRunner

import battery_sorting
from battery_sorting.belt.report import open_run
from battery_sorting.belt.resume import resumed_battery
from battery_sorting.cli.items import items
from battery_sorting.cli.main import make_app
from battery_sorting.cli.report import report
from battery_sorting.core.errors import BatterySortingError, LedgerError
from battery_sorting.core.strict_json import to_json
from battery_sorting.core.types import LineStateId
from battery_sorting.ledger.events import EjectReported, LineStateChanged, Typed
from battery_sorting.ledger.store import Ledger
from battery_sorting.packml.restart import restart

MUTATIONS = 150


@pytest.fixture(scope="module")
def ledgers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    for kind, write in WRITERS.items():
        write(folder / f"{kind}.sqlite")
    return folder


@pytest.fixture
def belt(ledgers, tmp_path):
    return fresh(ledgers / f"{BELT}.sqlite", tmp_path / "belt")


@pytest.fixture
def ev(ledgers, tmp_path):
    return fresh(ledgers / f"{EV}.sqlite", tmp_path / "ev")


def change(path, statement, *values):
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement, values)


def figures(path, code=0):
    outcome = run(lambda: report(str(path), as_json=True))
    assert outcome.code == code, outcome.text
    return json.loads(outcome.out, parse_constant=pytest.fail), outcome.text


# issue 15, C10
@pytest.mark.parametrize("kind", [BELT, EV])
def test_whatever_is_done_to_a_ledger_no_command_ends_in_a_traceback(ledgers, tmp_path, kind):
    wrong = []
    for seed in range(MUTATIONS):
        chance = random.Random(seed)
        path = fresh(ledgers / f"{kind}.sqlite", tmp_path / "damaged")
        what = damage(path, chance)
        tried = commands(kind, path, chance)
        names = ["report --json", *chance.sample(sorted(set(tried) - {"report --html", "report --json"}), 2)]
        if seed % 50 == 0:
            names.append("report --html")
        for name in names:
            wrong += [f"{seed}: {what}: {name}: {fault}" for fault in faults(name, run(tried[name]), what)]
    assert not wrong, "\n".join(wrong)


def test_an_undamaged_ledger_is_read_by_every_command_to_its_end(ledgers, tmp_path):
    for kind in (BELT, EV):
        path = fresh(ledgers / f"{kind}.sqlite", tmp_path / kind)
        for name, words in commands(kind, path, random.Random(0)).items():
            outcome = run(words)
            command = name.partition(",")[0]
            nothing = command == "review" or (kind, command) in {(BELT, "export passport"), (EV, "models shadow")}
            assert outcome.code == (2 if nothing else 0), f"{name}: {outcome.text}"


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("payload", "{", "payload is no JSON"),
        ("payload", '{"token": 3}', "payload of eject_reported: outcome is missing"),
        ("payload", '{"token": 3, "outcome": "flew"}', "payload of eject_reported: outcome is 'flew'"),
        ("payload", '{"token": 3, "outcome": 2, "latency_s": 1e300}', "latency_s is 1e+300"),
        ("payload", "[" * 3000 + "]" * 3000, "payload is nested too deep"),
        ("payload", '{"token":3,"outcome":2,"a":' + '{"a":' * 60 + "1" + "}" * 61, "payload is nested too deep"),
        ("payload", '{"token":3,"outcome":2,"reason":"\\ud800"}', "half a character"),
        ("payload", b"\xff\xfe", "payload is no text"),
        ("kind", "teleported", "kind is 'teleported', which this software does not know"),
        ("stamp", "noon", "stamp is 'noon'"),
        ("stamp", math.inf, "stamp is inf"),
        ("stamp", -5.0, "stamp is -5.0"),
        ("stamp", 1e18, "stamp is 1e+18"),
        ("battery_id", "../../x", "battery_id is '../../x'"),
    ],
)
def test_an_event_that_does_not_fit_is_named_with_its_number_and_the_rest_is_reported(belt, column, value, why):
    whole, _ = figures(belt)
    with Ledger.open(belt, read_only=True) as ledger:
        number = ledger.events(2, kinds=[EjectReported])[0].event_id
    change(belt, f"UPDATE events SET {column} = ? WHERE id = ?", value, number)
    with Ledger.open(belt, read_only=True) as ledger:
        assert number not in [event.event_id for event in ledger.events(2)]
        [sentence] = ledger.unreadable
        assert sentence.startswith(f"event {number} can't be read: ") and why in sentence
    outcome = run(lambda: items(str(belt), limit=99))
    assert outcome.code == 0  # it reads batteries alone
    found, text = figures(belt, code=3)
    assert f"event {number} can't be read: " in text and why in text and "the rest was reported" in text
    assert found["unreadable"] == [sentence]
    assert {**found, "decision_latency_ms": None, "unreadable": None} == {
        **whole,
        "decision_latency_ms": None,
        "unreadable": None,
    }


def test_a_battery_that_does_not_fit_is_left_out_and_named(belt):
    with Ledger.open(belt) as ledger:
        name = ledger.batteries(2)[0].battery_id
    change(belt, "UPDATE batteries SET detected_at = 'noon' WHERE battery_id = ?", name)
    found, text = figures(belt, code=3)
    assert found["items"] == 7 and f"battery {name} can't be read: detected_at is 'noon'" in text


def test_a_shift_whose_settings_are_damaged_is_reported_without_them(belt):
    change(belt, "UPDATE shifts SET config = '{', started_at = 'noon' WHERE id = 2")
    found, text = figures(belt, code=3)
    assert found["items"] == 8
    assert "shift 2 can't be read: config is no JSON" in text and "started_at is 'noon'" in text


@pytest.mark.parametrize("kind", [BELT, EV])
def test_pages_that_are_damaged_cost_their_rows_and_no_others(ledgers, tmp_path, kind):
    path = fresh(ledgers / f"{kind}.sqlite", tmp_path / kind)
    with Ledger.open(path, read_only=True) as ledger:
        whole = [event.event_id for event in ledger.events()]
    page, numbers = _leaf_of_events(path)
    content = bytearray(path.read_bytes())
    content[page : page + 4096] = os.urandom(1) + b"\x77" * 4095
    path.write_bytes(content)
    with Ledger.open(path, read_only=True) as ledger:
        left = [event.event_id for event in ledger.events()]
        told = [int(sentence.split()[1]) for sentence in ledger.unreadable]
    assert left and set(told) >= numbers and set(left) == set(whole) - set(told)
    assert len(told) < len(whole) / 2
    outcome = run(lambda: report(str(path), as_json=True, shift=1))
    assert outcome.code == 3 and json.loads(outcome.out)


def _leaf_of_events(path):
    """Offset of a leaf page of the table of events, and the numbers of its rows."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        try:
            pages = connection.execute(
                "SELECT pgno, pageno FROM (SELECT pageno AS pgno, pageno FROM dbstat WHERE name = 'events' "
                "AND pagetype = 'leaf') ORDER BY pgno"
            ).fetchall()
        except sqlite3.OperationalError:
            pytest.skip("this SQLite has no dbstat")
    content = path.read_bytes()
    begin = 4096 * (pages[len(pages) // 2][0] - 1)
    count = int.from_bytes(content[begin + 3 : begin + 5], "big")
    numbers = set()
    for cell in range(count):
        place = begin + int.from_bytes(content[begin + 8 + 2 * cell : begin + 10 + 2 * cell], "big")
        _, place = _varint(content, place)
        numbers.add(_varint(content, place)[0])
    return begin, numbers


def _varint(content, place):
    value = 0
    while True:
        value = value << 7 | content[place] & 0x7F
        place += 1
        if content[place - 1] < 0x80:
            return value, place


# issue 15, C11
def test_a_score_that_is_no_number_breaks_no_command(belt, tmp_path):
    for scores in (
        '{"aa": NaN, "bb": 0.2, "cc": null}',
        '{"aa": Infinity, "bb": 0.2}',
        '{"aa": null}',
        "{}",
        "null",
    ):
        change(
            belt,
            "UPDATE events SET payload = ? WHERE kind IN ('typed', 'shadow_typed')",
            '{"label": "aa", "confidence": NaN, "accepted": true, "reason": "", "model": "m/1", "novelty": NaN, '
            f'"scores": {scores}}}',
        )
        for name, command in commands(BELT, belt, random.Random(0)).items():
            outcome = run(command)
            assert outcome.code in {0, 2} and not faults(name, outcome), f"{name}: {outcome.text}"


def test_a_report_holds_no_events(belt):
    with Ledger.open(belt, read_only=True) as ledger:
        run_ = open_run(ledger, 2)
        assert not isinstance(run_.events, (list, tuple))
        assert len(list(run_.events)) == len(list(run_.events)) == 8 * 7 + 7 * 2
        first = next(iter(run_.each(Typed)))
        assert isinstance(first.data, Typed)


def test_a_path_in_a_ledger_leads_nowhere(belt, tmp_path):
    for path in ("../../secret", "/etc/passwd", "a/../../b", ""):
        change(belt, "UPDATE images SET path = ?", path)
        with Ledger.open(belt, read_only=True) as ledger:
            name = ledger.batteries(2)[0].battery_id
            assert ledger.images(name) == [] and "can't be read: path is" in ledger.unreadable[0]


@pytest.mark.parametrize("images", [{"path": "A" * 3000}, {"path": "a\0b"}])
def test_a_folder_of_pictures_that_no_disk_can_have_costs_no_command(belt, tmp_path, images):
    """The first is seed 4515 of bench/ledger_damage.py."""
    change(belt, "UPDATE shifts SET config = json_set(config, '$.site.images', json(?))", json.dumps(images))
    with Ledger.open(belt, read_only=True) as ledger:
        name = next(one.battery_id for one in ledger.batteries(2) if ledger.images(one.battery_id))
    for as_json in (False, True):
        outcome = run(lambda as_json=as_json: items(str(belt), battery_id=name, as_json=as_json))
        assert outcome.code == 0, outcome.text
    for command in (
        ["report", str(belt), "--html", str(tmp_path / "x.html")],
        ["review", str(belt), "--out", str(tmp_path / "r")],
    ):
        ended = CliRunner().invoke(make_app(command[0]), command)
        assert ended.exception is None or isinstance(ended.exception, (SystemExit, BatterySortingError)), ended


def test_ids_of_a_foreign_ledger_name_no_file_outside_of_the_review(belt, tmp_path):
    for name in ("../../x", "/tmp/x", "a/b", "..", ".hidden", "a\nb", "", "x" * 300, "a\\b"):
        copy = fresh(belt, tmp_path / "copy")
        change(copy, "UPDATE batteries SET battery_id = ? WHERE trigger_count = 3 AND shift_id = 2", name)
        with Ledger.open(copy, read_only=True) as ledger:
            assert name not in [battery.battery_id for battery in ledger.batteries()]
            assert "can't be read: battery_id is" in ledger.unreadable[0]


def test_a_ledger_is_read_in_a_folder_that_may_not_be_written_with_what_a_crash_left_there(belt):
    change(belt, "PRAGMA journal_mode = WAL")
    with contextlib.closing(sqlite3.connect(belt, isolation_level=None)) as writer:
        writer.execute("UPDATE batteries SET reason = 'late' WHERE shift_id = 2")
        crashed = belt.parent / "crashed"
        crashed.mkdir()
        for beside in belt.parent.glob("ledger.sqlite*"):
            shutil.copy(beside, crashed)
    (crashed / "ledger.sqlite-shm").unlink()
    for path in (*crashed.iterdir(), crashed):
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o222)
    outcome = run(lambda: report(str(crashed / "ledger.sqlite"), as_json=True))
    crashed.chmod(0o755)
    # Root may write everywhere; others can't open such a log, and are told so.
    assert outcome.code == 0 or "check that the folder exists and may be read and written" in outcome.text
    assert outcome.code != 0 or json.loads(outcome.out)["late"] == 8


def test_a_ledger_that_another_process_holds_says_so(belt, monkeypatch):
    monkeypatch.setattr("battery_sorting.ledger._engine.BUSY_TIMEOUT_S", 0.05)
    change(belt, "PRAGMA journal_mode = DELETE")
    with contextlib.closing(sqlite3.connect(belt, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        outcome = run(lambda: report(str(belt)))
    assert outcome.code == 2 and "another process holds it" in outcome.text


def test_what_may_have_been_an_order_to_rest_lets_a_line_wait_for_a_person():
    running = LineStateChanged(LineStateId.EXECUTE, run_id="r")
    for cut_off in (True, False):
        assert restart(running, [], "r", cut_off=cut_off, wanted=True).auto_start
        how = restart(running, [], "r", cut_off=cut_off, wanted=True, unreadable="event 7 can't be read: …")
        assert not how.auto_start and "event 7 can't be read" in how.reason


def test_a_reason_of_another_version_does_not_keep_a_controller_from_starting(belt):
    change(belt, "UPDATE batteries SET decided_reason = 'enchanted', bin = NULL")
    with Ledger.open(belt) as ledger:
        assert {resumed_battery(record).reason for record in ledger.open_batteries(BELT)} == {None}


def test_what_no_database_can_hold_is_refused_in_words(belt):
    answer = CliRunner().invoke(make_app("items"), ["items", str(belt), "--id", "\udcff"])
    assert isinstance(answer.exception, LedgerError) and "no database can hold" in str(answer.exception)


def test_json_that_is_written_is_strict():
    assert json.loads(to_json({"a": [math.nan, (math.inf, 1)], "b": -math.inf})) == {
        "a": [None, [None, 1]],
        "b": None,
    }
    loose = []
    for path in sorted(Path(battery_sorting.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr in {"dumps", "dump"} and getattr(node.func.value, "id", "").startswith("json"):
                strict = any(word.arg == "allow_nan" for word in node.keywords)
                loose += [] if strict else [f"{path.name}:{node.lineno}: use core.strict_json.to_json"]
    assert not loose, "\n".join(loose)
